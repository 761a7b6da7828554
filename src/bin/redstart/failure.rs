//! How a command fails: the message and the exit code.

use std::error::Error as StdError;
use std::io;

use redstart::{Error, ErrorKind};
use serde_json::{Value, json};

/// The command failed.
pub(crate) const FAILED: u8 = 1;
/// The command line or a setting is wrong.
pub(crate) const USAGE: u8 = 2;
/// Ended by ctrl-c, as shells count it: 128 + SIGINT.
pub(crate) const INTERRUPTED: u8 = 130;

/// How a command fails.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The cause, for one line.
    Because(Box<dyn StdError + Send + Sync>),
    /// A setting or an argument breaks a rule of the library.
    Setting(Error),
    /// An argument is wrong.
    Usage(String),
    /// The command has reported the failure; only the exit code is left.
    Said(u8),
    /// The reader of the output closed it, as `| head` does.
    ReaderGone,
}

impl Failure {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self::Because(text.into().into())
    }

    /// A wrong argument.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::Usage(text.into())
    }

    /// An error of the settings, or of connecting with them. Only here a broken rule is the
    /// user's: elsewhere the value may come from the server.
    pub(crate) fn of_settings(error: Error) -> Self {
        match error.kind() {
            ErrorKind::Invalid => Self::Setting(error),
            _ => error.into(),
        }
    }

    /// An error of a call whose values all come from the command line.
    pub(crate) fn of_arguments(error: Error) -> Self {
        match error.kind() {
            ErrorKind::Invalid | ErrorKind::Encode => Self::Setting(error),
            _ => error.into(),
        }
    }

    /// An error of an edit: the user wrote a message that is not an envelope.
    pub(crate) fn of_edit(error: Error) -> Self {
        match error.kind() {
            ErrorKind::Invalid => Self::Setting(error),
            _ => error.into(),
        }
    }

    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Because(_) => FAILED,
            Self::Setting(_) | Self::Usage(_) => USAGE,
            Self::Said(code) => *code,
            Self::ReaderGone => 0,
        }
    }

    /// The line to print, unless the command has printed it.
    pub(crate) fn line(&self) -> Option<String> {
        match self {
            Self::Because(cause) => Some(chain(&**cause)),
            Self::Setting(error) => Some(chain(error)),
            Self::Usage(text) => Some(text.clone()),
            Self::Said(_) | Self::ReaderGone => None,
        }
    }
}

impl Failure {
    /// The failure for programs, unless the command has printed it.
    pub(crate) fn json(&self) -> Option<Value> {
        let of_library = match self {
            Self::Because(cause) => cause.downcast_ref::<Error>(),
            Self::Setting(error) => Some(error),
            _ => None,
        };
        let kind = match (of_library, self) {
            (Some(error), _) => error.kind().as_str(),
            (None, Self::Usage(_)) => "usage",
            (None, _) => "failed",
        };
        let message = match of_library {
            Some(error) => with_causes(error.message().to_owned(), error.source()),
            None => self.line()?,
        };
        Some(json!({ "error": {
            "kind": kind,
            "operation": of_library.map(Error::operation),
            "subject": of_library.and_then(Error::subject),
            "message": message,
        } }))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Because(Box::new(error))
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::ReaderGone;
        }
        Self::Because(Box::new(error))
    }
}

/// The end of a command that has written its answer. A reader of the output that has gone does not
/// turn a failure into a success.
pub(crate) fn written(answer: io::Result<()>, ended: Result<(), Failure>) -> Result<(), Failure> {
    ended.and_then(|()| Ok(answer?))
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &(dyn StdError + 'static)) -> String {
    with_causes(error.to_string(), error.source())
}

fn with_causes(mut text: String, mut cause: Option<&(dyn StdError + 'static)>) -> String {
    while let Some(error) = cause {
        let part = error.to_string();
        // Many errors repeat their cause in their own text.
        if !text.ends_with(&part) {
            text = format!("{text}: {part}");
        }
        cause = error.source();
    }
    text
}

/// Replaces URLs in a text, because they may hold a password. For usage errors, which quote what
/// the user typed; the library's own errors never show a password.
pub(crate) fn redact(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '.' | '-' | '_');
        let scheme = rest[..at].trim_end_matches(is_name).len();
        safe.push_str(&rest[..scheme]);
        safe.push_str("<url>");
        let after = &rest[at + 3..];
        let is_end = |c: char| c.is_whitespace() || matches!(c, '\'' | '"' | '`' | '\u{1b}');
        rest = &after[after.find(is_end).unwrap_or(after.len())..];
    }
    safe.push_str(rest);
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_named_once() {
        let error = "a b".parse::<redstart::Topic>().unwrap_err();
        assert_eq!(
            chain(&error),
            "topic \"a b\": must match [A-Za-z0-9_.:-]{1,200}"
        );
    }

    #[test]
    fn programs_get_the_parts_of_an_error() {
        let invalid = "a b".parse::<redstart::Topic>().unwrap_err();
        let rule = "must match [A-Za-z0-9_.:-]{1,200}";
        for failure in [Failure::from(invalid.clone()), Failure::Setting(invalid)] {
            let parts = json!({
                "kind": "invalid", "operation": "topic", "subject": "a b", "message": rule,
            });
            assert_eq!(failure.json(), Some(json!({ "error": parts })));
        }
        let told = Failure::usage("no").json().unwrap();
        assert_eq!(
            (&told["error"]["kind"], &told["error"]["message"]),
            (&json!("usage"), &json!("no"))
        );
        assert_eq!(
            Failure::new("no").json().unwrap()["error"]["kind"],
            "failed"
        );
        assert_eq!(Failure::Said(FAILED).json(), None);
    }

    #[test]
    fn broken_rules_of_settings_and_arguments_are_usage_errors() {
        let invalid = || "a b".parse::<redstart::Topic>().unwrap_err();
        assert_eq!(Failure::of_settings(invalid()).exit_code(), USAGE);
        assert_eq!(Failure::of_arguments(invalid()).exit_code(), USAGE);
        assert_eq!(Failure::from(invalid()).exit_code(), FAILED);
        assert_eq!(Failure::new("no").exit_code(), FAILED);
        let gone = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((gone.exit_code(), gone.line()), (0, None));
    }

    #[test]
    fn a_reader_that_has_gone_hides_no_failure() {
        let gone = || Err(io::Error::from(io::ErrorKind::BrokenPipe));
        let failed = || Err(Failure::Said(FAILED));
        let code = |ended: Result<(), Failure>| ended.err().map_or(0, |one| one.exit_code());
        assert_eq!(code(written(gone(), failed())), FAILED);
        assert_eq!(code(written(Ok(()), failed())), FAILED);
        assert_eq!(code(written(gone(), Ok(()))), 0);
        assert_eq!(code(written(Err(io::Error::other("full")), Ok(()))), FAILED);
    }

    #[test]
    fn urls_are_replaced_everywhere() {
        for (text, safe) in [
            ("unrecognized 'redis://:pw@h/0' x", "unrecognized '<url>' x"),
            ("rediss://u:p@h:1", "<url>"),
            ("a unix:///x?pass=p b redis://q c", "a <url> b <url> c"),
            ("nothing: here", "nothing: here"),
        ] {
            assert_eq!(redact(text), safe);
        }
    }
}
