//! The backlog limit of one topic: the credit that its publishers spend, and what they have under way.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use metrics::Counter;
use tokio::time::Instant;

use crate::domain::{Topic, TopicSettings};
use crate::store::Partition;

/// How long a credit is valid, in milliseconds. Other processes publish meanwhile.
const CREDIT_LIVES: u64 = 10_000;

/// The backlog limit of one topic.
pub(super) struct Gate {
    pub(super) at: Partition,
    /// The only partition of most topics. A call for it needs no look-up of how many there are.
    first: Partition,
    /// Whether the topic has several partitions, by the settings last read.
    pub(super) is_split: AtomicBool,
    /// Resolved once: looking a counter up by its labels costs more than counting.
    published: Counter,
    pub(super) credit: AtomicU64,
    /// The rest of a credit that has expired. It is spent where the store cannot measure.
    pub(super) expired: AtomicU64,
    /// Messages that are admitted and may not be in the topic yet, where a measurement counts them.
    pub(super) under_way: AtomicU64,
    pub(super) measured: tokio::sync::Mutex<Option<Measured>>,
    /// When the credit expires, in milliseconds since `created`.
    pub(super) expires: AtomicU64,
    created: Instant,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    pub(super) at: Instant,
    pub(super) settings: TopicSettings,
    /// When the settings were read: an operator can change them.
    pub(super) read: Instant,
    pub(super) full: bool,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("credit", &self.credit)
            .field("under_way", &self.under_way)
            .finish_non_exhaustive()
    }
}

impl Gate {
    pub(super) fn new(topic: &Topic) -> Self {
        Self {
            at: Partition::of(topic),
            first: Partition::numbered(topic, 0),
            is_split: AtomicBool::new(false),
            published: metrics::counter!("redstart_published_total", "topic" => topic.to_string()),
            credit: AtomicU64::new(0),
            expired: AtomicU64::new(0),
            under_way: AtomicU64::new(0),
            measured: tokio::sync::Mutex::default(),
            expires: AtomicU64::new(0),
            created: Instant::now(),
        }
    }

    pub(super) fn age(&self) -> u64 {
        u64::try_from(self.created.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Spends up to `wanted` of the credit. Returns how much.
    fn spend(&self, wanted: u64) -> u64 {
        let spent = self
            .credit
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |credit| {
                Some(credit.saturating_sub(wanted))
            });
        // The closure always returns `Some`, so the update succeeds.
        spent.unwrap_or_default().min(wanted)
    }

    /// Cancels the credit if it has expired.
    pub(super) fn expire(&self) {
        if self.age() > self.expires.load(Ordering::Relaxed) {
            let rest = self.credit.swap(0, Ordering::AcqRel);
            self.expired.fetch_max(rest, Ordering::AcqRel);
        }
    }

    /// Grants a credit for its time.
    pub(super) fn grant(&self, credit: u64) {
        self.expires
            .store(self.age() + CREDIT_LIVES, Ordering::Relaxed);
        self.expired.store(0, Ordering::Release);
        self.credit.store(credit, Ordering::Release);
    }
}

/// Permission to append `count` messages. Dropped after the append.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) gate: Arc<Gate>,
    pub(super) count: u64,
}

impl Admitted {
    /// No messages yet.
    pub(super) fn none(gate: Arc<Gate>) -> Self {
        Self { gate, count: 0 }
    }

    /// Where the messages may be appended: the topic as a whole if it has several partitions.
    pub(super) fn at(&self) -> &Partition {
        match self.gate.is_split.load(Ordering::Acquire) {
            true => &self.gate.at,
            false => &self.gate.first,
        }
    }

    /// Counts published messages.
    pub(super) fn count_published(&self, messages: u64) {
        self.gate.published.increment(messages);
    }

    /// Spends credit until `wanted` messages are admitted, or none is left.
    pub(super) fn spend(&mut self, wanted: u64) {
        let spent = self.gate.spend(wanted - self.count);
        self.gate.under_way.fetch_add(spent, Ordering::AcqRel);
        self.count += spent;
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.gate.under_way.fetch_sub(self.count, Ordering::AcqRel);
    }
}
