//! The key-value store.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::domain::BoxFuture;
use crate::domain::{Codec, Error, ErrorKind};
use crate::wire::value;

/// What a compare-and-set found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Cas {
    /// The value was as expected and has been replaced.
    Swapped,
    /// The value differed and is untouched; `None` when the key is absent.
    Differs(Option<Bytes>),
}

/// What a claim found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Claim {
    /// The caller now holds the claim, for the time of its lease.
    Claimed,
    /// Another owner holds it.
    Busy,
    /// It was completed; with the stored result, where one was stored.
    Done(Option<Bytes>),
}

/// A store of values under keys, in bytes; [`KvStoreExt`] speaks of types.
///
/// A key may be any text that is not empty and does not begin with `{`, which is where
/// the bus keeps its own. Times to live are at least one millisecond. Every operation on
/// one key is atomic.
pub trait KvStore: Send + Sync + fmt::Debug {
    /// The codec in which new values are written.
    fn codec(&self) -> Codec;

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
    ) -> BoxFuture<'a, Result<Cas, Error>>;

    /// Claims a key for an owner's token. Claiming again with the same token succeeds.
    fn claim<'a>(
        &'a self,
        key: &'a str,
        token: &'a str,
        lease: Duration,
    ) -> BoxFuture<'a, Result<Claim, Error>>;

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

/// Typed operations on any [`KvStore`].
///
/// # Errors
///
/// Every operation fails with [`Invalid`](crate::ErrorKind::Invalid) for a key that is empty or
/// begins with `{`, and with the kinds of the connection; reading also with
/// [`Decode`](crate::ErrorKind::Decode) when a stored value does not have the shape asked for.
///
/// # Cancel safety
///
/// A dropped future may have done its operation or not, as after a broken connection.
pub trait KvStoreExt: KvStore {
    /// Reads a value, `None` when the key is absent.
    fn get<T: DeserializeOwned>(
        &self,
        key: &str,
    ) -> impl Future<Output = Result<Option<T>, Error>> + Send {
        async move {
            let found = self.get_bytes(&[key]).await?;
            typed(key, found.into_iter().next().flatten())
        }
    }

    /// Reads several values in the order of their keys, in one round trip.
    fn get_many<T: DeserializeOwned>(
        &self,
        keys: &[&str],
    ) -> impl Future<Output = Result<Vec<Option<T>>, Error>> + Send {
        async move {
            let found = self.get_bytes(keys).await?;
            keys.iter()
                .zip(found)
                .map(|(key, bytes)| typed(key, bytes))
                .collect()
        }
    }

    /// Stores a value, with a time to live where one is given.
    fn set<T: Serialize + Sync + ?Sized>(
        &self,
        key: &str,
        value: &T,
        ttl: Option<Duration>,
    ) -> impl Future<Output = Result<(), Error>> + Send {
        async move {
            let bytes = value::encode(self.codec(), value).map_err(|e| e.on(key))?;
            self.set_bytes(vec![(key, bytes)], ttl).await
        }
    }

    /// Stores several values in one round trip; each by itself is atomic, all together are not.
    fn set_many<T: Serialize + Sync>(
        &self,
        entries: &[(&str, T)],
        ttl: Option<Duration>,
    ) -> impl Future<Output = Result<(), Error>> + Send {
        async move {
            let entries = entries
                .iter()
                .map(|(key, value)| {
                    let bytes = value::encode(self.codec(), value).map_err(|e| e.on(*key))?;
                    Ok((*key, bytes))
                })
                .collect::<Result<Vec<_>, Error>>()?;
            self.set_bytes(entries, ttl).await
        }
    }

    /// Replaces a value that equals `expected` (`None`: the key is absent), and says whether it did.
    ///
    /// Linearizable on one primary. Values are compared as values: one that another program
    /// stored in another codec or key order is equal when it decodes to the same.
    fn cas<T: Serialize + Sync>(
        &self,
        key: &str,
        expected: Option<&T>,
        new: &T,
        ttl: Option<Duration>,
    ) -> impl Future<Output = Result<bool, Error>> + Send {
        async move {
            let encode = |value| value::encode(self.codec(), value).map_err(|e: Error| e.on(key));
            let (wanted, new) = (expected.map(encode).transpose()?, encode(new)?);
            let mut stored_as = wanted.clone();
            loop {
                match self
                    .cas_bytes(key, stored_as.clone(), new.clone(), ttl)
                    .await?
                {
                    Cas::Swapped => return Ok(true),
                    Cas::Differs(Some(other))
                        if wanted.is_some() && canonical(self.codec(), &other) == wanted =>
                    {
                        stored_as = Some(other);
                    }
                    Cas::Differs(_) => return Ok(false),
                }
            }
        }
    }

    /// Reads, changes and writes back until no one else wrote in between; returns what was written.
    ///
    /// `change` gets `None` when the key is absent and may run several times. The key keeps
    /// no older time to live: it gets `ttl`, or none.
    fn update<T, F>(
        &self,
        key: &str,
        ttl: Option<Duration>,
        mut change: F,
    ) -> impl Future<Output = Result<T, Error>> + Send
    where
        T: Serialize + DeserializeOwned + Send + Sync,
        F: FnMut(Option<T>) -> T + Send,
    {
        async move {
            let mut seen = self.get_bytes(&[key]).await?.into_iter().next().flatten();
            loop {
                let new = change(typed(key, seen.clone())?);
                let bytes = value::encode(self.codec(), &new).map_err(|e| e.on(key))?;
                match self.cas_bytes(key, seen, bytes, ttl).await? {
                    Cas::Swapped => return Ok(new),
                    Cas::Differs(current) => seen = current,
                }
            }
        }
    }
}

impl<S: KvStore + ?Sized> KvStoreExt for S {}

fn typed<T: DeserializeOwned>(key: &str, bytes: Option<Bytes>) -> Result<Option<T>, Error> {
    bytes
        .map(|bytes| value::decode(&bytes).map_err(|e| e.on(key)))
        .transpose()
}

/// What `stored` would look like had this store written it.
fn canonical(codec: Codec, stored: &Bytes) -> Option<Bytes> {
    let value: serde_json::Value = value::decode(stored).ok()?;
    value::encode(codec, &value).ok()
}
