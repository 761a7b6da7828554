//! The two forms in which envelopes and values are stored.

use std::fmt;

/// The form in which an envelope or a value is stored.
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
    /// The name of the stream field that holds an envelope of this codec.
    #[must_use]
    pub fn field(self) -> &'static str {
        match self {
            Self::MessagePack => "msgpack",
            Self::Json => "json",
        }
    }

    /// The codec that a stream field's name stands for.
    #[must_use]
    pub fn from_field(name: &[u8]) -> Option<Self> {
        match name {
            b"msgpack" => Some(Self::MessagePack),
            b"json" => Some(Self::Json),
            _ => None,
        }
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
