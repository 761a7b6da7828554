//! What an error of the redis crate means for the caller.

use redis::{ErrorKind as Kind, RedisError, ServerErrorKind};

use super::denial::missing_right;
use crate::domain::{Error, ErrorKind};

/// Tells apart what was certainly not done, what the server refused, and what is unknown.
pub(in crate::adapters::redis) fn kind_of(error: &RedisError) -> ErrorKind {
    match error.kind() {
        Kind::Server(
            ServerErrorKind::BusyLoading
            | ServerErrorKind::ReadOnly
            | ServerErrorKind::TryAgain
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::MasterDown,
        ) => ErrorKind::Unavailable,
        // It says so in place of the reply to whatever was sent first, and hangs up.
        Kind::Server(ServerErrorKind::ResponseError)
            if error.detail() == Some("max number of clients reached") =>
        {
            ErrorKind::Unavailable
        }
        Kind::Server(_) | Kind::AuthenticationFailed => ErrorKind::Refused,
        Kind::Extension => match code(error).as_deref() {
            // The server is there but cannot serve: a long script, a failing disk.
            Some("BUSY" | "MISCONF") => ErrorKind::Unavailable,
            // The runtime creates a group that is gone anew, but only if it is told so.
            Some("NOGROUP") => ErrorKind::NotFound,
            _ => ErrorKind::Refused,
        },
        Kind::InvalidClientConfig | Kind::Client => ErrorKind::Invalid,
        Kind::UnexpectedReturnType => ErrorKind::Decode,
        // Also a reply that cannot be parsed: mostly it was cut off half-way.
        _ => ErrorKind::OutcomeUnknown,
    }
}

/// The server's own word for an error. That of a pipeline is its first command's, which
/// `RedisError::code` does not give.
fn code(error: &RedisError) -> Option<String> {
    let errors = error.clone().into_server_errors()?;
    Some(errors.first()?.1.code().to_owned())
}

/// An error of a command that was sent.
pub(in crate::adapters::redis) fn sent(operation: &'static str, error: RedisError) -> Error {
    let kind = kind_of(&error);
    if let Some(right) = missing_right(&error) {
        let message = format!("the server refused: its user lacks the right {right}; see ACL LOG");
        return Error::new(ErrorKind::Refused, operation, message).because(error);
    }
    let message = match kind {
        ErrorKind::Unavailable => "the server is not ready",
        ErrorKind::Refused => "the server refused",
        ErrorKind::NotFound => "the group is gone",
        ErrorKind::OutcomeUnknown => "the connection failed after sending; it may have been done",
        _ => "the reply could not be used",
    };
    Error::new(kind, operation, message).because(error)
}

/// An error from before anything was sent.
pub(in crate::adapters::redis) fn not_sent(operation: &'static str, error: RedisError) -> Error {
    let kind = match kind_of(&error) {
        ErrorKind::OutcomeUnknown => ErrorKind::Unavailable,
        other => other,
    };
    if let Some(right) = missing_right(&error) {
        let message = format!("no connection to the server: its user lacks the right {right}");
        return Error::new(ErrorKind::Refused, operation, message).because(error);
    }
    Error::new(kind, operation, "no connection to the server").because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_with_too_many_clients_is_not_ready() {
        let said = redis::parse_redis_value(b"-ERR max number of clients reached\r\n");
        let Ok(redis::Value::ServerError(full)) = said else {
            panic!("{said:?}");
        };
        let error = not_sent("publish", full.into());
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    }

    #[test]
    fn a_reply_that_was_cut_off_leaves_the_outcome_open() {
        let cut_off = || RedisError::from((Kind::Parse, "unexpected end of input"));
        assert_eq!(sent("cas", cut_off()).kind(), ErrorKind::OutcomeUnknown);
        assert_eq!(not_sent("cas", cut_off()).kind(), ErrorKind::Unavailable);
    }
}
