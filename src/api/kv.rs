//! The key-value store.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::domain::BoxFuture;
use crate::domain::{Codec, Error, ErrorKind};
use crate::wire::value;

/// What a compare-and-set found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CasResult {
    /// The value was as expected and has been replaced.
    Swapped,
    /// The value differed and is untouched; `None` when the key is absent.
    Differs(Option<Bytes>),
}

/// What a claim found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ClaimResult {
    /// The caller now holds the claim, for the time of its lease.
    Claimed,
    /// Another owner holds it.
    Busy,
    /// It was completed; with the stored result, where one was stored.
    Done(Option<Bytes>),
}

/// The object-safe port behind a [`Kv`], in bytes, for decorators.
///
/// A key may be any text that is not empty and does not begin with `{`, which is where
/// the bus keeps its own. Times to live are at least one millisecond. Every operation on
/// one key is atomic.
pub trait KvStore: Send + Sync + fmt::Debug {
    /// Reads the values of several keys, in their order.
    fn get_bytes<'a>(
        &'a self,
        keys: &'a [&'a str],
    ) -> BoxFuture<'a, Result<Vec<Option<Bytes>>, Error>>;

    /// Stores several values, in their order; each by itself is atomic, all together are not.
    fn set_bytes<'a>(
        &'a self,
        entries: Vec<(&'a str, Bytes)>,
        ttl: Option<Duration>,
    ) -> BoxFuture<'a, Result<(), Error>>;

    /// Stores a value where the key is absent, and says whether it did.
    fn insert_bytes<'a>(
        &'a self,
        key: &'a str,
        value: Bytes,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<bool, Error>>;

    /// Removes a key, and says whether it was there. Removing an absent key succeeds.
    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<bool, Error>>;

    /// Whether the key is there.
    fn exists<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<bool, Error>>;

    /// Adds to an integer, which counts as 0 where the key is absent, and returns the sum.
    fn incr<'a>(&'a self, key: &'a str, by: i64) -> BoxFuture<'a, Result<i64, Error>>;

    /// Replaces a value that is, byte for byte, the expected one (`None`: absent).
    fn cas_bytes<'a>(
        &'a self,
        key: &'a str,
        expected: Option<Bytes>,
        new: Bytes,
        ttl: Option<Duration>,
    ) -> BoxFuture<'a, Result<CasResult, Error>>;

    /// Claims a key for an owner's token. Claiming again with the same token succeeds.
    fn claim<'a>(
        &'a self,
        key: &'a str,
        token: &'a str,
        lease: Duration,
    ) -> BoxFuture<'a, Result<ClaimResult, Error>>;

    /// Extends a claim; false when the token does not hold it any more.
    fn extend_claim<'a>(
        &'a self,
        key: &'a str,
        token: &'a str,
        lease: Duration,
    ) -> BoxFuture<'a, Result<bool, Error>>;

    /// Turns a claim into a stored result; false, and nothing written, when the token does
    /// not hold it any more.
    fn complete_claim<'a>(
        &'a self,
        key: &'a str,
        token: &'a str,
        result: Bytes,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<bool, Error>>;

    /// Gives a claim up, so that another may take it; false when the token does not hold it.
    fn release_claim<'a>(
        &'a self,
        key: &'a str,
        token: &'a str,
    ) -> BoxFuture<'a, Result<bool, Error>>;
}

/// The rule for keys: every adapter asks it.
pub(crate) fn check_key(operation: &'static str, key: &str) -> Result<(), Error> {
    if key.is_empty() || key.starts_with('{') {
        let rule = "a key may not be empty or begin with `{`";
        return Err(Error::new(ErrorKind::Invalid, operation, rule).on(key));
    }
    Ok(())
}

/// The key-value store. Cheap to clone.
///
/// A `Kv` wraps the object-safe [`KvStore`] and a codec. To add behaviour to every call, implement
/// `KvStore` around [`port`](Self::port) and build a `Kv` from it.
///
/// # Errors
///
/// Every operation fails with [`Invalid`](crate::ErrorKind::Invalid) for a key that is empty or
/// begins with `{`, and with the kinds of the connection; reading also with
/// [`Decode`](crate::ErrorKind::Decode) when a stored value does not have the shape of `T`.
///
/// # Cancel safety
///
/// A dropped future may have done its operation or not, as after a broken connection.
#[derive(Clone, Debug)]
pub struct Kv {
    port: Arc<dyn KvStore>,
    codec: Codec,
}

impl From<Arc<dyn KvStore>> for Kv {
    fn from(port: Arc<dyn KvStore>) -> Self {
        Self {
            port,
            codec: Codec::default(),
        }
    }
}

impl Kv {
    /// Sets the codec of new values; by default MessagePack. Reading understands both.
    #[must_use]
    pub fn with_codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    /// The object-safe store behind this one, for decorators.
    #[must_use]
    pub fn port(&self) -> &Arc<dyn KvStore> {
        &self.port
    }

    /// The codec of new values.
    #[must_use]
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// Reads a value; `None` when the key is absent.
    pub async fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Error> {
        let found = self.port.get_bytes(&[key]).await?;
        typed(key, found.into_iter().next().flatten())
    }

    /// Reads several values in the order of their keys, in one round trip.
    pub async fn get_many<T: DeserializeOwned>(
        &self,
        keys: &[&str],
    ) -> Result<Vec<Option<T>>, Error> {
        let found = self.port.get_bytes(keys).await?;
        keys.iter()
            .zip(found)
            .map(|(key, bytes)| typed(key, bytes))
            .collect()
    }

    /// Stores a value without a time to live; one that the key had is removed.
    pub async fn set<T: Serialize + ?Sized>(&self, key: &str, value: &T) -> Result<(), Error> {
        let bytes = self.encode(key, value)?;
        self.port.set_bytes(vec![(key, bytes)], None).await
    }

    /// Stores a value with a time to live of at least one millisecond.
    pub async fn set_with_ttl<T: Serialize + ?Sized>(
        &self,
        key: &str,
        value: &T,
        ttl: Duration,
    ) -> Result<(), Error> {
        let bytes = self.encode(key, value)?;
        self.port.set_bytes(vec![(key, bytes)], Some(ttl)).await
    }

    /// Stores several values in one round trip. Each is atomic by itself; all together are not.
    pub async fn set_many<T: Serialize>(
        &self,
        entries: &[(&str, T)],
        ttl: Option<Duration>,
    ) -> Result<(), Error> {
        let entries = entries
            .iter()
            .map(|(key, value)| Ok((*key, self.encode(key, value)?)))
            .collect::<Result<Vec<_>, Error>>()?;
        self.port.set_bytes(entries, ttl).await
    }

    /// Removes a key, and says whether it was there. Removing an absent key succeeds.
    pub async fn delete(&self, key: &str) -> Result<bool, Error> {
        self.port.delete(key).await
    }

    /// Whether the key is there.
    pub async fn exists(&self, key: &str) -> Result<bool, Error> {
        self.port.exists(key).await
    }

    /// Adds to an integer, which counts as 0 where the key is absent, and returns the sum.
    pub async fn incr(&self, key: &str, by: i64) -> Result<i64, Error> {
        self.port.incr(key, by).await
    }

    /// Replaces a value that equals `expected` (`None`: the key is absent), and says whether it did.
    ///
    /// Linearizable on one primary. Values are compared as `T`: a value that another program
    /// stored in another codec, key order or form is equal when it decodes to an equal `T`. A
    /// whole number for a float, a `null` for an omitted option, and numbers written as the
    /// keys of a map are such forms.
    pub async fn cas<T: Serialize + DeserializeOwned>(
        &self,
        key: &str,
        expected: Option<&T>,
        new: &T,
        ttl: Option<Duration>,
    ) -> Result<bool, Error> {
        let wanted = expected.map(|value| self.encode(key, value)).transpose()?;
        let new = self.encode(key, new)?;
        let mut stored_as = wanted.clone();
        loop {
            let cas = self.port.cas_bytes(key, stored_as, new.clone(), ttl);
            match cas.await? {
                CasResult::Swapped => return Ok(true),
                CasResult::Differs(Some(other))
                    if wanted.is_some() && canonical::<T>(self.codec, &other) == wanted =>
                {
                    stored_as = Some(other);
                }
                CasResult::Differs(_) => return Ok(false),
            }
        }
    }

    /// Reads, changes and writes back until no one else wrote in between; returns what was written.
    ///
    /// `change` gets `None` when the key is absent, and it can run several times. The key does not
    /// keep the time to live that it had: it gets `ttl`, or none.
    pub async fn update<T, F>(
        &self,
        key: &str,
        ttl: Option<Duration>,
        mut change: F,
    ) -> Result<T, Error>
    where
        T: Serialize + DeserializeOwned,
        F: FnMut(Option<T>) -> T,
    {
        let mut seen = self
            .port
            .get_bytes(&[key])
            .await?
            .into_iter()
            .next()
            .flatten();
        loop {
            let new = change(typed(key, seen.clone())?);
            let bytes = self.encode(key, &new)?;
            match self.port.cas_bytes(key, seen, bytes, ttl).await? {
                CasResult::Swapped => return Ok(new),
                CasResult::Differs(current) => seen = current,
            }
        }
    }

    pub(crate) fn encode<T: Serialize + ?Sized>(
        &self,
        key: &str,
        value: &T,
    ) -> Result<Bytes, Error> {
        value::encode(self.codec, value).map_err(|e| e.on(key))
    }
}

fn typed<T: DeserializeOwned>(key: &str, bytes: Option<Bytes>) -> Result<Option<T>, Error> {
    bytes
        .map(|bytes| value::decode(&bytes).map_err(|e| e.on(key)))
        .transpose()
}

/// A stored value in the form that this store gives an equal `T`; `None` where it is not a `T`.
fn canonical<T: Serialize + DeserializeOwned>(codec: Codec, stored: &Bytes) -> Option<Bytes> {
    let value: T = value::decode(stored).ok()?;
    value::encode(codec, &value).ok()
}
