//! Every RPC that the descriptors know, called without a token: who answers.

use prost::Message;
use prost_types::FileDescriptorSet;
use syncline::rpc::proto::DESCRIPTOR_SET;

use crate::support::generic::Generic;
use crate::support::raw::{Http2, message};
use crate::support::{Database, TestServer, describe};

/// What may be called without a token. Everything else may not.
const OPEN: [&str; 4] = [
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

fn paths() -> Vec<String> {
    let sets = [
        DESCRIPTOR_SET,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ];
    let sets = sets.map(|set| FileDescriptorSet::decode(set).unwrap());
    let mut paths: Vec<_> = sets
        .iter()
        .flat_map(|set| &set.file)
        .flat_map(|file| file.service.iter().map(move |service| (file.package(), service)))
        .flat_map(|(package, service)| {
            let name = service.name();
            service.method.iter().map(move |it| format!("/{package}.{name}/{}", it.name()))
        })
        .collect();
    paths.sort();
    paths.dedup();
    paths
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_only_health_and_reflection_answer() {
    let database = Database::create().await;
    let server = TestServer::start(&database).await;
    let client = Http2::connect(server.address()).await;
    let paths = paths();
    assert!(paths.len() >= OPEN.len() + 7, "the descriptors are read: {paths:?}");
    let mut open = Vec::new();
    for path in &paths {
        let request = http::Request::builder()
            .method("POST")
            .uri(format!("http://localhost{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        let answer = client.head(request, message(&[])).await.unwrap();
        match answer.status {
            Some(status) if status.code() == tonic::Code::Unauthenticated => {
                assert_eq!(describe(&status), "Unauthenticated UNAUTHENTICATED class=missing");
            }
            _ => open.push(path.as_str()),
        }
    }
    assert_eq!(open, OPEN);
    // And only to small messages: nobody is there whose memory they could be counted as.
    let call = Generic::connect(server.address()).await;
    let status = call.call(OPEN[0], &[], vec![vec![0; 20 << 10]]).await.unwrap_err();
    assert_eq!(describe(&status), "ResourceExhausted REQUEST_TOO_LARGE");
    server.stop().await;
}
