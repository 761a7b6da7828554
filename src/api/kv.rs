//! The key-value store.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::domain::{BoxFuture, Codec, Error, ErrorKind, Read};
use crate::store::{CasResult, ClaimResult, KeyCursor, KeyPage, LONGEST_SCAN, Peeked};
use crate::wire::value;

/// How long one page of a listing of keys takes.
const LISTING: Duration = Duration::from_millis(300);

/// The object-safe port behind a [`Kv`], in bytes, for decorators.
///
/// A key is any text that is not empty and does not begin with `{`; the
/// keys of the bus begin with it. Times to live are at least one millisecond. Every operation on
/// one key is atomic.
pub trait KvStore: Send + Sync + fmt::Debug {
    /// Reads the values of several keys, in their order.
    fn get_bytes<'a>(
        &'a self,
        keys: &'a [&'a str],
    ) -> BoxFuture<'a, Result<Vec<Option<Bytes>>, Error>>;

    /// Takes one step of a listing of the keys that begin with `prefix`, from a cursor on. `count`
    /// says about how many keys of the store the step looks at: it may find more, fewer or none.
    /// Over all steps, the listing has each key that exists from its first step to its last at
    /// least once. The listing leaves out keys that are not UTF-8. A cursor that did not come from this
    /// listing, or that the store's servers no longer know, is an error.
    fn scan_keys<'a>(
        &'a self,
        prefix: &'a str,
        from: Option<&'a KeyCursor>,
        count: usize,
    ) -> BoxFuture<'a, Result<KeyPage, Error>> {
        let _ = (from, count);
        let rule = "this decorator of the store does not forward `scan_keys`";
        let error = Error::new(ErrorKind::Unsupported, "scan", rule).on(prefix);
        Box::pin(std::future::ready(Err(error)))
    }

    /// Reads the first `most` bytes of several values, their lengths and times to live, in the order
    /// of the keys. The parts of one value may come from two moments.
    fn peek_bytes<'a>(
        &'a self,
        keys: &'a [&'a str],
        most: usize,
    ) -> BoxFuture<'a, Result<Vec<Option<Peeked>>, Error>> {
        let _ = most;
        let rule = "this decorator of the store does not forward `peek_bytes`";
        let error = Error::new(ErrorKind::Unsupported, "peek", rule).on(keys.join(" "));
        Box::pin(std::future::ready(Err(error)))
    }

    /// Stores several values, in their order. Each write is atomic; all together are not.
    fn set_bytes<'a>(
        &'a self,
        entries: Vec<(&'a str, Bytes)>,
        ttl: Option<Duration>,
    ) -> BoxFuture<'a, Result<(), Error>>;

    /// Stores a value if the key is absent. Returns whether it did.
    fn insert_bytes<'a>(
        &'a self,
        key: &'a str,
        value: Bytes,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<bool, Error>>;

    /// Removes a key. Returns whether it existed; removing an absent key succeeds.
    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<bool, Error>>;

    /// Whether the key exists.
    fn exists<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<bool, Error>>;

    /// Adds to an integer and returns the sum. An absent key counts as 0.
    fn incr<'a>(&'a self, key: &'a str, by: i64) -> BoxFuture<'a, Result<i64, Error>>;

    /// Replaces the value if it equals `expected`, byte for byte (`None`: if the key is absent).
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

    /// Marks a claim as begun and keeps the mark for `ttl`, beyond the end of the lease. Returns false
    /// if the token no longer holds it.
    fn begin_claim<'a>(
        &'a self,
        key: &'a str,
        token: &'a str,
        lease: Duration,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        let _ = (token, lease, ttl);
        // Refusing is safe: the work has not begun.
        let rule = "this decorator of the store does not forward `begin_claim`";
        let error = Error::new(ErrorKind::Unsupported, "begin", rule).on(key);
        Box::pin(std::future::ready(Err(error)))
    }

    /// Extends a claim. Returns false if the token no longer holds it.
    fn extend_claim<'a>(
        &'a self,
        key: &'a str,
        token: &'a str,
        lease: Duration,
    ) -> BoxFuture<'a, Result<bool, Error>>;

    /// Turns a claim into a stored result. Writes nothing and returns false if the
    /// token no longer holds it.
    fn complete_claim<'a>(
        &'a self,
        key: &'a str,
        token: &'a str,
        result: Bytes,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<bool, Error>>;

    /// Releases a claim for other owners. Returns false if the token does not hold it.
    fn release_claim<'a>(
        &'a self,
        key: &'a str,
        token: &'a str,
    ) -> BoxFuture<'a, Result<bool, Error>>;
}

/// The key-value store. Cheap to clone.
///
/// A `Kv` wraps the object-safe [`KvStore`] and a codec. To add behaviour to every call, implement
/// `KvStore` around [`port`](Self::port) and build a `Kv` from it.
///
/// # Errors
///
/// | Kind | What it means | Done? |
/// |---|---|---|
/// | [`Invalid`](crate::ErrorKind::Invalid) | the key is empty or begins with `{`, or the time to live is out of bounds | no |
/// | [`Encode`](crate::ErrorKind::Encode) | the value cannot be encoded | no |
/// | [`Decode`](crate::ErrorKind::Decode) | a stored value does not have the shape of `T` | read only |
/// | [`Refused`](crate::ErrorKind::Refused) | the stored value is not an integer, or the server refuses | no |
/// | [`Unavailable`](crate::ErrorKind::Unavailable) | the server could not be reached | no |
/// | [`OutcomeUnknown`](crate::ErrorKind::OutcomeUnknown) | the connection failed after the request was sent; for [`set_many`](Self::set_many) also: the value of the key that the error names failed, and others may be written | maybe |
///
/// # Cancel safety
///
/// After its future is dropped an operation may or may not have been done.
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
    /// Sets the codec of new values; by default MessagePack. Reads accept both codecs.
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

    /// Reads a value; `None` if the key is absent.
    pub async fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Error> {
        let found = self.port.get_bytes(&[key]).await?;
        typed(key, found.into_iter().next().flatten())
    }

    /// Reads the value of a key together with its stored bytes, for
    /// [`Effects::replace`](crate::Effects::replace) and
    /// [`Effects::unchanged`](crate::Effects::unchanged).
    ///
    /// # Errors
    ///
    /// As for [`get`](Self::get).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn read<T: DeserializeOwned>(&self, key: &str) -> Result<Read<T>, Error> {
        let found = self.port.get_bytes(&[key]).await?;
        let seen = found.into_iter().next().flatten();
        let value = typed(key, seen.clone())?;
        Ok(Read::new(key, seen, value))
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

    /// Lists about `count` keys that begin with `prefix`, in no order, from a cursor on. An empty
    /// prefix lists all keys.
    ///
    /// A page may have more keys than `count`, or fewer: it ends with the listing, or once the
    /// search has taken 300 milliseconds. [`KeyPage::next`] then continues the listing, in this or in
    /// another process. Over all its pages, a listing has each key that exists from its beginning to
    /// its end at least once. A key that is written or removed meanwhile may be missing. A key may
    /// occur on two pages, and never twice on one.
    ///
    /// On Redis this runs `SCAN`: one page costs up to 1,000 keys of the whole server for each
    /// command, other namespaces and applications included. It is for people who look around, not for
    /// a service's daily work. The user needs the right to run `SCAN`, which no shipped role has; the
    /// guide [security](crate::docs::security) says why. In a cluster the listing visits each
    /// primary. Slots that move and servers that restart during a listing can hide keys from it.
    ///
    /// # Errors
    ///
    /// [`Invalid`](ErrorKind::Invalid) for a prefix that begins with `{`, for a cursor of another
    /// store, and for one from before a failover: begin the listing again.
    /// [`Refused`](ErrorKind::Refused) if the user may not run `SCAN`.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn keys(
        &self,
        prefix: &str,
        from: Option<&KeyCursor>,
        count: usize,
    ) -> Result<KeyPage, Error> {
        let began = Instant::now();
        let (mut from, mut seen) = (from.cloned(), HashSet::new());
        let mut page = KeyPage::default();
        // A step that finds nothing is followed by a longer one, up to the bound.
        let mut step = count.clamp(10, LONGEST_SCAN);
        loop {
            let found = self.port.scan_keys(prefix, from.as_ref(), step).await?;
            if found.keys.is_empty() {
                step = (step * 2).min(LONGEST_SCAN);
            }
            page.keys.extend(
                found
                    .keys
                    .into_iter()
                    .filter(|key| seen.insert(key.clone())),
            );
            from = found.next;
            let is_done = from.is_none() || page.keys.len() >= count.max(1);
            if is_done || began.elapsed() >= LISTING {
                page.next = from;
                return Ok(page);
            }
        }
    }

    /// Stores a value without a time to live, and removes the one that the key had.
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

    /// Removes a key. Returns whether it existed; removing an absent key succeeds.
    pub async fn delete(&self, key: &str) -> Result<bool, Error> {
        self.port.delete(key).await
    }

    /// Whether the key exists.
    pub async fn exists(&self, key: &str) -> Result<bool, Error> {
        self.port.exists(key).await
    }

    /// Adds to an integer and returns the sum. An absent key counts as 0.
    pub async fn incr(&self, key: &str, by: i64) -> Result<i64, Error> {
        self.port.incr(key, by).await
    }

    /// Replaces the value if it equals `expected` (`None`: if the key is absent). Returns whether it
    /// did.
    ///
    /// Linearizable on one primary. Compares values as `T`, so a value that another program stored in
    /// another codec, key order or form can be equal. Such forms are a whole number for a float, a
    /// `null` for an omitted option, and numbers written as the keys of a map.
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

    /// Reads the value, changes it and writes it back, and repeats that until no other write came in
    /// between. Returns the written value.
    ///
    /// `change` gets `None` if the key is absent, and can run several times. The key gets `ttl`, or
    /// no time to live; it does not keep the one that it had.
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
        let mut current = self
            .port
            .get_bytes(&[key])
            .await?
            .into_iter()
            .next()
            .flatten();
        loop {
            let new = change(typed(key, current.clone())?);
            let bytes = self.encode(key, &new)?;
            match self.port.cas_bytes(key, current, bytes, ttl).await? {
                CasResult::Swapped => return Ok(new),
                CasResult::Differs(found) => current = found,
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

/// Encodes a stored value again, in the canonical form of this store; `None` if it is not a `T`.
fn canonical<T: Serialize + DeserializeOwned>(codec: Codec, stored: &Bytes) -> Option<Bytes> {
    let value: T = value::decode(stored).ok()?;
    value::encode(codec, &value).ok()
}
