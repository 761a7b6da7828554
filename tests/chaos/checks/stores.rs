//! Key-value stores that are broken on purpose, and clients that show it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use redstart::{
    Error, Kv,
    ports::{BoxFuture, CasResult, ClaimResult, KvStore},
};

use crate::history::{Claimed, Event, Journal, Op, Told};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum StoreFlaw {
    Sound,
    /// Compares, and sets a moment later.
    ComparesThenSets,
    /// Completes a claim for any caller.
    AsksNoToken,
}

#[derive(Debug)]
pub(crate) struct BrokenKv {
    pub(crate) inner: Arc<dyn KvStore>,
    pub(crate) flaw: StoreFlaw,
}

impl KvStore for BrokenKv {
    fn get_bytes<'a>(
        &'a self,
        keys: &'a [&'a str],
    ) -> BoxFuture<'a, Result<Vec<Option<Bytes>>, Error>> {
        self.inner.get_bytes(keys)
    }

    fn set_bytes<'a>(
        &'a self,
        entries: Vec<(&'a str, Bytes)>,
        ttl: Option<Duration>,
    ) -> BoxFuture<'a, Result<(), Error>> {
        self.inner.set_bytes(entries, ttl)
    }

    fn insert_bytes<'a>(
        &'a self,
        key: &'a str,
        value: Bytes,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        self.inner.insert_bytes(key, value, ttl)
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<bool, Error>> {
        self.inner.delete(key)
    }

    fn exists<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<bool, Error>> {
        self.inner.exists(key)
    }

    fn incr<'a>(&'a self, key: &'a str, by: i64) -> BoxFuture<'a, Result<i64, Error>> {
        self.inner.incr(key, by)
    }

    fn cas_bytes<'a>(
        &'a self,
        key: &'a str,
        expected: Option<Bytes>,
        new: Bytes,
        ttl: Option<Duration>,
    ) -> BoxFuture<'a, Result<CasResult, Error>> {
        if self.flaw != StoreFlaw::ComparesThenSets {
            return self.inner.cas_bytes(key, expected, new, ttl);
        }
        Box::pin(async move {
            let found = self.inner.get_bytes(&[key]).await?.pop().flatten();
            if found != expected {
                return Ok(CasResult::Differs(found));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
            self.inner.set_bytes(vec![(key, new)], ttl).await?;
            Ok(CasResult::Swapped)
        })
    }

    fn claim<'a>(
        &'a self,
        key: &'a str,
        token: &'a str,
        lease: Duration,
    ) -> BoxFuture<'a, Result<ClaimResult, Error>> {
        self.inner.claim(key, token, lease)
    }

    fn extend_claim<'a>(
        &'a self,
        key: &'a str,
        token: &'a str,
        lease: Duration,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        self.inner.extend_claim(key, token, lease)
    }

    fn complete_claim<'a>(
        &'a self,
        key: &'a str,
        token: &'a str,
        result: Bytes,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(async move {
            let completed = self.inner.complete_claim(key, token, result, ttl).await?;
            Ok(completed || self.flaw == StoreFlaw::AsksNoToken)
        })
    }

    fn release_claim<'a>(
        &'a self,
        key: &'a str,
        token: &'a str,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        self.inner.release_claim(key, token)
    }
}

/// Four clients count one register up, each by compare and set.
pub(crate) async fn registers(kv: &Kv, journal: &Journal) {
    let clients = (0..4_u64).map(|client| {
        let (kv, journal) = (kv.clone(), journal.clone());
        tokio::spawn(async move {
            let key = "register".to_owned();
            for round in 0..20_u64 {
                let call = client * 1000 + round * 2;
                let ask = |call, op| Event::Asked {
                    key: key.clone(),
                    call,
                    op,
                };
                let tell = |call, told| Event::Told {
                    key: key.clone(),
                    call,
                    told,
                };
                journal.write(ask(call, Op::Get));
                let expected: Option<u64> = kv.get(&key).await.unwrap();
                journal.write(tell(call, Told::Got(expected)));
                let (call, new) = (call + 1, client * 1000 + round);
                journal.write(ask(call, Op::CasResult { expected, new }));
                let swapped = kv.cas(&key, expected.as_ref(), &new, None).await.unwrap();
                journal.write(tell(call, Told::Swapped(swapped)));
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
}

/// One owner sleeps beyond its lease, another claims, and both complete.
pub(crate) async fn claims(kv: &Kv, journal: &Journal) {
    let key = || "once".to_owned();
    for token in [1_u64, 2] {
        let lease = Duration::from_millis(20);
        let name = token.to_string();
        crate::support::until("the claim to be free", async || {
            let claim = kv.port().claim("once", &name, lease).await.unwrap();
            (claim == ClaimResult::Claimed).then_some(())
        })
        .await;
        let claimed = Claimed::Mine;
        journal.write(Event::Claim {
            key: key(),
            token,
            claimed,
        });
    }
    // The first one wakes up.
    for token in [1, 2] {
        journal.write(Event::Complete { key: key(), token });
        let (name, day) = (token.to_string(), Duration::from_secs(86_400));
        let completed = kv
            .port()
            .complete_claim("once", &name, Bytes::from(name.clone()), day)
            .await;
        let claimed = if completed.unwrap() {
            Claimed::Mine
        } else {
            Claimed::Busy
        };
        journal.write(Event::Completed {
            key: key(),
            token,
            claimed,
        });
    }
}
