//! The key-value store, in bytes.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

/// The result of a compare-and-set.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CasResult {
    /// The value was as expected and was replaced.
    Swapped,
    /// The value differs and is unchanged; `None`: the key is absent.
    Differs(Option<Bytes>),
}

/// The result of a claim.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ClaimResult {
    /// The caller holds the claim for the time of its lease.
    Claimed,
    /// Another owner holds the claim.
    Busy,
    /// The claim was completed. Holds the stored result, if there is one.
    Done(Option<Bytes>),
    /// Its owner marked the claim as begun and let the lease end: nobody knows whether the work was
    /// done.
    Begun,
    /// The key holds a value that no claim wrote.
    Value,
}

/// Where a listing of keys continues. The text is the store's own; others pass it on unchanged.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct KeyCursor(String);

impl KeyCursor {
    /// A cursor of a text that a store has made. The store checks it.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A part of a listing of keys.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct KeyPage {
    /// The keys, in no order. No key is twice on one page.
    pub keys: Vec<String>,
    /// Where the listing continues; `None` at its end. A page without keys may have a next one.
    pub next: Option<KeyCursor>,
}

impl KeyPage {
    /// A page of keys, for adapters.
    #[must_use]
    pub fn new(keys: Vec<String>, next: Option<KeyCursor>) -> Self {
        Self { keys, next }
    }
}

/// The beginning of a stored value.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Peeked {
    /// The first bytes of the value.
    pub bytes: Bytes,
    /// The length of the whole value, in bytes.
    pub len: u64,
    /// The time until the value expires, in milliseconds; `None`: never.
    pub expires_in: Option<Duration>,
}

impl Peeked {
    /// The beginning of a value, for adapters.
    #[must_use]
    pub fn new(bytes: Bytes, len: u64, expires_in: Option<Duration>) -> Self {
        Self {
            bytes,
            len,
            expires_in,
        }
    }
}

/// The most keys that one step of a listing asks for.
pub const LONGEST_SCAN: usize = 1000;

role! {
    /// The key-value store, in bytes.
    ///
    /// A key is any text that is not empty and does not begin with `{`; the keys of the bus begin
    /// with it. Times to live are at least one millisecond. Every operation on one key is atomic.
    /// The key routes the call.
    pub trait Values (values, ValuesOp, ValuesAnswer, ValuesCalls) {
        /// Reads the values of several keys, in their order.
        fn get as Get(keys: &'a [&'a str]) -> Vec<Option<Bytes>>;

        /// Stores several values, in their order. Each write is atomic; all together are not.
        fn set as Set(entries: &'a [(&'a str, Bytes)], ttl: Option<Duration>) -> ();

        /// Stores a value if the key is absent. Returns whether it did.
        fn insert as Insert(key: &'a str, value: &'a Bytes, ttl: Duration) -> bool;

        /// Removes a key. Returns whether it existed; removing an absent key succeeds.
        fn delete as Delete(key: &'a str) -> bool;

        /// Takes one step of a listing of the keys that begin with `prefix`, from a cursor on.
        /// `count` is at most [`LONGEST_SCAN`], and says about how many keys of the store the step
        /// looks at: it may find more, fewer or none. Over all steps, the listing has each key
        /// that exists from its first step to its last at least once. The listing leaves out keys
        /// that are not UTF-8. A cursor that did not come from this listing, or that the store's
        /// servers no longer know, is an error.
        fn scan as Scan(prefix: &'a str, from: Option<&'a KeyCursor>, count: usize) -> KeyPage;

        /// Reads the first `most` bytes of several values, their lengths and times to live, in the
        /// order of the keys. The parts of one value may come from two moments.
        fn peek as Peek(keys: &'a [&'a str], most: usize) -> Vec<Option<Peeked>>;

        /// Whether the key exists.
        fn exists as Exists(key: &'a str) -> bool;

        /// Asks, on the connection for values, whether the store takes writes from this user now.
        /// Writes nothing. The error says why not.
        fn try_write as TryWrite() -> ();

        /// Adds to an integer and returns the sum. An absent key counts as 0.
        fn incr as Incr(key: &'a str, by: i64) -> i64;

        /// Replaces the value if it equals `expected`, byte for byte (`None`: if the key is
        /// absent).
        fn cas as Cas(
            key: &'a str, expected: Option<&'a Bytes>, new: &'a Bytes, ttl: Option<Duration>,
        ) -> CasResult;

        /// Removes a key if its value equals `expected`, byte for byte. Returns whether it did.
        fn delete_if as DeleteIf(key: &'a str, expected: &'a Bytes) -> bool;

        /// Claims a key for an owner's token. Claiming again with the same token succeeds.
        fn claim as Claim(key: &'a str, token: &'a str, lease: Duration) -> ClaimResult;

        /// Marks a claim as begun and keeps the mark for `ttl`, beyond the end of the lease. Returns
        /// false if the token no longer holds it.
        fn begin_claim as BeginClaim(
            key: &'a str, token: &'a str, lease: Duration, ttl: Duration,
        ) -> bool;

        /// Extends a claim. Returns false if the token no longer holds it.
        fn extend_claim as ExtendClaim(key: &'a str, token: &'a str, lease: Duration) -> bool;

        /// Turns a claim into a stored result. Writes nothing and returns false if the token no
        /// longer holds it.
        fn complete_claim as CompleteClaim(
            key: &'a str, token: &'a str, result: &'a Bytes, ttl: Duration,
        ) -> bool;

        /// Releases a claim for other owners. Returns false if the token does not hold it.
        fn release_claim as ReleaseClaim(key: &'a str, token: &'a str) -> bool;
    }
}
