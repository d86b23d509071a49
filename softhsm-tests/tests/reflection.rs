//! gRPC server reflection: off unless it is configured, and then of our services.
#![cfg(test)]

mod support;

use countersign_stage::Options;
use support::grpc::{connected, event, sign_event};
use support::sealed;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

async fn ask(channel: &Channel, message_request: MessageRequest) -> Result<MessageResponse, Status> {
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(message_request) };
    let mut client = ServerReflectionClient::new(channel.clone());
    let answers = client.server_reflection_info(tokio_stream::once(request)).await?;
    Ok(answers.into_inner().message().await?.unwrap().message_response.unwrap())
}

async fn services(channel: &Channel) -> Result<Vec<String>, Status> {
    match ask(channel, MessageRequest::ListServices(String::new())).await? {
        MessageResponse::ListServicesResponse(list) => Ok(list.service.into_iter().map(|one| one.name).collect()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_is_off_by_default() {
    let (_folder, stage) = sealed(Options { workers: 1, ..Options::default() });
    let daemon = stage.start().unwrap();
    let channel = connected(&stage, "operator-1").await;
    assert_eq!(services(&channel).await.unwrap_err().code(), Code::Unimplemented);
    daemon.stop().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_names_our_services_where_it_is_on() {
    let listen_lines = "reflection = true".to_owned();
    let (_folder, stage) = sealed(Options { workers: 1, listen_lines, ..Options::default() });
    let daemon = stage.start().unwrap();
    let channel = connected(&stage, "operator-1").await;
    let mut listed = services(&channel).await.unwrap();
    listed.sort();
    let ours = ["countersign.v1.AuditService", "countersign.v1.SigningService"];
    let common = ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"];
    assert_eq!(listed, [ours, common].concat());
    // The descriptor that it hands out is that of the running service.
    let symbol = MessageRequest::FileContainingSymbol("countersign.v1.SigningService".to_owned());
    let MessageResponse::FileDescriptorResponse(files) = ask(&channel, symbol).await.unwrap() else {
        panic!("no descriptor");
    };
    let descriptor = files.file_descriptor_proto.concat();
    for name in ["countersign/v1/signing.proto", "SignStream"] {
        assert!(descriptor.windows(name.len()).any(|window| window == name.as_bytes()), "{name}");
    }
    // To see the interface is not to be allowed to use it.
    let trail = &stage.options.trails[0].origin;
    assert_eq!(sign_event(&channel, trail, event("e")).await.unwrap_err().code(), Code::PermissionDenied);
    daemon.stop().unwrap();
}
