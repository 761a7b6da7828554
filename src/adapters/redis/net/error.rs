//! How certain a failure is: not done, refused by the server, or unknown.

use std::io;

use redis::{ErrorKind as Kind, RedisError, ServerErrorKind};

use super::denial::missing_right;
use super::redirect::{Undone, undone};
use crate::domain::{Error, ErrorKind};

/// Whether the server refused the client's certificate, or its absence, by an alert of TLS.
pub(super) fn is_certificate_refused(cause: &RedisError) -> bool {
    let text = cause.to_string();
    let of_certificates = ["Certificate", "UnknownCA", "AccessDenied"];
    text.contains(ALERT) && of_certificates.iter().any(|known| text.contains(known))
}

/// Whether the server ended the connection by an alert of TLS.
pub(super) fn is_alert(cause: &RedisError) -> bool {
    cause.to_string().contains(ALERT)
}

/// How rustls calls an alert.
const ALERT: &str = "fatal alert";
/// How rustls begins to say that it does not accept the server's certificate.
const CERTIFICATE: &str = "invalid peer certificate";

/// The operation whose subject is the server itself.
const CONNECT: &str = "connect";

/// Decides by an error of the redis crate what became of a command that was sent.
fn kind_of(error: &RedisError) -> ErrorKind {
    match error.kind() {
        _ if undone(error) == Some(Undone::NotReady) => ErrorKind::Unavailable,
        // The server sends this in place of the first reply, and closes the connection.
        Kind::Server(ServerErrorKind::ResponseError)
            if error.detail() == Some("max number of clients reached") =>
        {
            ErrorKind::Unavailable
        }
        Kind::Server(_) | Kind::AuthenticationFailed => ErrorKind::Refused,
        Kind::Extension => match code(error).as_deref() {
            // The server runs but cannot serve: a long script, a failing disk.
            Some("BUSY" | "MISCONF") => ErrorKind::Unavailable,
            // The runtime creates a lost group again, but only when the kind says so.
            Some("NOGROUP") => ErrorKind::NotFound,
            _ => ErrorKind::Refused,
        },
        Kind::InvalidClientConfig | Kind::Client => ErrorKind::Invalid,
        Kind::UnexpectedReturnType => ErrorKind::Decode,
        // An unparsable reply counts as cut off: the connection mostly broke inside it.
        _ => ErrorKind::OutcomeUnknown,
    }
}

/// The kind of an error where the command certainly was not done.
fn kind_undone(error: &RedisError) -> ErrorKind {
    match kind_of(error) {
        ErrorKind::OutcomeUnknown => ErrorKind::Unavailable,
        other => other,
    }
}

/// The server's code for an error. `RedisError::code` lacks it for a pipeline, where the code of the
/// first failed command counts.
pub(in crate::adapters::redis) fn code(error: &RedisError) -> Option<String> {
    let errors = error.clone().into_server_errors()?;
    Some(errors.first()?.1.code().to_owned())
}

/// The error that a server's answer of this text is.
pub(super) fn server_error(text: &str) -> RedisError {
    match redis::parse_redis_value(format!("-{text}\r\n").as_bytes()) {
        Ok(redis::Value::ServerError(error)) => error.into(),
        Ok(_) => RedisError::from((Kind::Parse, "not an error")),
        Err(error) => error,
    }
}

/// Whether an error shows that a server is there: it refused, or TLS with it failed.
pub(in crate::adapters::redis) fn is_answer(error: &Error) -> bool {
    let source = std::error::Error::source(error);
    let cause = source.and_then(|cause| cause.downcast_ref::<RedisError>());
    let of_server =
        |cause| code(cause).is_some() || is_alert(cause) || cause.to_string().contains(CERTIFICATE);
    let is_open = matches!(
        error.kind(),
        ErrorKind::Unavailable | ErrorKind::OutcomeUnknown
    );
    !is_open || cause.is_some_and(of_server)
}

/// Whether a connection can be used again after an error.
pub(super) fn is_sound(error: &RedisError) -> bool {
    !error.is_io_error()
        && !error.is_unrecoverable_error()
        && error.kind() != Kind::Parse
        // After a failover the old primary keeps its connections and serves nothing on them.
        && !matches!(
            error.kind(),
            Kind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown)
        )
}

/// The error of a command that was sent.
pub(in crate::adapters::redis) fn sent(operation: &'static str, cause: RedisError) -> Error {
    let kind = kind_of(&cause);
    answered(operation, kind, cause)
}

/// The error of a preparation that was sent, such as loading a script: the operation itself
/// certainly was not done.
pub(super) fn not_done(operation: &'static str, cause: RedisError) -> Error {
    let kind = kind_undone(&cause);
    answered(operation, kind, cause)
}

/// The error of a command that other nodes kept redirecting: it certainly was not done.
pub(super) fn redirected(operation: &'static str, cause: RedisError) -> Error {
    let message = "the cluster redirected the command until its time was over";
    Error::new(ErrorKind::Unavailable, operation, message).because(cause)
}

/// Replaces a redirect that was followed until the deadline: the cluster was not ready.
pub(super) fn in_vain(cause: RedisError) -> RedisError {
    if is_redirect(&cause) {
        return server_error(&format!("TRYAGAIN redirected in vain: {cause}"));
    }
    cause
}

/// Whether another node answers for the key of a command.
pub(super) fn is_redirect(cause: &RedisError) -> bool {
    matches!(code(cause).as_deref(), Some("MOVED" | "ASK"))
}

fn answered(operation: &'static str, kind: ErrorKind, cause: RedisError) -> Error {
    if let Some(right) = missing_right(&cause) {
        let message = format!("the server refused: its user lacks the right {right}; see ACL LOG");
        return Error::new(ErrorKind::Refused, operation, message).because(cause);
    }
    if kind == ErrorKind::Refused && is_redirect(&cause) {
        let message = "the server is a node of a Redis Cluster, and another node holds the key; a \
                       cluster's URL begins with redis+cluster://";
        return Error::new(kind, operation, message).because(cause);
    }
    let message = match kind {
        ErrorKind::Unavailable => "the server is not ready",
        ErrorKind::Refused => "the server refused",
        ErrorKind::NotFound => "the group is gone",
        ErrorKind::OutcomeUnknown => "the connection failed after sending; it may have been done",
        _ => "the reply could not be used",
    };
    Error::new(kind, operation, message).because(cause)
}

/// A step towards a usable connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Step {
    /// Open the socket, and TLS over it.
    Reach,
    /// Begin TLS with a server that did not answer by TLS.
    #[cfg(feature = "tls")]
    Encrypt,
    /// Send user and password.
    LogIn,
    /// Select the database of this number.
    Database(i64),
    /// Tell the server the connection's name.
    Introduce,
}

/// The step that failed, and its cause. Nothing of any operation was sent.
#[derive(Clone, Debug)]
pub(super) struct NoConnection {
    pub(super) step: Step,
    pub(super) cause: RedisError,
}

impl NoConnection {
    /// Whether a later attempt, or another node, may do better.
    pub(super) fn is_passing(&self) -> bool {
        kind_undone(&self.cause) == ErrorKind::Unavailable
    }
}

impl From<RedisError> for NoConnection {
    fn from(cause: RedisError) -> Self {
        let step = Step::Reach;
        Self { step, cause }
    }
}

impl From<io::Error> for NoConnection {
    fn from(cause: io::Error) -> Self {
        RedisError::from(cause).into()
    }
}

/// The error of an operation that found no usable connection to the server at this address.
pub(super) fn no_connection(
    operation: &'static str,
    address: &str,
    failure: NoConnection,
) -> Error {
    let NoConnection { step, cause } = failure;
    // An operation on a topic or key has that as its subject, so its message names the server.
    let (server, subject) = if operation == CONNECT {
        ("the server".to_owned(), Some(address))
    } else {
        (format!("the server at {address}"), None)
    };
    let (kind, message) = match (kind_undone(&cause), step) {
        (kind, _) if missing_right(&cause).is_some() => {
            let right = missing_right(&cause).unwrap_or_default();
            let refused = format!("{server} refused the connection");
            let lacks = format!("{refused}: its user lacks the right {right}; see ACL LOG");
            (kind, lacks)
        }
        (ErrorKind::Refused, _) if code(&cause).as_deref() == Some("NOAUTH") => (
            ErrorKind::Refused,
            format!("{server} requires a password, and the URL has none"),
        ),
        (ErrorKind::Refused, Step::LogIn) => {
            (ErrorKind::Refused, format!("{server} refused the log-in"))
        }
        (ErrorKind::Refused, Step::Database(number)) => {
            let refused = format!("{server} refused database {number}");
            (ErrorKind::Refused, refused)
        }
        (ErrorKind::Refused, Step::Introduce) => {
            let refused = format!("{server} refused the connection");
            (ErrorKind::Refused, refused)
        }
        (kind, _) if is_certificate_refused(&cause) => (
            kind,
            format!("{server} refused the client's TLS certificate"),
        ),
        #[cfg(feature = "tls")]
        (kind, Step::Encrypt) => {
            let plain = "did not answer by TLS; a port without TLS needs a redis:// URL";
            (kind, format!("{server} {plain}"))
        }
        (kind, _) => (kind, format!("no connection to {server}")),
    };
    let error = Error::new(kind, operation, message).because(cause);
    match subject {
        Some(address) => error.on(address),
        None => error,
    }
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
        let error = no_connection("publish", "h:1", RedisError::from(full).into());
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    }

    #[test]
    fn a_reply_that_was_cut_off_leaves_the_outcome_open() {
        let cut_off = || RedisError::from((Kind::Parse, "unexpected end of input"));
        assert_eq!(sent("cas", cut_off()).kind(), ErrorKind::OutcomeUnknown);
        assert_eq!(
            no_connection("cas", "h:1", cut_off().into()).kind(),
            ErrorKind::Unavailable
        );
    }

    /// The error that a server's reply is.
    fn reply(text: &str) -> RedisError {
        let reply = redis::parse_redis_value(format!("-{text}\r\n").as_bytes());
        match reply {
            Ok(redis::Value::ServerError(error)) => error.into(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_reply_decides_what_became_of_the_command() {
        for (text, kind) in [
            (
                "LOADING Redis is loading the dataset",
                ErrorKind::Unavailable,
            ),
            (
                "READONLY You can't write against a read only replica.",
                ErrorKind::Unavailable,
            ),
            (
                "MASTERDOWN Link with MASTER is down",
                ErrorKind::Unavailable,
            ),
            ("CLUSTERDOWN The cluster is down", ErrorKind::Unavailable),
            (
                "NOREPLICAS Not enough good replicas to write.",
                ErrorKind::Unavailable,
            ),
            (
                "BUSY Redis is busy running a script",
                ErrorKind::Unavailable,
            ),
            (
                "MISCONF Errors writing to the AOF file",
                ErrorKind::Unavailable,
            ),
            ("NOGROUP No such key", ErrorKind::NotFound),
            ("OOM command not allowed", ErrorKind::Refused),
            ("WRONGTYPE Operation against a key", ErrorKind::Refused),
            ("ERR syntax error", ErrorKind::Refused),
        ] {
            assert_eq!(sent("publish", reply(text)).kind(), kind, "{text}");
        }
        let broken = || RedisError::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(sent("set", broken()).kind(), ErrorKind::OutcomeUnknown);
        assert_eq!(not_done("set", broken()).kind(), ErrorKind::Unavailable);
    }

    #[test]
    fn silence_is_told_from_an_answer() {
        for text in [
            "NOPERM User ann has no permissions to run the 'info' command",
            "WRONGPASS invalid username-password pair",
            "BUSY Redis is busy running a script",
            "LOADING Redis is loading the dataset",
        ] {
            assert!(is_answer(&sent("ask", reply(text))), "{text}");
            let unconnected = no_connection("ask", "h:1", reply(text).into());
            assert!(is_answer(&unconnected), "{text}");
        }
        let io = |text: &str| RedisError::from(io::Error::other(text.to_owned()));
        for text in [
            "received fatal alert: CertificateRequired",
            "invalid peer certificate: UnknownIssuer",
        ] {
            assert!(
                is_answer(&no_connection("ask", "h:1", io(text).into())),
                "{text}"
            );
        }
        for kind in [
            io::ErrorKind::ConnectionRefused,
            io::ErrorKind::TimedOut,
            io::ErrorKind::UnexpectedEof,
        ] {
            let cause = || RedisError::from(io::Error::from(kind));
            assert!(
                !is_answer(&no_connection("ask", "h:1", cause().into())),
                "{kind}"
            );
            assert!(!is_answer(&sent("ask", cause())), "{kind}");
        }
    }

    #[test]
    fn a_connection_stays_in_use_unless_it_or_its_server_failed() {
        assert!(is_sound(&reply("WRONGTYPE Operation against a key")));
        assert!(is_sound(&reply("NOGROUP No such key")));
        assert!(!is_sound(&reply("READONLY You can't write")));
        assert!(!is_sound(&reply("MASTERDOWN Link with MASTER is down")));
        assert!(!is_sound(&io::Error::from(io::ErrorKind::TimedOut).into()));
        assert!(!is_sound(&RedisError::from((Kind::Parse, "cut off"))));
    }

    #[test]
    fn a_missing_connection_names_the_failed_step_and_the_address() {
        let told = |operation, step, cause| {
            let failure = NoConnection { step, cause };
            no_connection(operation, "h:1", failure).to_string()
        };
        let refused = || RedisError::from(io::Error::from(io::ErrorKind::ConnectionRefused));
        let denied = || {
            let text = "NOPERM User ann has no permissions to run the 'client|setname' command";
            reply(text)
        };
        let wrong = || reply("WRONGPASS invalid username-password pair");
        let index = || reply("ERR DB index is out of range");
        for (told, expected) in [
            (
                told("connect", Step::Reach, refused()),
                "connect \"h:1\": no connection to the server",
            ),
            (
                told("publish", Step::Reach, refused()),
                "publish: no connection to the server at h:1",
            ),
            (
                told("connect", Step::LogIn, wrong()),
                "connect \"h:1\": the server refused the log-in",
            ),
            (
                told("connect", Step::LogIn, refused()),
                "connect \"h:1\": no connection to the server",
            ),
            (
                told("publish", Step::Database(99), index()),
                "publish: the server at h:1 refused database 99",
            ),
            (
                told(
                    "connect",
                    Step::Introduce,
                    reply("NOAUTH Authentication required."),
                ),
                "connect \"h:1\": the server requires a password, and the URL has none",
            ),
            (
                told("connect", Step::Introduce, denied()),
                "connect \"h:1\": the server refused the connection: its user lacks the right to \
                 run CLIENT SETNAME; see ACL LOG",
            ),
        ] {
            assert_eq!(told, expected);
        }
    }
}
