//! The error of this folder's serializer, deserializer and transcoders.

use std::fmt;

use serde::{de, ser};

use crate::domain::msgpack::Flaw;

/// Why a value has no encoded form, or why encoded bytes do not have the wanted shape.
#[derive(Debug)]
pub(crate) struct Unfit(String);

impl Unfit {
    pub(super) fn new(rule: impl Into<String>) -> Self {
        Self(rule.into())
    }
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unfit {}

impl ser::Error for Unfit {
    fn custom<T: fmt::Display>(rule: T) -> Self {
        Self(rule.to_string())
    }
}

impl de::Error for Unfit {
    fn custom<T: fmt::Display>(rule: T) -> Self {
        Self(rule.to_string())
    }
}

impl From<Flaw> for Unfit {
    fn from(flaw: Flaw) -> Self {
        Self::new(flaw.as_str())
    }
}

impl From<rmp::encode::ValueWriteError> for Unfit {
    fn from(error: rmp::encode::ValueWriteError) -> Self {
        Self::new(error.to_string())
    }
}

impl From<serde_json::Error> for Unfit {
    fn from(error: serde_json::Error) -> Self {
        Self::new(error.to_string())
    }
}
