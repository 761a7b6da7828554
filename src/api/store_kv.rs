//! The key-value port on the values of any store.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::api::{Kv, KvStore};
use crate::domain::{BoxFuture, Error};
use crate::store::{CasResult, ClaimResult, KeyCursor, KeyPage, Peeked, Store};

/// Turns the values of a store into the port that users decorate.
#[derive(Debug)]
pub(crate) struct StoreKv {
    store: Arc<dyn Store>,
}

impl StoreKv {
    /// The key-value store of a store.
    pub(crate) fn of(store: Arc<dyn Store>) -> Kv {
        let port: Arc<dyn KvStore> = Arc::new(Self { store });
        Kv::from(port)
    }
}

impl KvStore for StoreKv {
    fn get_bytes<'a>(
        &'a self,
        keys: &'a [&'a str],
    ) -> BoxFuture<'a, Result<Vec<Option<Bytes>>, Error>> {
        self.store.values().get(keys)
    }

    fn scan_keys<'a>(
        &'a self,
        prefix: &'a str,
        from: Option<&'a KeyCursor>,
        count: usize,
    ) -> BoxFuture<'a, Result<KeyPage, Error>> {
        self.store.values().scan(prefix, from, count)
    }

    fn peek_bytes<'a>(
        &'a self,
        keys: &'a [&'a str],
        most: usize,
    ) -> BoxFuture<'a, Result<Vec<Option<Peeked>>, Error>> {
        self.store.values().peek(keys, most)
    }

    fn set_bytes<'a>(
        &'a self,
        entries: Vec<(&'a str, Bytes)>,
        ttl: Option<Duration>,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move { self.store.values().set(&entries, ttl).await })
    }

    fn insert_bytes<'a>(
        &'a self,
        key: &'a str,
        value: Bytes,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(async move { self.store.values().insert(key, &value, ttl).await })
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<bool, Error>> {
        self.store.values().delete(key)
    }

    fn exists<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<bool, Error>> {
        self.store.values().exists(key)
    }

    fn incr<'a>(&'a self, key: &'a str, by: i64) -> BoxFuture<'a, Result<i64, Error>> {
        self.store.values().incr(key, by)
    }

    fn cas_bytes<'a>(
        &'a self,
        key: &'a str,
        expected: Option<Bytes>,
        new: Bytes,
        ttl: Option<Duration>,
    ) -> BoxFuture<'a, Result<CasResult, Error>> {
        Box::pin(async move {
            let values = self.store.values();
            values.cas(key, expected.as_ref(), &new, ttl).await
        })
    }

    fn claim<'a>(
        &'a self,
        key: &'a str,
        token: &'a str,
        lease: Duration,
    ) -> BoxFuture<'a, Result<ClaimResult, Error>> {
        self.store.values().claim(key, token, lease)
    }

    fn begin_claim<'a>(
        &'a self,
        key: &'a str,
        token: &'a str,
        lease: Duration,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        self.store.values().begin_claim(key, token, lease, ttl)
    }

    fn extend_claim<'a>(
        &'a self,
        key: &'a str,
        token: &'a str,
        lease: Duration,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        self.store.values().extend_claim(key, token, lease)
    }

    fn complete_claim<'a>(
        &'a self,
        key: &'a str,
        token: &'a str,
        result: Bytes,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(async move {
            let values = self.store.values();
            values.complete_claim(key, token, &result, ttl).await
        })
    }

    fn release_claim<'a>(
        &'a self,
        key: &'a str,
        token: &'a str,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        self.store.values().release_claim(key, token)
    }
}
