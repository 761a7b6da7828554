//! The two encodings of envelopes and values.

use std::fmt;
use std::str::FromStr;

use super::error::{Error, ErrorKind};

/// The encoding of stored envelopes and values.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Codec {
    /// MessagePack with named fields; the default.
    #[default]
    MessagePack,
    /// JSON text, for producers and readers in any language.
    Json,
}

impl Codec {
    /// The name, `msgpack` or `json`. The stream field of an envelope has this name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::MessagePack => "msgpack",
            Self::Json => "json",
        }
    }

    /// Parses the name of a stream field.
    pub(crate) fn from_name(name: &[u8]) -> Option<Self> {
        match name {
            b"msgpack" => Some(Self::MessagePack),
            b"json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// Parses [`name`](Codec::name).
impl FromStr for Codec {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Self::from_name(name.as_bytes()).ok_or_else(|| {
            let shown: String = name.chars().take(64).collect();
            Error::new(ErrorKind::Invalid, "codec", "must be msgpack or json").on(shown)
        })
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MessagePack => "MessagePack",
            Self::Json => "JSON",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_and_others_are_refused() {
        for codec in [Codec::MessagePack, Codec::Json] {
            assert_eq!(codec.name().parse::<Codec>().unwrap(), codec);
        }
        let error = "xml".parse::<Codec>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("msgpack or json"), "{error}");
    }
}
