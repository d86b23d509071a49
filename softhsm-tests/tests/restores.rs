//! A store restored from an older copy or from a backup, and clients that say what they hold.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops at what it did not expect")]

mod trouble;

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use countersign_client::{Client, ClientError, Proof, Receipt, v1};
use countersign_faulty_transcript::Transcript;
use countersign_stage::binaries::run;
use countersign_trail::hash::Hash;
use tokio::runtime::Runtime;
use trouble::{GATEWAY, Scene, assert_positions, event, position, wait_for};
use v1::signing_service_client::SigningServiceClient;

/// How long a start may take to be refused.
const REFUSED_WITHIN: Duration = Duration::from_secs(60);
const OTHER_GATEWAY: &str = "gateway-2";
/// Store, second heads, and what the workers keep: the states of the PINs, the mark.
const PLACES: [&str; 3] = ["data", "heads", "hsm/pin-state"];

/// Replaces the folder `to` by a copy of `from`.
fn copy(from: &Path, to: &Path) {
    if to.exists() {
        fs::remove_dir_all(to).unwrap();
    }
    run(Command::new("cp").arg("-a").arg(from).arg(to)).unwrap();
}

/// Inputs of these trails so far: their records and their checkpoints.
fn signed_in(scene: &Scene, trails: &[String]) -> usize {
    let transcript: Transcript = scene.transcript();
    let of_trails = |input: &[u8]| trails.iter().any(|trail| position(input).contains(trail.as_str()));
    transcript.asked().filter(|asked| of_trails(&asked.input)).count()
}

async fn sign_some(client: &Client, trail: &str, name: &str) -> Vec<Receipt> {
    let events = (0..5).map(|n| event(&format!("{name}-{n}"))).collect();
    client.sign_batch(trail, events).await.unwrap().into_iter().map(|answer| answer.unwrap()).collect()
}

/// The start is refused with `said`, because the store was moved back, and has nothing signed but
/// probes.
fn assert_refused(scene: &Scene, said: &str) {
    let before = scene.transcript().asked().len();
    let mut refused = scene.stage.spawn().unwrap();
    assert_eq!(refused.wait_exit(REFUSED_WITHIN).unwrap().code(), Some(1));
    let log = refused.log_end();
    assert!(log.contains("the store was moved back") && log.contains(said), "{log}");
    let probes = |asked: &&countersign_faulty_transcript::Asked| !position(&asked.input).starts_with("probe ");
    assert_eq!(scene.transcript().asked().skip(before).filter(probes).count(), 0, "a refused start signs nothing");
}

/// The positions that met two inputs.
fn conflicts(transcript: &Transcript) -> BTreeSet<String> {
    let mut inputs: HashMap<String, &[u8]> = HashMap::new();
    let met = transcript.asked().map(|asked| (position(&asked.input), &asked.input));
    met.filter(|(position, input)| inputs.entry(position.clone()).or_insert(input) != input)
        .map(|(position, _)| position)
        .collect()
}

#[test]
fn an_older_copy_is_refused_at_the_start_and_by_the_client_that_knows_better() {
    let scene = Scene::set();
    let runtime = Runtime::new().unwrap();
    let at = |name: &str| scene.stage.folder.join(name);
    let older = |name: &str| at(&format!("{name}.older"));
    let trails = scene.trails();

    let daemon = scene.stage.start().unwrap();
    let client = runtime.block_on(scene.patient(GATEWAY));
    for trail in &trails {
        runtime.block_on(sign_some(&client, trail, "before"));
    }
    daemon.stop().unwrap();
    for place in PLACES {
        copy(&at(place), &older(place));
    }

    let daemon = scene.stage.start().unwrap();
    for trail in &trails {
        runtime.block_on(sign_some(&client, trail, "after"));
    }
    daemon.stop().unwrap();

    // The store alone is moved back: the second head is in front.
    copy(&older("data"), &at("data"));
    assert_refused(&scene, "the second head is at size");
    // The second heads as well: the admin trail, which no client holds, ends before the mark.
    copy(&older("heads"), &at("heads"));
    assert_refused(&scene, "the HSM worker's mark is at size");
    // An operator cannot talk that away.
    let confirmed = scene.stage.countersignd(&["mark-confirm"]).output().unwrap();
    assert_eq!(confirmed.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&confirmed.stderr).contains("the store was moved back"));
    assert_positions(&scene.transcript());

    // All three places, as a snapshot of the whole host would: nothing on the host tells, and the admin
    // trail goes on at a place that was signed before. The client of a trail knows better.
    copy(&older("hsm/pin-state"), &at("hsm/pin-state"));
    let before = signed_in(&scene, &trails);
    let daemon = scene.stage.start().unwrap();
    for trail in &trails {
        let error = runtime.block_on(client.sign(trail, event("restored"))).expect_err("the trail lost its end");
        assert_eq!(error.reason(), "HEAD_MISMATCH", "{error}");
        assert_latched(&runtime, &scene, trail);
    }
    daemon.stop().unwrap();

    // Whoever can edit the store does not open it: the second head says so too.
    let store = rusqlite::Connection::open(at("data/store.db")).unwrap();
    assert_eq!(store.execute("UPDATE trails SET latched = NULL WHERE latched IS NOT NULL", []).unwrap(), trails.len());
    drop(store);
    assert_latched_after_a_restart(&runtime, &scene, &trails);
    assert_eq!(signed_in(&scene, &trails), before, "nothing is signed in a trail that lost its end");
    let conflicts = conflicts(&scene.transcript());
    assert!(!conflicts.is_empty(), "the threat model names this case");
    let admin = |position: &String| position.starts_with("checkpoint demo.example/admin ");
    assert!(conflicts.iter().all(admin), "only the admin trail met two inputs: {conflicts:?}");
}

#[test]
fn a_backup_that_is_restored_and_not_started_since() {
    let scene = Scene::set();
    let runtime = Runtime::new().unwrap();
    let trails = scene.trails();
    let backup = scene.stage.folder.join("backup");
    let to = backup.display().to_string();

    let daemon = scene.stage.start().unwrap();
    let client = runtime.block_on(scene.patient(GATEWAY));
    for trail in &trails {
        runtime.block_on(sign_some(&client, trail, "before"));
        // In record mode too the backup ends at a checkpoint: a start has none to make up for.
        run(&mut scene.stage.countersign("auditor-1", &["head", trail])).unwrap();
    }
    run(&mut scene.stage.countersignd(&["backup", "--to", &to])).unwrap();
    run(&mut scene.stage.countersignd(&["fsck", "--backup", &to])).unwrap();
    for trail in &trails {
        runtime.block_on(sign_some(&client, trail, "after"));
    }
    // A statement whose number the backup knows nothing of.
    let exported = |name: &str| {
        let out = scene.stage.folder.join(name).display().to_string();
        run(&mut scene.stage.countersign("auditor-1", &["export", "--out", &out])).unwrap();
    };
    exported("lost.zip");
    daemon.kill().unwrap();

    restore(&scene, &backup);
    let before = signed_in(&scene, &trails);
    let daemon = scene.stage.start().unwrap();
    for trail in &trails {
        let error = runtime.block_on(client.sign(trail, event("restored"))).expect_err("the trail lost its end");
        assert_eq!(error.reason(), "HEAD_MISMATCH", "{error}");
        assert_latched(&runtime, &scene, trail);
    }
    exported("evidence.zip");
    daemon.stop().unwrap();
    // Nor does a restart sign there, or loosen a latch.
    assert_latched_after_a_restart(&runtime, &scene, &trails);
    assert_eq!(signed_in(&scene, &trails), before, "nothing is signed in a trail that lost its end");
    // In the admin trail neither: its mark stayed where it was, and the restored store meets it. The second
    // export's statement has a number above the mark of the first.
    assert_positions(&scene.transcript());
}

/// The restore of docs/src/operations.md, on a host that lost its second heads as well.
fn restore(scene: &Scene, backup: &Path) {
    let at = |name: &str| scene.stage.folder.join(name);
    // 1: the old folder is kept.
    fs::rename(at("data"), at("data.old")).unwrap();
    // 2
    DirBuilder::new().mode(0o700).create(at("data")).unwrap();
    fs::copy(backup.join("store.db"), at("data/store.db")).unwrap();
    fs::set_permissions(at("data/store.db"), Permissions::from_mode(0o600)).unwrap();
    // 3
    fs::rename(at("heads"), at("heads.old")).unwrap();
    copy(&backup.join("heads"), &at("heads"));
    // 4; the start, 5, is the test's.
    run(&mut scene.stage.countersignd(&["fsck"])).unwrap();
}

/// With latched trails the daemon serves, and says that it is not ready.
fn assert_latched_after_a_restart(runtime: &Runtime, scene: &Scene, trails: &[String]) {
    let daemon = scene.stage.spawn().unwrap();
    wait_for("the latched trail's reason", || daemon.readyz().is_ok_and(|answer| answer.contains("TRAIL_LATCHED")));
    for trail in trails {
        assert_latched(runtime, scene, trail);
    }
    daemon.stop().unwrap();
}

/// Nobody signs there any more, whatever they hold.
fn assert_latched(runtime: &Runtime, scene: &Scene, trail: &str) {
    let error = runtime.block_on(async {
        let other = scene.patient(OTHER_GATEWAY).await;
        other.sign(trail, event("to-a-latched-trail")).await.expect_err("the trail is latched")
    });
    assert!(matches!(error, ClientError::Rejected { .. }) && error.reason() == "TRAIL_LATCHED", "{trail}: {error}");
}

#[test]
fn a_made_up_head_fails_its_own_call_alone() {
    let scene = Scene::set();
    let runtime = Runtime::new().unwrap();
    let daemon = scene.stage.start().unwrap();
    let client = runtime.block_on(scene.patient(GATEWAY));
    for trail in scene.trails() {
        let receipts = runtime.block_on(sign_some(&client, &trail, "held"));
        let newest = receipts.last().unwrap();
        for (name, head) in made_up(newest) {
            let name = name.replace(' ', "-");
            let request =
                v1::SignRequest { trail: trail.clone(), event: Some(event(&format!("with-{name}"))), held: Some(head) };
            let mut raw = SigningServiceClient::new(client.channel());
            let status = runtime.block_on(raw.sign(request)).expect_err("a made-up head");
            let reason = tonic_reason(&status);
            assert_eq!(reason.as_deref(), Some("INVALID_HEAD"), "{trail}, {name}: {status}");
            // The trail goes on, for the same client and others, without a number spent.
            let next = runtime.block_on(client.sign(&trail, event(&format!("after-{name}")))).unwrap();
            assert_eq!(next.seq, client.newest(&trail).unwrap().seq, "{trail}, {name}");
        }
        let (count, newest) = (made_up(newest).len() as u64, newest.seq);
        assert_eq!(client.newest(&trail).unwrap().seq, newest + count, "{trail}: a refused call spends no number");
    }
    daemon.stop().unwrap();
}

/// Heads that no daemon signed: each differs from the true one in one way.
fn made_up(true_one: &Receipt) -> Vec<(&'static str, v1::HeldHead)> {
    let bytes = |hash: &Hash| hash.as_bytes().to_vec().into();
    let held = |seq: u64, leaf: &Hash| {
        let mut head = v1::HeldHead { seq, leaf_hash: bytes(leaf), ..v1::HeldHead::default() };
        match &true_one.proof {
            Proof::Signature(signature) => {
                head.record = true_one.record.clone();
                head.signature = signature.clone();
            }
            Proof::Inclusion { checkpoint, path } => {
                head.checkpoint = checkpoint.to_bytes().into();
                head.path = path.iter().map(bytes).collect();
            }
        }
        head
    };
    let (seq, leaf, other) = (true_one.seq, &true_one.leaf_hash, Hash::of(b"made up"));
    vec![
        ("another leaf", held(seq, &other)),
        ("a later place", held(seq + 1_000, leaf)),
        ("no proof", v1::HeldHead { seq: seq + 1, leaf_hash: bytes(&other), ..v1::HeldHead::default() }),
        ("a short hash", v1::HeldHead { leaf_hash: vec![7; 31].into(), ..held(seq, leaf) }),
    ]
}

/// The reason of the daemon's ErrorInfo.
fn tonic_reason(status: &tonic::Status) -> Option<String> {
    let details = String::from_utf8_lossy(status.details()).into_owned();
    let known = ["INVALID_HEAD", "HEAD_MISMATCH", "TRAIL_LATCHED", "INVALID_EVENT", "INTERNAL"];
    known.into_iter().find(|reason| details.contains(reason)).map(str::to_owned)
}
