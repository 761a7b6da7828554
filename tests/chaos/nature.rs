//! How the handler treats a message: its topic and number decide, so that every process agrees.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The topic that all consumers share.
pub(crate) const ORDERS: &str = "orders";
/// The topic whose consumer has one handler.
pub(crate) const ORDERED: &str = "ordered";
/// The topic with messages that end the process of their handler.
pub(crate) const TOXIC: &str = "toxic";

/// The group that can own the partitions of its topic.
pub(crate) const OWNED: (&str, &str) = (ORDERS, "audit");

/// Marks the number of a poison message.
const POISON: u64 = 1 << 60;

/// The number of a poison message, from a number that no other message has.
pub(crate) const fn poison(n: u64) -> u64 {
    n | POISON
}

/// Marks the number of a message that its publisher asked no replica to have.
const ACCEPTED: u64 = 1 << 59;

pub(crate) const fn that_may_be_lost(n: u64) -> u64 {
    n | ACCEPTED
}

pub(crate) const fn may_be_lost(n: u64) -> bool {
    n & ACCEPTED != 0
}

/// The key of a message. One in four has none; the others share some hundred, so that messages of a key meet.
pub(crate) fn key(n: u64) -> Option<String> {
    let mixed = mixed(n) >> 16;
    (!mixed.is_multiple_of(4)).then(|| format!("customer-{}", mixed % 499))
}

/// A message's payload.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Message {
    pub(crate) n: u64,
    pub(crate) filling: String,
}

impl Message {
    pub(crate) fn new(n: u64) -> Self {
        // Of some 100 to 400 bytes, and now and then a large one.
        let size = match mixed(n) % 200 {
            0 => 60_000,
            small => 50 + small as usize * 2,
        };
        Self {
            n,
            filling: "x".repeat(size),
        }
    }
}

/// What handling a message is like.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Nature {
    Plain,
    /// Takes its time.
    Slow(Duration),
    /// Fails so many times.
    Flaky(u32),
    /// Panics the first time.
    Explosive,
    /// Is snoozed once.
    Sleepy,
    /// Hangs until its delivery is cancelled, and so long at most.
    Hanging(Duration),
    /// Fails until the cause is fixed, and so becomes a dead letter.
    Curable,
    /// Is rejected until the cause is fixed.
    Refused,
    /// Always fails.
    Hopeless,
    /// Ends the process of its handler.
    Poison,
}

impl Nature {
    pub(crate) fn of(topic: &str, n: u64) -> Self {
        if n & POISON != 0 {
            return Self::Poison;
        }
        let mixed = mixed(n);
        let (kind, size) = (mixed % 100, mixed >> 32);
        let millis = Duration::from_millis;
        match (topic, kind) {
            // Order is checked on a topic without redeliveries.
            (ORDERED, 0..=2) => Self::Slow(millis(1 + size % 20)),
            (ORDERED, _) => Self::Plain,
            // The neighbours of poison messages: some are in hand whenever one ends the process.
            (TOXIC, 0..=59) => Self::Slow(millis(100 + size % 500)),
            (TOXIC, 60..=63) => Self::Flaky(1),
            (TOXIC, _) => Self::Plain,
            (_, 0..=2) => Self::Slow(millis(20 + size % 400)),
            (_, 3..=6) => Self::Flaky(1 + size as u32 % 2),
            (_, 7) => Self::Explosive,
            (_, 8..=9) => Self::Sleepy,
            (_, 10..=11) => Self::Curable,
            (_, 12) => Self::Refused,
            (_, 13) => Self::Hopeless,
            (_, 14) if size.is_multiple_of(3) => Self::Hanging(millis(2000 + size % 3000)),
            _ => Self::Plain,
        }
    }

    /// Whether the message may become a dead letter.
    pub(crate) fn may_die(self) -> bool {
        let mortal = [Self::Curable, Self::Refused, Self::Hopeless, Self::Poison];
        mortal.contains(&self)
    }

    /// Whether another attempt can succeed once the cause is fixed.
    pub(crate) fn may_recover(self) -> bool {
        !matches!(self, Self::Hopeless | Self::Poison)
    }
}

/// The finalizer of SplitMix64.
pub(crate) fn mixed(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}
