//! A value together with the bytes that it was read from.

use bytes::Bytes;

/// A value of the key-value store as [`Kv::read`](crate::Kv::read) found it.
///
/// It remembers the stored bytes, so that [`Effects::replace`](crate::Effects::replace) and
/// [`Effects::unchanged`](crate::Effects::unchanged) can demand that the value is still the same.
#[derive(Clone, Debug, PartialEq)]
pub struct Read<T> {
    key: String,
    seen: Option<Bytes>,
    value: Option<T>,
}

impl<T> Read<T> {
    pub(crate) fn new(key: &str, seen: Option<Bytes>, value: Option<T>) -> Self {
        Self {
            key: key.to_owned(),
            seen,
            value,
        }
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The value; `None` if the key was absent.
    #[must_use]
    pub fn value(&self) -> Option<&T> {
        self.value.as_ref()
    }

    /// A copy of the value, or `default` if the key was absent.
    #[must_use]
    pub fn value_or(&self, default: T) -> T
    where
        T: Clone,
    {
        self.value.clone().unwrap_or(default)
    }

    pub(crate) fn seen(&self) -> Option<Bytes> {
        self.seen.clone()
    }
}
