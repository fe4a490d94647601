//! Calls by path, with bytes: what a client of any language can send.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use prost::Message;
use prost_types::FileDescriptorSet;
use syncline::rpc::proto::DESCRIPTOR_SET;
use tokio::time::timeout;
use tokio_stream::StreamExt;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::AsciiMetadataKey;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// Messages as they are.
#[derive(Clone, Copy, Debug, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

/// A connection for calls by path.
#[derive(Clone, Debug)]
pub struct Generic(Channel);

impl Generic {
    pub async fn connect(address: SocketAddr) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        Self(endpoint.connect().await.unwrap())
    }

    /// The first message of the answer to these messages, if there is one.
    pub async fn call(
        &self,
        path: &str,
        metadata: &[(&str, &str)],
        messages: Vec<Vec<u8>>,
    ) -> Result<Option<Bytes>, Status> {
        let mut request = Request::new(tokio_stream::iter(messages));
        for (name, value) in metadata {
            let name = AsciiMetadataKey::from_bytes(name.as_bytes()).unwrap();
            request.metadata_mut().insert(name, value.parse().unwrap());
        }
        let mut grpc = Grpc::new(self.0.clone());
        grpc.ready().await.unwrap();
        let answer = async {
            let mut answer =
                grpc.streaming(request, path.parse().unwrap(), Raw).await?.into_inner();
            answer.next().await.transpose()
        };
        timeout(Duration::from_secs(20), answer).await.expect("an answer within 20 s")
    }
}

/// Every method of the contract: its path, by the descriptor.
pub fn methods() -> Vec<String> {
    let set = FileDescriptorSet::decode(DESCRIPTOR_SET).unwrap();
    let files = set.file.iter().filter(|file| file.package() == "syncline.v1");
    let services = files.flat_map(|file| &file.service);
    let methods = services.flat_map(|service| {
        service.method.iter().map(|it| format!("/syncline.v1.{}/{}", service.name(), it.name()))
    });
    let mut methods: Vec<_> = methods.collect();
    methods.sort();
    methods
}
