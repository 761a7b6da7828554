//! The values of a namespace at a moment, byte for byte as the Redis adapter holds them.

use std::collections::{BinaryHeap, HashMap};

use bytes::Bytes;

/// What a claim begins with; the owner's token follows. No value can begin so.
pub(super) const CLAIM: &[u8] = b"\xC1\xC1c";
/// What a begun claim begins with; the end of its lease in milliseconds since 1970 and the time to
/// live of the mark, both in sixteen digits, and the owner's token follow.
pub(super) const BEGUN: &[u8] = b"\xC1\xC1b";
/// The mark of completed work that is not a claim: `true`, as JSON and as MessagePack.
pub(super) const TRUE: [&[u8]; 2] = [b"true", b"\xC1\xC3"];
/// What a completed claim begins with; the length of the owner's token in four digits, the token
/// and the stored result follow.
pub(super) const DONE: &[u8] = b"\xC1\xC1d";
/// Below this many values, expired ones are only removed when they are met.
const SWEEP: usize = 1024;

pub(super) fn done(token: &str, result: &[u8]) -> Bytes {
    let owner = format!("{:04}{token}", token.len());
    [DONE, owner.as_bytes(), result].concat().into()
}

/// A claim that was marked as begun.
pub(super) struct Begun<'a> {
    pub(super) lease_ends: u64,
    pub(super) ttl: u64,
    pub(super) token: &'a [u8],
}

impl<'a> Begun<'a> {
    pub(super) fn of(value: &'a [u8]) -> Option<Self> {
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

pub(super) fn marked(mark: &[u8], rest: &[u8]) -> Bytes {
    [mark, rest].concat().into()
}

/// The values of one namespace.
#[derive(Debug, Default)]
pub(super) struct Table {
    values: HashMap<String, Value>,
    sweep_at: usize,
}

#[derive(Debug)]
pub(super) struct Value {
    bytes: Bytes,
    /// In milliseconds since 1970.
    expires: Option<u64>,
}

impl Value {
    pub(super) fn lives(&self, now: u64) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

/// The values at a moment.
pub(super) struct Now<'a> {
    pub(super) table: &'a mut Table,
    pub(super) now: u64,
}

impl Now<'_> {
    pub(super) fn get(&self, key: &str) -> Option<Bytes> {
        let value = self.table.values.get(key)?;
        value.lives(self.now).then(|| value.bytes.clone())
    }

    /// A value and the time until it expires, in milliseconds.
    pub(super) fn get_with_ttl(&self, key: &str) -> Option<(Bytes, Option<u64>)> {
        let bytes = self.get(key)?;
        let expires = self.table.values.get(key)?.expires;
        let ttl = expires.map(|expires| expires.saturating_sub(self.now));
        Some((bytes, ttl))
    }

    /// The first `count` keys in their order that begin with `prefix` and come after a key, and
    /// whether there are more.
    pub(super) fn keys(
        &self,
        prefix: &str,
        after: Option<&str>,
        count: usize,
    ) -> (Vec<String>, bool) {
        // A heap of the smallest keys seen so far: its greatest leaves first.
        let mut first = BinaryHeap::with_capacity(count + 1);
        let mut more = false;
        for (key, value) in &self.table.values {
            let is_next = after.is_none_or(|after| key.as_str() > after);
            if is_next && key.starts_with(prefix) && value.lives(self.now) {
                first.push(key.as_str());
                if first.len() > count {
                    first.pop();
                    more = true;
                }
            }
        }
        let keys = first.into_sorted_vec();
        (keys.into_iter().map(str::to_owned).collect(), more)
    }

    /// Stores a value; a `ttl` of 0 is for ever.
    pub(super) fn set(&mut self, key: &str, bytes: Bytes, ttl: u64) {
        let expires = (ttl > 0).then(|| self.now.saturating_add(ttl));
        let value = Value { bytes, expires };
        self.table.values.insert(key.to_owned(), value);
        self.sweep();
    }

    /// Stores a value and leaves its time to live as it is.
    pub(super) fn replace(&mut self, key: &str, bytes: Bytes) {
        match self.table.values.get_mut(key) {
            Some(value) if value.lives(self.now) => value.bytes = bytes,
            _ => self.set(key, bytes, 0),
        }
    }

    pub(super) fn expire(&mut self, key: &str, ttl: u64) {
        if let Some(value) = self.table.values.get_mut(key) {
            value.expires = Some(self.now.saturating_add(ttl));
        }
    }

    /// Marks a claim as begun, with a lease from now on.
    pub(super) fn begin(&mut self, key: &str, token: &str, lease: u64, ttl: u64) {
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
    pub(super) fn holds(&self, key: &str, token: &str) -> bool {
        self.get(key).is_some_and(|value| {
            value == marked(CLAIM, token.as_bytes())
                || Begun::of(&value).is_some_and(|begun| begun.token == token.as_bytes())
        })
    }

    pub(super) fn remove(&mut self, key: &str) -> bool {
        let removed = self.table.values.remove(key);
        removed.is_some_and(|value| value.lives(self.now))
    }

    /// Removes what has expired and nobody asks for, each time their number has doubled.
    pub(super) fn sweep(&mut self) {
        let table = &mut *self.table;
        if table.values.len() > table.sweep_at.max(SWEEP) {
            table.values.retain(|_, value| value.lives(self.now));
            table.sweep_at = table.values.len() * 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expired_values_do_not_pile_up() {
        let mut table = Table::default();
        for now in 0..10_000 {
            let mut at = Now {
                table: &mut table,
                now,
            };
            at.set(&format!("seen:{now}"), Bytes::new(), 5);
        }
        let stored = table.values.len();
        assert!(stored < 2 * SWEEP, "{stored}");
    }
}
