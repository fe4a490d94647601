//! Frames that are not changes, encoded.

use tonic::Status;
use tonic_types::StatusExt;

use super::encoded::Encoded;
use super::proto::subscribe_response::Frame as Response;
use super::{proto, to_proto};
use crate::app::Error;

/// A frame, encoded.
pub(super) fn encode(frame: Response) -> Encoded {
    Encoded::from_message(&proto::SubscribeResponse { frame: Some(frame) })
}

/// Why a subscription ends, or never began.
#[derive(Debug)]
pub(super) enum Ended {
    /// It is to be begun again.
    Resync(Error),
    Status(Status),
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        match error {
            Error::Cursor { .. } => Self::Resync(error),
            other => Self::Status(other.into()),
        }
    }
}

impl From<Status> for Ended {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl Ended {
    /// The subscription's last frame.
    pub(super) fn frame(self, subscription_id: String) -> Encoded {
        match self {
            Self::Resync(error) => resync_required(subscription_id, &error),
            Self::Status(status) => closed(subscription_id, &status),
        }
    }

    /// The same for a stream that has no other subscription: a frame only where it says
    /// more than the status with which the stream ends.
    pub(super) fn end(self, subscription_id: String) -> (Option<Encoded>, Status) {
        match self {
            Self::Resync(error) => (Some(resync_required(subscription_id, &error)), error.into()),
            Self::Status(status) => (None, status),
        }
    }
}

fn resync_required(subscription_id: String, error: &Error) -> Encoded {
    let Error::Cursor { fault, epoch, head, floor } = error else {
        return Encoded::default();
    };
    encode(Response::ResyncRequired(proto::ResyncRequiredFrame {
        subscription_id,
        reason: to_proto::resync_reason(*fault).into(),
        epoch: epoch.to_string(),
        head: head.get(),
        floor: floor.get(),
    }))
}

/// A subscription has ended for another reason.
pub(super) fn closed(subscription_id: String, status: &Status) -> Encoded {
    let proto::Failure { code, reason, message, violations, .. } = failure(status);
    encode(Response::Closed(proto::ClosedFrame {
        subscription_id,
        code,
        reason,
        message,
        violations,
    }))
}

/// The caller may no longer see a subscription's space.
pub(super) fn removed_from_view(subscription_id: String) -> Encoded {
    encode(Response::RemovedFromView(proto::RemovedFromViewFrame { subscription_id }))
}

/// The stream ends next.
pub(super) fn going_away(
    reason: proto::GoingAwayReason,
    retry_after: std::time::Duration,
) -> Encoded {
    encode(Response::GoingAway(proto::GoingAwayFrame {
        reason: reason.into(),
        retry_after: Some(to_proto::duration(retry_after)),
    }))
}

/// A status as a part of a frame.
pub(super) fn failure(status: &Status) -> proto::Failure {
    let details = status.get_error_details();
    let violations = details.bad_request().into_iter().flat_map(|it| &it.field_violations);
    let violations = violations.map(|it| proto::FieldViolation {
        field: it.field.clone(),
        description: it.description.clone(),
    });
    let info = details.error_info();
    let retry_after = details.retry_info().and_then(|it| it.retry_delay);
    proto::Failure {
        code: status.code().into(),
        reason: info.map_or_else(String::new, |info| info.reason.clone()),
        message: status.message().to_owned(),
        violations: violations.collect(),
        metadata: info.map(|info| info.metadata.clone()).unwrap_or_default(),
        retry_after: retry_after.map(to_proto::duration),
    }
}
