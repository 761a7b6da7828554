//! The crate's one error type.

use std::error::Error as StdError;
use std::fmt;

type BoxError = Box<dyn StdError + Send + Sync + 'static>;

/// What went wrong, coarse enough to decide on.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum ErrorKind {
    /// The input broke a rule that the message names; nothing was done.
    Invalid,
    /// A value could not be encoded.
    Encode,
    /// Stored or received bytes could not be decoded.
    Decode,
    /// The input is larger or deeper than the configured limit.
    TooLarge,
    /// The server could not be reached or is not ready; the operation was certainly not done.
    Unavailable,
    /// The connection broke or timed out after sending: the operation may have been done.
    OutcomeUnknown,
    /// The server understood and refused: wrong key type, missing permission, memory full.
    Refused,
    /// The topic, group or record does not exist.
    NotFound,
    /// The topic holds as many unsettled messages as its backlog limit allows.
    BacklogFull,
    /// This container already has a subscription to the topic under the same group.
    AlreadySubscribed,
    /// The stored layout is newer than this version, older, or left half-migrated.
    Layout,
    /// A coordinator failed to start.
    Coordinator,
    /// The container was shut down.
    Closed,
    /// A lease or claim passed to another owner, so the result was not recorded.
    LeaseLost,
}

/// An error of Redstart: a kind, the operation, what it concerned, and the cause.
///
/// `Display` names the operation, the topic or key, and the rule; the cause is
/// left to [`source`](StdError::source), so that reporters that walk the chain
/// print each part once.
pub struct Error {
    inner: Box<Inner>,
}

struct Inner {
    kind: ErrorKind,
    operation: &'static str,
    subject: Option<String>,
    message: String,
    source: Option<BoxError>,
}

impl Error {
    /// An error of an operation, such as `read`; the message says which rule was broken.
    ///
    /// For adapters: the runtime decides by the kind what to do.
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
            inner: Box::new(inner),
        }
    }

    /// Names the topic, group or key that the operation concerned.
    #[must_use]
    pub fn on(mut self, subject: impl Into<String>) -> Self {
        self.inner.subject = Some(subject.into());
        self
    }

    /// The same error for another input of the same call; the cause is told once.
    #[must_use]
    pub(crate) fn without_cause(&self) -> Self {
        let inner = Inner {
            kind: self.inner.kind,
            operation: self.inner.operation,
            subject: self.inner.subject.clone(),
            message: self.inner.message.clone(),
            source: None,
        };
        Self {
            inner: Box::new(inner),
        }
    }

    /// Adds the cause, which [`source`](StdError::source) gives.
    #[must_use]
    pub fn because(mut self, source: impl Into<BoxError>) -> Self {
        self.inner.source = Some(source.into());
        self
    }

    /// What went wrong, coarse enough to decide on.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// Whether the same call can succeed later without a change.
    ///
    /// After [`ErrorKind::OutcomeUnknown`] a repeat may do the operation a second time.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(
            self.inner.kind,
            ErrorKind::Unavailable | ErrorKind::OutcomeUnknown | ErrorKind::BacklogFull
        )
    }

    /// The operation that failed, such as `decode envelope`.
    #[must_use]
    pub fn operation(&self) -> &str {
        self.inner.operation
    }

    /// The topic, group or key that the operation concerned, where there is one.
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
        f.debug_struct("Error")
            .field("kind", &self.inner.kind)
            .field("operation", &self.inner.operation)
            .field("subject", &self.inner.subject)
            .field("message", &self.inner.message)
            .field("source", &self.inner.source)
            .finish()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_leaves_the_cause_to_source() {
        let error = Error::new(
            ErrorKind::Decode,
            "decode envelope",
            "field `id` is no UUID",
        )
        .on("orders")
        .because("bad digit");
        assert_eq!(
            error.to_string(),
            "decode envelope \"orders\": field `id` is no UUID"
        );
        assert_eq!(error.source().unwrap().to_string(), "bad digit");
    }
}
