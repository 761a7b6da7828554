//! Names, validated once, on construction.
//!
//! The alphabets keep a name from changing the Redis Cluster slot of a key (`{`, `}`), from
//! widening an access-control pattern (`*`, `?`), and from sending control characters to a terminal.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::str::FromStr;
use std::sync::Arc;

use super::as_text::as_text;
use super::error::{Error, ErrorKind};

/// The text of a name. That of a constant is not copied.
#[derive(Clone)]
enum Text {
    Static(&'static str),
    Shared(Arc<str>),
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Static(text) => text,
            Self::Shared(text) => text,
        }
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Text {}

impl PartialOrd for Text {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Text {
    fn cmp(&self, other: &Self) -> Ordering {
        str::cmp(self, other)
    }
}

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        str::hash(self, state);
    }
}

const fn is_valid(text: &str, max: usize, allows_colon: bool) -> bool {
    let bytes = text.as_bytes();
    let mut at = 0;
    // `for` is not available in a constant.
    while at < bytes.len() {
        let allowed = bytes[at].is_ascii_alphanumeric()
            || matches!(bytes[at], b'_' | b'.' | b'-')
            || (allows_colon && bytes[at] == b':');
        if !allowed {
            return false;
        }
        at += 1;
    }
    !bytes.is_empty() && bytes.len() <= max
}

fn check(
    what: &'static str,
    text: &str,
    max: usize,
    allows_colon: bool,
    rule: &'static str,
) -> Result<Text, Error> {
    if is_valid(text, max, allows_colon) {
        return Ok(Text::Shared(Arc::from(text)));
    }
    // A hostile name is not echoed at its full length.
    let shown: String = text.chars().take(64).collect();
    Err(Error::new(ErrorKind::Invalid, what, format!("must match {rule}")).on(shown))
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:literal, $colon:literal, $rule:literal) => {
        $(#[$doc])*
        ///
        #[doc = concat!("Matches `", $rule, "` (bytes). Cheap to clone.")]
        #[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $name(Text);

        impl $name {
            /// Validates a name.
            ///
            /// # Errors
            ///
            #[doc = concat!("[`ErrorKind::Invalid`] when the name does not match `", $rule, "`.")]
            pub fn new(name: impl AsRef<str>) -> Result<Self, Error> {
                check($what, name.as_ref(), $max, $colon, $rule).map(Self)
            }

            /// A name as a constant: the compiler checks it.
            ///
            /// # Panics
            ///
            #[doc = concat!("When the name does not match `", $rule, "`. In a `const` or a `static` this")]
            /// is an error of the compiler.
            #[must_use]
            pub const fn from_static(name: &'static str) -> Self {
                if !is_valid(name, $max, $colon) {
                    panic!("{}", concat!("the name of a ", $what, " must match ", $rule));
                }
                Self(Text::Static(name))
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

/// Checks a key of the key-value store. Every adapter calls it.
pub(crate) fn check_key(operation: &'static str, key: &str) -> Result<(), Error> {
    if key.is_empty() || key.starts_with('{') {
        let rule = "a key may not be empty or begin with `{`";
        return Err(Error::new(ErrorKind::Invalid, operation, rule).on(key));
    }
    Ok(())
}

/// Checks the beginning of keys in a listing. An empty one stands for all keys.
pub(crate) fn check_prefix(operation: &'static str, prefix: &str) -> Result<(), Error> {
    if prefix.starts_with('{') {
        let rule = "a key may not begin with `{`, so no key has this prefix";
        return Err(Error::new(ErrorKind::Invalid, operation, rule).on(prefix));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

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
    fn a_constant_name_is_the_name_of_the_same_text() {
        const ORDERS: Topic = Topic::from_static("orders:eu");
        let orders = Topic::new("orders:eu").unwrap();
        assert_eq!(ORDERS, orders);
        assert!(HashSet::from([ORDERS]).contains(&orders));
        assert!(ORDERS < Topic::new("orders:us").unwrap());
        assert_eq!(serde_json::to_string(&ORDERS).unwrap(), "\"orders:eu\"");
    }

    #[test]
    #[should_panic = "the name of a group must match [A-Za-z0-9_.-]{1,128}"]
    fn a_bad_constant_name_panics_where_no_compiler_checks_it() {
        let _ = Group::from_static("a:b");
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
