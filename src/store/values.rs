//! The key-value store, in bytes.

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
