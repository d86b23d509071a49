//! gRPC health: readiness follows the tokens, and liveness asks no token.
#![cfg(test)]

mod support;
mod trouble;

use std::time::{Duration, Instant};

use countersign_client::v1;
use countersign_client::v1::audit_service_client::AuditServiceClient;
use countersign_faulty_transcript::{Function, calls};
use rustix::process::{Pid, Signal, kill_process};
use support::done;
use support::grpc::connected;
use support::http::{head, plain};
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use trouble::{PATIENCE, Scene, workers};

/// Whether the daemon can sign now.
const SIGNING: &str = "countersign.v1.SigningService";
/// Reading asks no token.
const AUDIT: &str = "countersign.v1.AuditService";
/// Whether the process answers.
const PROCESS: &str = "";
/// Far less than the deadline of any call of a worker.
const AT_ONCE: Duration = Duration::from_secs(1);

async fn health(channel: &Channel, service: &str) -> ServingStatus {
    let request = HealthCheckRequest { service: service.to_owned() };
    HealthClient::new(channel.clone()).check(request).await.unwrap().into_inner().status()
}

/// Why nothing is signed in each trail, as an operator and an auditor are told. All are open.
async fn stopped(scene: &Scene, operator: &Channel) -> Vec<String> {
    let status = AuditServiceClient::new(operator.clone()).get_status(v1::GetStatusRequest {}).await.unwrap();
    let trails = status.into_inner().trails;
    let mut auditor = AuditServiceClient::new(connected(&scene.stage, "auditor-1").await);
    let listed = auditor.list_trails(v1::ListTrailsRequest {}).await.unwrap().into_inner().trails;
    assert_eq!(listed, trails);
    assert!(trails.iter().all(|trail| trail.state == "open"), "{trails:?}");
    trails.into_iter().map(|trail| trail.stopped).collect()
}

/// Reads the next states of a watch until it is as wanted.
async fn watched(states: &mut tonic::Streaming<tonic_health::pb::HealthCheckResponse>, wanted: ServingStatus) {
    let until = async { while states.message().await.unwrap().unwrap().status() != wanted {} };
    tokio::time::timeout(PATIENCE, until).await.unwrap_or_else(|_| panic!("never {wanted:?}"));
}

fn signal(pids: &[i32], signal: Signal) {
    for pid in pids {
        kill_process(Pid::from_raw(*pid).unwrap(), signal).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_follows_the_tokens() {
    let scene = Scene::set();
    let daemon = scene.stage.start().unwrap();
    let channel = connected(&scene.stage, "operator-1").await;
    let request = HealthCheckRequest { service: SIGNING.to_owned() };
    let mut states = HealthClient::new(channel.clone()).watch(request).await.unwrap().into_inner();
    watched(&mut states, ServingStatus::Serving).await;
    assert_eq!(stopped(&scene, &channel).await, ["", "", ""]);

    // Both tokens, by their folder: SoftHSM sees it at the next start of a worker.
    let (tokens, away) = (scene.stage.folder.join("hsm/tokens"), scene.stage.folder.join("hsm/tokens.away"));
    std::fs::rename(&tokens, &away).unwrap();
    std::fs::create_dir(&tokens).unwrap();
    signal(&workers(&daemon), Signal::KILL);
    watched(&mut states, ServingStatus::NotServing).await;
    assert_eq!(health(&channel, SIGNING).await, ServingStatus::NotServing);
    assert_eq!(health(&channel, AUDIT).await, ServingStatus::Serving);
    assert_eq!(health(&channel, PROCESS).await, ServingStatus::Serving);
    assert!(daemon.readyz().unwrap().starts_with("HTTP/1.1 503"));
    // Not one trail takes anything, and that is what people are told.
    assert_eq!(stopped(&scene, &channel).await, ["HSM_UNAVAILABLE"; 3]);
    let said = done(&mut scene.stage.countersign("operator-1", &["status"]));
    assert_eq!(said.matches("stopped: HSM_UNAVAILABLE").count(), 3, "{said}");

    std::fs::remove_dir(&tokens).unwrap();
    std::fs::rename(&away, &tokens).unwrap();
    watched(&mut states, ServingStatus::Serving).await;
    assert!(daemon.readyz().unwrap().starts_with("HTTP/1.1 200"));
    assert_eq!(stopped(&scene, &channel).await, ["", "", ""]);
    drop(states);
    daemon.stop().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn liveness_does_not_touch_the_hsm() {
    let scene = Scene::set();
    let daemon = scene.stage.start().unwrap();
    let channel = connected(&scene.stage, "operator-1").await;
    let count = || -> Vec<u64> { Function::ALL.iter().map(|one| calls(&scene.shared, *one).unwrap()).collect() };
    let live = async |times: usize| {
        for _ in 0..times {
            assert_eq!(plain(scene.stage.operations_port, head("GET", "/healthz").as_bytes()).status, 200);
            for service in [PROCESS, AUDIT] {
                assert_eq!(health(&channel, service).await, ServingStatus::Serving);
            }
        }
    };
    let before = count();
    live(50).await;
    assert_eq!(count(), before, "calls of the module, by function");

    // Nor does it wait for one: no worker can answer anything now.
    let stopped = workers(&daemon);
    signal(&stopped, Signal::STOP);
    let begun = Instant::now();
    live(1).await;
    assert!(begun.elapsed() < AT_ONCE, "answered after {:?}", begun.elapsed());
    signal(&stopped, Signal::CONT);
    daemon.stop().unwrap();
}
