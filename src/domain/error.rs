//! The crate's one error type.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::iter::successors;
use std::sync::Arc;

use serde::{Serialize, Serializer};

/// How many causes a text names at most. A `source` that leads back to itself ends here.
const MAX_CAUSES: usize = 32;

/// The category of an [`Error`], for code that decides what to do next.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum ErrorKind {
    /// The input breaks the rule that the message names. Nothing was done.
    Invalid,
    /// A value could not be encoded. Nothing was done.
    Encode,
    /// Stored or received bytes could not be decoded.
    Decode,
    /// The input exceeds the configured size or depth. Nothing was done.
    TooLarge,
    /// The server could not be reached or is not ready. Nothing was done.
    Unavailable,
    /// The connection failed after the request was sent: the operation may have been done.
    OutcomeUnknown,
    /// Reserved for requests that get no reply in time. Nothing produces this kind yet.
    Timeout,
    /// The server understood the operation and refused it: wrong key type, missing permission,
    /// memory full.
    Refused,
    /// The topic, group or record does not exist.
    NotFound,
    /// The topic holds as many unsettled messages as its backlog limit allows. Nothing was
    /// published.
    BacklogFull,
    /// This container already has a subscription to the topic under the same group.
    AlreadySubscribed,
    /// The stored layout is older or newer than this version needs, or a migration of it was
    /// interrupted.
    Layout,
    /// A coordinator failed to start.
    Coordinator,
    /// The container was shut down. Nothing was done.
    Closed,
    /// The lease or claim passed to another owner, so the result was not recorded.
    LeaseLost,
    /// Another call began the operation and did not record its end: it may have been done.
    Begun,
    /// The store does not offer the operation.
    Unsupported,
    /// Another program changed the value meanwhile. Nothing was written.
    Conflict,
}

impl ErrorKind {
    /// The name in metrics, logs and JSON, such as `backlog-full`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Encode => "encode",
            Self::Decode => "decode",
            Self::TooLarge => "too-large",
            Self::Unavailable => "unavailable",
            Self::OutcomeUnknown => "outcome-unknown",
            Self::Timeout => "timeout",
            Self::Refused => "refused",
            Self::NotFound => "not-found",
            Self::BacklogFull => "backlog-full",
            Self::AlreadySubscribed => "already-subscribed",
            Self::Layout => "layout",
            Self::Coordinator => "coordinator",
            Self::Closed => "closed",
            Self::LeaseLost => "lease-lost",
            Self::Begun => "begun",
            Self::Unsupported => "unsupported",
            Self::Conflict => "conflict",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for ErrorKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// The error of every operation: its kind, the operation, the topic or key, and the cause.
///
/// One word wide and cheap to clone; clones share the cause.
///
/// `Display` names the operation, the topic or key, and the rule. It leaves the cause to
/// [`source`](StdError::source), so that a reporter that walks the chain prints each part once.
/// `Debug` prints the whole chain over several lines, because `main` shows the error it returns
/// through `Debug`; `{:#?}` shows the fields.
///
/// ```text
/// Error: connect "127.0.0.1:6379": no connection to the server
///
/// Caused by:
///     Connection refused (os error 111)
/// ```
#[derive(Clone)]
pub struct Error {
    inner: Arc<Inner>,
}

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    operation: &'static str,
    subject: Option<String>,
    message: String,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// For adapters and decorators; not covered by semver.
impl Error {
    /// Builds the error of an operation, such as `read`. The message names the rule that was broken.
    ///
    /// The runtime decides by the kind what to do next.
    #[doc(hidden)]
    #[must_use]
    pub fn new(kind: ErrorKind, operation: &'static str, message: impl Into<String>) -> Self {
        let inner = Inner {
            kind,
            operation,
            subject: None,
            message: message.into(),
            source: None,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Names the topic, group or key of the operation.
    #[doc(hidden)]
    #[must_use]
    pub fn on(mut self, subject: impl Into<String>) -> Self {
        Arc::make_mut(&mut self.inner).subject = Some(subject.into());
        self
    }

    /// Adds the cause, which [`source`](StdError::source) returns.
    #[doc(hidden)]
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Arc::make_mut(&mut self.inner).source = Some(Arc::from(source.into()));
        self
    }
}

impl Error {
    /// The category, for code that decides what to do next.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// Whether the same call can succeed later, unchanged: the kind is `Unavailable`,
    /// `OutcomeUnknown`, `BacklogFull` or `Timeout`.
    ///
    /// A retry after an unknown outcome may do the operation twice; see
    /// [`is_outcome_unknown`](Self::is_outcome_unknown).
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(
            self.inner.kind,
            ErrorKind::Unavailable
                | ErrorKind::OutcomeUnknown
                | ErrorKind::BacklogFull
                | ErrorKind::Timeout
        )
    }

    /// Whether the operation may have been done: a retry may do it twice.
    #[must_use]
    pub fn is_outcome_unknown(&self) -> bool {
        self.inner.kind == ErrorKind::OutcomeUnknown
    }

    /// The operation that failed, such as `decode envelope`.
    #[must_use]
    pub fn operation(&self) -> &str {
        self.inner.operation
    }

    /// The rule that was broken, without operation, subject and cause.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.inner.message
    }

    /// The topic, group or key of the operation, if it has one.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        self.inner.subject.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.inner.operation)?;
        if let Some(subject) = &self.inner.subject {
            write!(f, " {subject:?}")?;
        }
        write!(f, ": {}", self.inner.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &self.inner;
        if f.alternate() {
            return f
                .debug_struct("Error")
                .field("kind", &inner.kind)
                .field("operation", &inner.operation)
                .field("subject", &inner.subject)
                .field("message", &inner.message)
                .field("source", &inner.source)
                .finish();
        }
        let mut parts = chain_texts(self);
        f.write_str(&parts.next().unwrap_or_default())?;
        for (index, cause) in parts.enumerate() {
            if index == 0 {
                f.write_str("\n\nCaused by:")?;
            }
            write!(f, "\n    {}", cause.replace('\n', "\n    "))?;
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.inner.source {
            Some(source) => Some(&**source),
            None => None,
        }
    }
}

/// An error and its causes, outermost first.
pub(super) fn causes<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    successors(Some(error), |error: &&'a (dyn StdError + 'static)| {
        cause(*error)
    })
    .take(1 + MAX_CAUSES)
}

/// The cause of an error. The source of an [`io::Error`] is that of the error which it wraps, so it
/// would leave that one out.
fn cause<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    let wrapped = error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref);
    match wrapped {
        Some(wrapped) => Some(wrapped),
        None => error.source(),
    }
}

/// The text of an error and of each of its causes, outermost first.
///
/// Leaves out a cause that its parent's text already ends with, because many libraries repeat
/// their cause in their own text.
pub(crate) fn chain_texts<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = String> + 'a {
    let mut parent: Option<String> = None;
    causes(error).filter_map(move |error| {
        let text = error.to_string();
        let repeats = parent
            .as_ref()
            .is_some_and(|parent| parent.ends_with(&text));
        parent = Some(text.clone());
        (!repeats).then_some(text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_that_an_io_error_wraps_is_a_cause_and_its_text_stands_once() {
        let inner =
            Error::new(ErrorKind::Unavailable, "publish", "no connection").because(refused());
        let outer = io::Error::other(inner);
        let found = causes(&outer).any(|cause| cause.is::<Error>());
        assert!(found, "rules by cause see it");
        let texts: Vec<String> = chain_texts(&outer).collect();
        assert_eq!(texts, ["publish: no connection", "connection refused"]);
    }

    fn refused() -> std::io::Error {
        std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "connection refused")
    }

    fn no_connection() -> Error {
        Error::new(
            ErrorKind::Unavailable,
            "connect",
            "no connection to the server",
        )
        .on("127.0.0.1:6379")
    }

    #[test]
    fn display_leaves_the_cause_to_source() {
        let error = no_connection().because(refused());
        assert_eq!(
            error.to_string(),
            "connect \"127.0.0.1:6379\": no connection to the server"
        );
        assert_eq!(error.source().unwrap().to_string(), "connection refused");
    }

    #[test]
    fn debug_prints_the_chain_and_the_alternate_form_the_fields() {
        assert_eq!(
            format!("{:?}", no_connection()),
            no_connection().to_string()
        );
        let error = no_connection().because(refused());
        let chain = "connect \"127.0.0.1:6379\": no connection to the server\n\n\
                     Caused by:\n    connection refused";
        assert_eq!(format!("{error:?}"), chain);
        let fields = format!("{error:#?}");
        assert!(fields.starts_with("Error {"), "{fields}");
        assert!(fields.contains("kind: Unavailable"), "{fields}");
    }

    #[test]
    fn a_cause_that_its_parent_repeats_is_left_out() {
        let parent = Error::new(ErrorKind::Refused, "read", "NOPERM").because("NOPERM");
        assert_eq!(format!("{parent:?}"), "read: NOPERM");
        let deeper = Error::new(ErrorKind::Refused, "read", "NOPERM")
            .because(Error::new(ErrorKind::Refused, "acl", "no key").because("no key"));
        assert_eq!(
            format!("{deeper:?}"),
            "read: NOPERM\n\nCaused by:\n    acl: no key"
        );
    }

    #[derive(Debug)]
    struct Circle;

    impl fmt::Display for Circle {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("round")
        }
    }

    impl StdError for Circle {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(self)
        }
    }

    #[test]
    fn a_chain_without_an_end_is_cut() {
        let error = no_connection().because(Circle);
        assert_eq!(format!("{error:?}").matches("round").count(), 1);
    }

    #[test]
    fn clones_share_the_cause_and_change_apart() {
        assert_eq!(size_of::<Error>(), size_of::<usize>());
        let error = no_connection().because(refused());
        let other = error.clone().on("elsewhere");
        assert_eq!(error.subject(), Some("127.0.0.1:6379"));
        assert_eq!(other.subject(), Some("elsewhere"));
        assert_eq!(other.source().unwrap().to_string(), "connection refused");
    }

    #[test]
    fn four_kinds_are_retryable_and_one_may_have_been_done() {
        let of = |kind| Error::new(kind, "publish", "");
        for kind in [
            ErrorKind::Unavailable,
            ErrorKind::OutcomeUnknown,
            ErrorKind::BacklogFull,
            ErrorKind::Timeout,
        ] {
            assert!(of(kind).is_retryable(), "{kind}");
        }
        assert!(!of(ErrorKind::Refused).is_retryable());
        assert!(of(ErrorKind::OutcomeUnknown).is_outcome_unknown());
        assert!(!of(ErrorKind::Unavailable).is_outcome_unknown());
        assert_eq!(
            serde_json::to_string(&ErrorKind::BacklogFull).unwrap(),
            "\"backlog-full\""
        );
    }
}
