//! Names, validated once, on construction.
//!
//! The alphabets keep a name from changing the Redis Cluster slot of a key (`{`, `}`), from
//! widening an access-control pattern (`*`, `?`), and from sending control characters to a terminal.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::as_text::as_text;
use super::error::{Error, ErrorKind};

fn check(
    what: &'static str,
    text: &str,
    max: usize,
    allows_colon: bool,
    rule: &'static str,
) -> Result<Arc<str>, Error> {
    let allowed = |byte: u8| {
        byte.is_ascii_alphanumeric()
            || matches!(byte, b'_' | b'.' | b'-')
            || (allows_colon && byte == b':')
    };
    if text.is_empty() || text.len() > max || !text.bytes().all(allowed) {
        // A hostile name is not echoed at its full length.
        let shown: String = text.chars().take(64).collect();
        return Err(Error::new(ErrorKind::Invalid, what, format!("must match {rule}")).on(shown));
    }
    Ok(Arc::from(text))
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:literal, $colon:literal, $rule:literal) => {
        $(#[$doc])*
        ///
        #[doc = concat!("Matches `", $rule, "` (bytes). Cheap to clone.")]
        #[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Validates a name.
            ///
            /// # Errors
            ///
            #[doc = concat!("[`ErrorKind::Invalid`] when the name does not match `", $rule, "`.")]
            pub fn new(name: impl AsRef<str>) -> Result<Self, Error> {
                check($what, name.as_ref(), $max, $colon, $rule).map(Self)
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({:?})", stringify!($name), &*self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<&str> for $name {
            type Error = Error;

            fn try_from(name: &str) -> Result<Self, Error> {
                Self::new(name)
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(name: &str) -> Result<Self, Error> {
                Self::new(name)
            }
        }
    };
}

name!(
    /// The prefix that separates the keys of one system from another's on a shared server.
    Namespace, "namespace", 64, false, "[A-Za-z0-9_.-]{1,64}"
);
name!(
    /// A named durable sequence of messages.
    Topic, "topic", 200, true, "[A-Za-z0-9_.:-]{1,200}"
);
name!(
    /// Consumers that share one cursor over a topic; each group sees every message.
    Group, "group", 128, false, "[A-Za-z0-9_.-]{1,128}"
);
name!(
    /// One named member of a group.
    ConsumerName, "consumer", 128, false, "[A-Za-z0-9_.-]{1,128}"
);

as_text!(Namespace, Topic, Group, ConsumerName);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_that_would_retag_or_widen_keys_are_refused() {
        for bad in [
            "", "a{b", "a}b", "a*", "a?", "a b", "a\n", "a\u{7f}", "é", "a/b",
        ] {
            assert!(Topic::new(bad).is_err(), "topic {bad:?}");
            assert!(Group::new(bad).is_err(), "group {bad:?}");
            assert!(Namespace::new(bad).is_err(), "namespace {bad:?}");
            assert!(ConsumerName::new(bad).is_err(), "consumer {bad:?}");
        }
    }

    #[test]
    fn only_topics_may_hold_a_colon() {
        assert!(Topic::new("orders:eu").is_ok());
        assert!(Namespace::new("a:b").is_err());
        assert!(Group::new("a:b").is_err());
    }

    #[test]
    fn length_limits_are_exact() {
        assert!(Namespace::new("n".repeat(64)).is_ok());
        assert!(Namespace::new("n".repeat(65)).is_err());
        assert!(Topic::new("t".repeat(200)).is_ok());
        assert!(Topic::new("t".repeat(201)).is_err());
        assert!(Group::new("g".repeat(128)).is_ok());
        assert!(Group::new("g".repeat(129)).is_err());
    }

    #[test]
    fn the_error_names_the_input_and_the_rule_but_not_a_megabyte_of_it() {
        let error = Topic::new("x ".repeat(1_000_000)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        let text = error.to_string();
        assert!(text.contains("[A-Za-z0-9_.:-]{1,200}"), "{text}");
        assert!(text.len() < 200, "{}", text.len());
    }

    proptest! {
        #[test]
        fn text_that_matches_the_rule_is_a_topic(text in "[A-Za-z0-9_.:-]{1,200}") {
            let topic = Topic::new(&text).unwrap();
            prop_assert_eq!(topic.as_str(), text);
        }

        #[test]
        fn any_text_with_a_foreign_character_is_refused(
            head in "[a-z]{0,8}", bad in "[^A-Za-z0-9_.:-]", tail in "[a-z]{0,8}"
        ) {
            let name = [head, bad, tail].concat();
            prop_assert!(Topic::new(name).is_err());
        }
    }
}
