//! The key-value store in memory, byte for byte what the Redis adapter would hold.

use std::time::Duration;

use bytes::Bytes;

use super::adapter::{MemoryAdapter, turn};
use super::table::{Begun, CLAIM, DONE, Now, TRUE, done, marked};
use crate::domain::{BoxFuture, Error, ErrorKind, ttl_millis};
use crate::store::{
    CasResult, ClaimResult, KeyCursor, KeyPage, LONGEST_SCAN, Peeked, Values, check_key,
    check_prefix,
};
use crate::wire::value::once_result;

impl MemoryAdapter {
    fn with_values<T>(&self, work: impl FnOnce(Now<'_>) -> T) -> T {
        self.with(|space| {
            work(Now {
                now: self.shared.now(),
                table: &mut space.values,
            })
        })
    }

    fn on_key<'a, T: 'a>(
        &'a self,
        operation: &'static str,
        key: &'a str,
        ttl: Option<Duration>,
        work: impl FnOnce(Now<'_>, u64) -> Result<T, Error> + Send + 'a,
    ) -> BoxFuture<'a, Result<T, Error>> {
        turn(move || {
            let ttl = ttl_millis(operation, ttl).map_err(|e| e.on(key))?;
            check_key(operation, key)?;
            self.with_values(|now| work(now, ttl))
                .map_err(|e| e.on(key))
        })
    }

    /// Does something with a claim that the token holds.
    fn on_claim<'a>(
        &'a self,
        operation: &'static str,
        key: &'a str,
        token: &'a str,
        ttl: Option<Duration>,
        work: impl FnOnce(Now<'_>, u64) + Send + 'a,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        self.on_key(operation, key, ttl, move |now, ttl| {
            let held = now.holds(key, token);
            if held {
                work(now, ttl);
            }
            Ok(held)
        })
    }
}

/// What a cursor begins with; the last key follows.
const AFTER: &str = "after:";

/// What counts as an integer: plain decimal text, as `INCR` has it.
pub(super) fn integer(bytes: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(bytes).ok()?;
    let number: i64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

impl Values for MemoryAdapter {
    fn get<'a>(&'a self, keys: &'a [&'a str]) -> BoxFuture<'a, Result<Vec<Option<Bytes>>, Error>> {
        turn(move || {
            keys.iter().try_for_each(|key| check_key("get", key))?;
            Ok(self.with_values(|now| keys.iter().map(|key| now.get(key)).collect()))
        })
    }

    fn set<'a>(
        &'a self,
        entries: &'a [(&'a str, Bytes)],
        ttl: Option<Duration>,
    ) -> BoxFuture<'a, Result<(), Error>> {
        turn(move || {
            let names: Vec<&str> = entries.iter().map(|(key, _)| *key).collect();
            let ttl = ttl_millis("set", ttl).map_err(|e| e.on(names.join(" ")))?;
            entries
                .iter()
                .try_for_each(|(key, _)| check_key("set", key))?;
            self.with_values(|mut now| {
                for (key, value) in entries {
                    now.set(key, value.clone(), ttl);
                }
            });
            Ok(())
        })
    }

    fn insert<'a>(
        &'a self,
        key: &'a str,
        value: &'a Bytes,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        self.on_key("insert", key, Some(ttl), move |mut now, ttl| {
            let absent = now.get(key).is_none();
            if absent {
                now.set(key, value.clone(), ttl);
            }
            Ok(absent)
        })
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<bool, Error>> {
        self.on_key("delete", key, None, move |mut now, _| Ok(now.remove(key)))
    }

    fn scan<'a>(
        &'a self,
        prefix: &'a str,
        from: Option<&'a KeyCursor>,
        count: usize,
    ) -> BoxFuture<'a, Result<KeyPage, Error>> {
        turn(move || {
            check_prefix("scan", prefix)?;
            // The cursor is the last key of the page before.
            let after = match from.map(|from| from.as_str().strip_prefix(AFTER)) {
                Some(None) => {
                    let rule = "the cursor is not one of this store";
                    return Err(Error::new(ErrorKind::Invalid, "scan", rule));
                }
                Some(after) => after,
                None => None,
            };
            let count = count.clamp(1, LONGEST_SCAN);
            let (keys, more) = self.with_values(|now| now.keys(prefix, after, count));
            let last = keys.last().filter(|_| more);
            let next = last.map(|last| KeyCursor::new(format!("{AFTER}{last}")));
            Ok(KeyPage::new(keys, next))
        })
    }

    fn peek<'a>(
        &'a self,
        keys: &'a [&'a str],
        most: usize,
    ) -> BoxFuture<'a, Result<Vec<Option<Peeked>>, Error>> {
        turn(move || {
            keys.iter().try_for_each(|key| check_key("peek", key))?;
            let peek = |now: &Now<'_>, key: &&str| {
                let (bytes, ttl) = now.get_with_ttl(key)?;
                let len = bytes.len();
                let bytes = bytes.slice(..len.min(most));
                Some(Peeked::new(
                    bytes,
                    len as u64,
                    ttl.map(Duration::from_millis),
                ))
            };
            Ok(self.with_values(|now| keys.iter().map(|key| peek(&now, key)).collect()))
        })
    }

    fn exists<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<bool, Error>> {
        self.on_key("exists", key, None, move |now, _| {
            Ok(now.get(key).is_some())
        })
    }

    fn try_write(&self) -> BoxFuture<'_, Result<(), Error>> {
        turn(|| Ok(()))
    }

    fn incr<'a>(&'a self, key: &'a str, by: i64) -> BoxFuture<'a, Result<i64, Error>> {
        self.on_key("incr", key, None, move |mut now, _| {
            let refuse = |rule: &str| Error::new(ErrorKind::Refused, "incr", rule);
            let held = match now.get(key) {
                Some(bytes) => {
                    integer(&bytes).ok_or_else(|| refuse("the value is not an integer"))?
                }
                None => 0,
            };
            let sum = held
                .checked_add(by)
                .ok_or_else(|| refuse("the sum is out of range"))?;
            now.replace(key, sum.to_string().into());
            Ok(sum)
        })
    }

    fn cas<'a>(
        &'a self,
        key: &'a str,
        expected: Option<&'a Bytes>,
        new: &'a Bytes,
        ttl: Option<Duration>,
    ) -> BoxFuture<'a, Result<CasResult, Error>> {
        self.on_key("cas", key, ttl, move |mut now, ttl| {
            let current = now.get(key);
            if current.as_ref() != expected {
                return Ok(CasResult::Differs(current));
            }
            now.set(key, new.clone(), ttl);
            Ok(CasResult::Swapped)
        })
    }

    fn delete_if<'a>(
        &'a self,
        key: &'a str,
        expected: &'a Bytes,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        self.on_key("delete", key, None, move |mut now, _| {
            Ok(now.get(key).as_ref() == Some(expected) && now.remove(key))
        })
    }

    fn claim<'a>(
        &'a self,
        key: &'a str,
        token: &'a str,
        lease: Duration,
    ) -> BoxFuture<'a, Result<ClaimResult, Error>> {
        self.on_key("claim", key, Some(lease), move |mut now, lease| {
            let own = marked(CLAIM, token.as_bytes());
            let Some(current) = now.get(key) else {
                now.set(key, own, lease);
                return Ok(ClaimResult::Claimed);
            };
            if current == own {
                // The reply to an earlier claim may have been lost on its way.
                now.expire(key, lease);
                return Ok(ClaimResult::Claimed);
            }
            if current.starts_with(CLAIM) {
                return Ok(ClaimResult::Busy);
            }
            if let Some(begun) = Begun::of(&current) {
                let lives = now.now < begun.lease_ends;
                return Ok(if lives {
                    ClaimResult::Busy
                } else {
                    ClaimResult::Begun
                });
            }
            Ok(match current.strip_prefix(DONE) {
                Some(rest) => ClaimResult::Done(once_result(rest)),
                None if TRUE.contains(&&current[..]) => ClaimResult::Done(None),
                None => ClaimResult::Value,
            })
        })
    }

    fn begin_claim<'a>(
        &'a self,
        key: &'a str,
        token: &'a str,
        lease: Duration,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        turn(move || {
            let lease = ttl_millis("begin", Some(lease)).map_err(|e| e.on(key))?;
            let ttl = ttl_millis("begin", Some(ttl)).map_err(|e| e.on(key))?;
            check_key("begin", key)?;
            Ok(self.with_values(|mut now| {
                let held = now.holds(key, token);
                if held {
                    now.begin(key, token, lease, ttl);
                }
                held
            }))
        })
    }

    fn extend_claim<'a>(
        &'a self,
        key: &'a str,
        token: &'a str,
        lease: Duration,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        self.on_claim("extend", key, token, Some(lease), move |mut now, lease| {
            let value = now.get(key).unwrap_or_default();
            match Begun::of(&value) {
                Some(begun) => now.begin(key, token, lease, begun.ttl),
                None => now.expire(key, lease),
            }
        })
    }

    fn complete_claim<'a>(
        &'a self,
        key: &'a str,
        token: &'a str,
        result: &'a Bytes,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        self.on_key("complete", key, Some(ttl), move |mut now, ttl| {
            let (current, done) = (now.get(key), done(token, result));
            if current.as_ref() == Some(&done) {
                // The reply to the same completion was lost on its way. Another owner's, even with
                // the same result, is not this one's.
                return Ok(true);
            }
            let held = now.holds(key, token);
            if held {
                now.set(key, done, ttl);
            }
            Ok(held)
        })
    }

    fn release_claim<'a>(
        &'a self,
        key: &'a str,
        token: &'a str,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        self.on_claim("release", key, token, None, move |mut now, _| {
            now.remove(key);
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::memory::{ManualClock, MemoryStore};
    use crate::domain::Timestamp;

    #[test]
    fn an_integer_is_plain_decimal_text() {
        for (text, number) in [("0", Some(0)), ("-7", Some(-7)), ("07", None), ("+7", None)] {
            assert_eq!(integer(text.as_bytes()), number, "{text}");
        }
        for text in ["", " 1", "1 ", "-0", "9223372036854775808", "x"] {
            assert_eq!(integer(text.as_bytes()), None, "{text:?}");
        }
    }

    #[tokio::test]
    async fn times_to_live_go_by_the_stores_clock_and_a_sum_keeps_its_own() {
        let clock = ManualClock::new(Timestamp::from_millis(0).unwrap());
        let kv = MemoryStore::with_clock(clock.clone()).kv(None);
        let hour = Duration::from_secs(3600);
        kv.set_with_ttl("n", &1, hour).await.unwrap();
        assert_eq!(kv.incr("n", 1).await.unwrap(), 2);
        clock.advance(hour - Duration::from_millis(1));
        assert!(kv.exists("n").await.unwrap());
        clock.advance(Duration::from_millis(1));
        assert!(!kv.exists("n").await.unwrap());
        assert!(!kv.delete("n").await.unwrap());
        assert_eq!(kv.incr("n", 5).await.unwrap(), 5);
        clock.advance(hour);
        assert_eq!(kv.get::<i64>("n").await.unwrap(), Some(5));
    }
}
