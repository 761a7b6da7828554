//! The key-value store in memory, byte for byte what the Redis adapter would hold.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;

use super::adapter::{MemoryAdapter, turn};
use crate::domain::{BoxFuture, Error, ErrorKind, ttl_millis};
use crate::store::{CasResult, ClaimResult, Values, check_key};

/// What a claim begins with; the owner's token follows. No value can begin so.
const CLAIM: &[u8] = b"\xC1\xC1c";
/// What a begun claim begins with; the end of its lease in milliseconds since 1970 and the time to
/// live of the mark, both in sixteen digits, and the owner's token follow.
const BEGUN: &[u8] = b"\xC1\xC1b";
/// The mark of completed work that is not a claim: `true`, as JSON and as MessagePack.
const TRUE: [&[u8]; 2] = [b"true", b"\xC1\xC3"];
/// What a completed claim begins with; the length of the owner's token in four digits, the token
/// and the stored result follow.
const DONE: &[u8] = b"\xC1\xC1d";
/// Below this many values, expired ones are only removed when they are met.
const SWEEP: usize = 1024;

fn done(token: &str, result: &[u8]) -> Bytes {
    let owner = format!("{:04}{token}", token.len());
    [DONE, owner.as_bytes(), result].concat().into()
}

/// The result in what follows the mark of a completed claim.
fn result(rest: &[u8]) -> Option<Bytes> {
    let (length, rest) = rest.split_at_checked(4)?;
    let length: usize = std::str::from_utf8(length).ok()?.parse().ok()?;
    rest.get(length..).map(Bytes::copy_from_slice)
}

/// A claim that was marked as begun.
struct Begun<'a> {
    lease_ends: u64,
    ttl: u64,
    token: &'a [u8],
}

impl<'a> Begun<'a> {
    fn of(value: &'a [u8]) -> Option<Self> {
        let (lease_ends, rest) = value.strip_prefix(BEGUN)?.split_at_checked(16)?;
        let (ttl, token) = rest.split_at_checked(16)?;
        let number = |digits| std::str::from_utf8(digits).ok()?.parse().ok();
        Some(Self {
            lease_ends: number(lease_ends)?,
            ttl: number(ttl)?,
            token,
        })
    }
}

fn marked(mark: &[u8], rest: &[u8]) -> Bytes {
    [mark, rest].concat().into()
}

/// The values of one namespace.
#[derive(Debug, Default)]
pub(super) struct Table {
    values: HashMap<String, Value>,
    sweep_at: usize,
}

#[derive(Debug)]
struct Value {
    bytes: Bytes,
    /// In milliseconds since 1970.
    expires: Option<u64>,
}

impl Value {
    fn lives(&self, now: u64) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

/// The values at a moment.
struct Now<'a> {
    table: &'a mut Table,
    now: u64,
}

impl Now<'_> {
    fn get(&self, key: &str) -> Option<Bytes> {
        let value = self.table.values.get(key)?;
        value.lives(self.now).then(|| value.bytes.clone())
    }

    /// Stores a value; a `ttl` of 0 is for ever.
    fn set(&mut self, key: &str, bytes: Bytes, ttl: u64) {
        let expires = (ttl > 0).then(|| self.now.saturating_add(ttl));
        let value = Value { bytes, expires };
        self.table.values.insert(key.to_owned(), value);
        self.sweep();
    }

    /// Stores a value and leaves its time to live as it is.
    fn replace(&mut self, key: &str, bytes: Bytes) {
        match self.table.values.get_mut(key) {
            Some(value) if value.lives(self.now) => value.bytes = bytes,
            _ => self.set(key, bytes, 0),
        }
    }

    fn expire(&mut self, key: &str, ttl: u64) {
        if let Some(value) = self.table.values.get_mut(key) {
            value.expires = Some(self.now.saturating_add(ttl));
        }
    }

    /// Marks a claim as begun, with a lease from now on.
    fn begin(&mut self, key: &str, token: &str, lease: u64, ttl: u64) {
        // Longer times have more than sixteen digits.
        let (lease, ttl) = (
            lease.min(1_000_000_000_000_000),
            ttl.min(1_000_000_000_000_000),
        );
        let lease_ends = self.now.saturating_add(lease);
        let owner = format!("{lease_ends:016}{ttl:016}{token}");
        self.set(key, marked(BEGUN, owner.as_bytes()), ttl.max(lease));
    }

    /// Whether the token holds the claim on a key, begun or not.
    fn holds(&self, key: &str, token: &str) -> bool {
        self.get(key).is_some_and(|value| {
            value == marked(CLAIM, token.as_bytes())
                || Begun::of(&value).is_some_and(|begun| begun.token == token.as_bytes())
        })
    }

    fn remove(&mut self, key: &str) -> bool {
        let removed = self.table.values.remove(key);
        removed.is_some_and(|value| value.lives(self.now))
    }

    /// Removes what has expired and nobody asks for, each time their number has doubled.
    fn sweep(&mut self) {
        let table = &mut *self.table;
        if table.values.len() > table.sweep_at.max(SWEEP) {
            table.values.retain(|_, value| value.lives(self.now));
            table.sweep_at = table.values.len() * 2;
        }
    }
}

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

/// What counts as an integer: plain decimal text, as `INCR` has it.
fn integer(bytes: &[u8]) -> Option<i64> {
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

    fn exists<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<bool, Error>> {
        self.on_key("exists", key, None, move |now, _| {
            Ok(now.get(key).is_some())
        })
    }

    fn incr<'a>(&'a self, key: &'a str, by: i64) -> BoxFuture<'a, Result<i64, Error>> {
        self.on_key("incr", key, None, move |mut now, _| {
            let refuse = |rule: &str| Error::new(ErrorKind::Refused, "incr", rule);
            let held = match now.get(key) {
                Some(bytes) => integer(&bytes).ok_or_else(|| refuse("the value is no integer"))?,
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
                Some(rest) => ClaimResult::Done(result(rest)),
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

    #[tokio::test]
    async fn expired_values_do_not_pile_up() {
        let clock = ManualClock::new(Timestamp::from_millis(0).unwrap());
        let store = MemoryStore::with_clock(clock.clone());
        let store = MemoryAdapter::new(store.shared(), None);
        for n in 0..10_000 {
            let key = format!("seen:{n}");
            let ttl = Duration::from_millis(5);
            store.insert(&key, &Bytes::new(), ttl).await.unwrap();
            clock.advance(Duration::from_millis(1));
        }
        let held = store.with_values(|now| now.table.values.len());
        assert!(held < 2 * SWEEP, "{held}");
    }
}
