//! An undeliverable envelope with its reason, history and origin.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;

use super::entry_id::EntryId;
use super::error::{Error, ErrorKind};
use super::names::{Group, Topic};
use super::text::cut;
use super::timestamp::Timestamp;

/// How many attempts a history keeps; older ones make room.
const LONGEST_HISTORY: usize = 10;

/// Why a message was dead-lettered.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Reason {
    /// Every attempt failed.
    Exhausted,
    /// The handler said that no attempt can succeed.
    Rejected,
    /// The entry or its payload could not be decoded.
    Undecodable,
    /// The last attempt ended with its consumer, unsettled.
    Crashed,
    /// It was too old to be handled.
    Expired,
}

impl Reason {
    /// The reason as records and metrics name it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exhausted => "exhausted",
            Self::Rejected => "rejected",
            Self::Undecodable => "undecodable",
            Self::Crashed => "crashed",
            Self::Expired => "expired",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Reason {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        [
            Self::Exhausted,
            Self::Rejected,
            Self::Undecodable,
            Self::Crashed,
            Self::Expired,
        ]
        .into_iter()
        .find(|reason| reason.as_str() == text)
        .ok_or_else(|| {
            let rule = "must be exhausted, rejected, undecodable, crashed or expired";
            Error::new(ErrorKind::Invalid, "reason", rule)
                .on(text.chars().take(64).collect::<String>())
        })
    }
}

/// One failed attempt.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Attempt {
    /// Its number, from 1.
    pub number: u32,
    /// When it failed.
    pub at: Timestamp,
    /// The consumer that had it.
    pub consumer: String,
    /// The error text.
    pub error: String,
}

/// What a message brings along from its earlier deliveries in this group.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Trail {
    /// The entry of the log with which it began.
    pub origin: EntryId,
    /// When its first attempt failed.
    pub first_failure: Option<Timestamp>,
    /// The last ten failed attempts, oldest first.
    pub history: Vec<Attempt>,
    /// How often it was redriven.
    pub redriven: u32,
}

impl Trail {
    pub(crate) fn from(origin: EntryId) -> Self {
        Self {
            origin,
            ..Self::default()
        }
    }

    pub(crate) fn record(&mut self, attempt: Attempt) {
        self.first_failure.get_or_insert(attempt.at);
        if self.history.len() >= LONGEST_HISTORY {
            self.history.remove(0);
        }
        self.history.push(attempt);
    }
}

/// A dead letter.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The record's id within its group.
    pub id: EntryId,
    /// The topic it was published to.
    pub topic: Topic,
    /// The group that failed it.
    pub group: Group,
    /// Why it died.
    pub reason: Reason,
    /// The last error's text.
    pub error: String,
    /// The error with numbers, ids and addresses folded: equal for equal causes.
    pub fingerprint: String,
    /// The handler that had it last.
    pub handler: String,
    /// The consumer that had it last.
    pub consumer: String,
    /// The envelope's type, empty when undecodable.
    pub kind: String,
    /// The envelope's tenant.
    pub tenant: Option<String>,
    /// Attempts that it had.
    pub attempts: u32,
    /// When it died.
    pub last_failure: Timestamp,
    /// Where it began, its history and how often it was redriven.
    pub trail: Trail,
    /// The entry's fields, byte for byte.
    pub fields: Vec<(Bytes, Bytes)>,
}

/// Folds what differs between two errors of one cause: numbers, hexadecimal ids, addresses,
/// and quoted text.
pub(crate) fn fingerprint(error: &str) -> String {
    const LONGEST: usize = 160;
    let mut out = String::with_capacity(error.len().min(LONGEST));
    let mut word = String::new();
    let mut quote = None;
    for symbol in error.chars().chain([' ']) {
        if out.len() > LONGEST {
            break;
        }
        match (quote, symbol) {
            (Some(end), _) if symbol == end => quote = None,
            (Some(_), _) => {}
            (None, '"' | '`') => {
                fold(&mut word, &mut out);
                out.push('…');
                quote = Some(symbol);
            }
            (None, _) if symbol.is_alphanumeric() || matches!(symbol, '-' | '_' | '.' | ':') => {
                word.push(symbol);
            }
            (None, _) => {
                fold(&mut word, &mut out);
                let symbol = if symbol.is_control() { ' ' } else { symbol };
                if symbol != ' ' || !out.ends_with(' ') {
                    out.push(symbol);
                }
            }
        }
    }
    let mut out = out.trim().to_owned();
    cut(&mut out, LONGEST);
    out
}

fn fold(word: &mut String, out: &mut String) {
    // A word with a digit in it is an id, a number or an address; what it ends in is kept.
    if word.chars().any(|symbol| symbol.is_ascii_digit()) {
        let kept = word.len() - word.trim_end_matches([':', '.']).len();
        out.push('#');
        out.push_str(&word[word.len() - kept..]);
    } else {
        out.push_str(word);
    }
    word.clear();
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn equal_causes_have_equal_fingerprints() {
        for (one, two) in [
            ("timeout after 30 s", "timeout after 7 s"),
            (
                "no user 550e8400-e29b-41d4-a716-446655440000",
                "no user 6ba7b810-9dad-11d1-80b4-00c04fd430c8",
            ),
            (
                "connect 10.0.0.1:5432: refused",
                "connect 10.0.0.2:5433: refused",
            ),
            ("unknown field `a1`", "unknown field `b`"),
            ("at 0x7f3a: bad", "at 0x11: bad"),
        ] {
            assert_eq!(fingerprint(one), fingerprint(two));
        }
        assert_ne!(
            fingerprint("timeout after 30 s"),
            fingerprint("refused after 30 s")
        );
        assert_eq!(
            fingerprint("connect 10.0.0.1:5432: refused"),
            "connect #: refused"
        );
    }

    #[test]
    fn a_history_keeps_the_last_ten() {
        let mut trail = Trail::default();
        for number in 1..=12 {
            let at = Timestamp::from_millis(i64::from(number)).unwrap();
            let (consumer, error) = ("c".to_owned(), "e".to_owned());
            trail.record(Attempt {
                number,
                at,
                consumer,
                error,
            });
        }
        let numbers: Vec<u32> = trail.history.iter().map(|attempt| attempt.number).collect();
        assert_eq!(numbers, (3..=12).collect::<Vec<_>>());
        assert_eq!(trail.first_failure.unwrap().as_millis(), 1);
    }

    proptest! {
        #[test]
        fn any_text_has_a_short_fingerprint_without_control_characters(text in "\\PC{0,400}|[\\x00-\\x7f]{0,400}") {
            let print = fingerprint(&text);
            prop_assert!(print.len() <= 160);
            prop_assert!(!print.chars().any(char::is_control));
        }
    }
}
