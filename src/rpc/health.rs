//! Asks a server whether it serves: the client's side of the standard health
//! service. Knows nothing of our own server; any that speaks gRPC will do.

use std::time::Duration;

use tonic::transport::{self, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// For the connection and the answer together; less than the patience of a
/// container's health check.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// What a server says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    Serving,
    NotServing,
}

/// Why there is no answer, or none that tells.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no connection")]
    Unreachable(#[from] transport::Error),
    #[error("no answer within {ANSWER_WITHIN:?}")]
    Late,
    #[error("it does not tell its health: {0:?}: {1}")]
    Refused(tonic::Code, String),
}

/// Asks the server as a whole. Cancel safe: nothing is changed anywhere.
pub async fn check(uri: http::Uri) -> Result<Health, Error> {
    tokio::time::timeout(ANSWER_WITHIN, ask(uri)).await.unwrap_or(Err(Error::Late))
}

async fn ask(uri: http::Uri) -> Result<Health, Error> {
    let channel = Endpoint::from(uri).connect().await?;
    let answer = HealthClient::new(channel).check(HealthCheckRequest::default()).await;
    let refused =
        |status: tonic::Status| Error::Refused(status.code(), status.message().to_owned());
    match answer.map_err(refused)?.into_inner().status() {
        ServingStatus::Serving => Ok(Health::Serving),
        ServingStatus::NotServing | ServingStatus::Unknown | ServingStatus::ServiceUnknown => {
            Ok(Health::NotServing)
        }
    }
}
