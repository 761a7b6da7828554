//! How a page fails. The service renders the failure as a page of the console.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::StatusCode;

use crate::domain::{Error, ErrorKind, describe};

/// A status and a sentence for the visitor.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) status: StatusCode,
    pub(super) message: String,
    /// When the visitor may try again.
    pub(super) retry_after: Option<Duration>,
}

impl Failure {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            retry_after: None,
        }
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }
}

/// Whether one operation of the store that failed did nothing for certain.
pub(super) fn is_certain(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Invalid
            | ErrorKind::Encode
            | ErrorKind::TooLarge
            | ErrorKind::Unavailable
            | ErrorKind::Refused
            | ErrorKind::NotFound
            | ErrorKind::BacklogFull
            | ErrorKind::Closed
            | ErrorKind::Unsupported
            | ErrorKind::Conflict
    )
}

/// What a page says where it does not know whether a change was made; `done` such as `published`.
pub(super) fn doubt(done: &str) -> String {
    format!("It may have been {done}; look before you send again.")
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = match error.kind() {
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::Invalid | ErrorKind::Encode => StatusCode::BAD_REQUEST,
            ErrorKind::Refused => StatusCode::CONFLICT,
            _ if error.is_retryable() => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, describe(&error))
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}
