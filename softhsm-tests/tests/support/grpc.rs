//! Calls by gRPC as they are, beside the client library: members' connections, one event, refusals.

use countersign_client::v1::signing_service_client::SigningServiceClient;
use countersign_client::{Connection, channel, v1};
use countersign_stage::Stage;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// A member's connection.
pub(crate) async fn connected(stage: &Stage, member: &str) -> Channel {
    let file = |name: &str| std::fs::read(stage.folder.join("tls").join(name)).unwrap();
    let endpoint = format!("https://localhost:{}", stage.port);
    let (certificate, key) = (file(&format!("{member}.pem")), file(&format!("{member}.key")));
    channel(&Connection::new(&endpoint, file("ca.pem"), certificate, key)).await.unwrap()
}

/// A small event that is right.
pub(crate) fn event(id: &str) -> v1::Event {
    v1::Event {
        event_id: id.to_owned(),
        r#type: "llm.completion".to_owned(),
        category: v1::Category::Normal.into(),
        decision: v1::Decision::Allow.into(),
        result: v1::Result::Delivered.into(),
        facts: Some(v1::Facts { occurred_at: "2026-01-31T08:00:00.000000Z".to_owned(), ..v1::Facts::default() }),
        ..v1::Event::default()
    }
}

/// Signs one event.
pub(crate) async fn sign_event(channel: &Channel, trail: &str, event: v1::Event) -> Result<v1::Signed, Status> {
    let request = v1::SignRequest { trail: trail.to_owned(), event: Some(event), held: None };
    let answer = SigningServiceClient::new(channel.clone()).sign(request).await?;
    Ok(answer.into_inner().signed.unwrap())
}

/// The stable reason of a refusal, which must have a message too.
pub(crate) fn reason(status: &Status) -> String {
    assert!(!status.message().is_empty(), "{status:?}");
    let info = status.get_details_error_info().unwrap_or_else(|| panic!("no ErrorInfo in {status:?}"));
    assert_eq!(info.domain, "countersign");
    info.reason
}

/// Asserts that an answer is a refusal with this code and reason.
#[track_caller]
pub(crate) fn expect<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, wanted: &str) {
    let status = answer.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (code, wanted), "{status:?}");
}
