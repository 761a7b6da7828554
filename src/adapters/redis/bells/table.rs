//! The keys that ring the bells of groups, and whether the server watches them.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use crate::adapters::redis::net::{Ear, HeardBy};
use crate::store::{Bell, GroupAt, Ring};

/// How long after a ring of entries a reader has read them, as a rule: then the server watches their key again.
pub(super) const READ_WITHIN: Duration = Duration::from_secs(1);
/// The shortest time between two rings of a key that nobody reads for its entries.
pub(super) const BETWEEN_RINGS: Duration = Duration::from_millis(20);

#[derive(Default)]
pub(super) struct Table {
    pub(super) groups: HashMap<GroupAt, Listed>,
    pub(super) by_key: HashMap<Vec<u8>, Key>,
    /// Which connection hears a slot, as last told.
    pub(super) connection: Option<HeardBy>,
    /// The keys that the server is asked to watch again, by the time of the question. The number tells keys
    /// of one time apart.
    pub(super) to_watch: BTreeMap<(Instant, u64), Vec<u8>>,
    pub(super) last: u64,
}

/// A key of groups.
pub(super) struct Key {
    pub(super) bells: Vec<Weak<Bell>>,
    pub(super) ring: Ring,
    pub(super) slot: u16,
    /// `None` for a key that somebody else tells of.
    pub(super) watched: Option<Arc<Watched>>,
    /// The time of the first ring since the server last watched it.
    pub(super) rung: Instant,
    /// Whether a key that is read waits for its time to be watched again.
    pub(super) is_queued: bool,
    /// When it last rang after the server was asked to watch it.
    pub(super) asked: Option<Instant>,
}

/// Whether the server watches a key.
#[derive(Debug, Default)]
pub(in crate::adapters::redis) struct Watched {
    /// How often the server has told of a change.
    pub(super) told: AtomicU64,
    /// How often it had when it last began to watch the key.
    told_before: AtomicU64,
}

impl Watched {
    /// Read this before a read that lets the server watch the key.
    pub(in crate::adapters::redis) fn told(&self) -> u64 {
        self.told.load(Ordering::Acquire)
    }

    pub(in crate::adapters::redis) fn is_watched(&self) -> bool {
        self.told() == self.told_before.load(Ordering::Acquire)
    }

    /// Notes that the server watches the key since it had told so often.
    pub(in crate::adapters::redis) fn note(&self, told: u64) {
        self.told_before.fetch_max(told, Ordering::AcqRel);
    }
}

impl Key {
    /// Whether readers look at it after a ring, which lets the server watch it again.
    pub(super) fn is_read(&self) -> bool {
        matches!(self.ring, Ring::Entries | Ring::Redeliveries)
    }

    pub(super) fn ring(&self) {
        for bell in self.bells.iter().filter_map(Weak::upgrade) {
            bell.ring(self.ring);
        }
    }
}

impl Table {
    pub(super) fn ear(&self, slot: u16) -> Option<Ear> {
        self.connection.as_ref().and_then(|of| of(slot))
    }

    /// Returns whether no key is due earlier.
    pub(super) fn watch_at(&mut self, at: Instant, key: &[u8]) -> bool {
        self.last += 1;
        self.to_watch.insert((at, self.last), key.to_vec());
        let first = self.to_watch.first_key_value();
        first.is_some_and(|((_, number), _)| *number == self.last)
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("groups", &self.groups.len())
            .finish_non_exhaustive()
    }
}

/// A group's bell.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) bell: Weak<Bell>,
    pub(super) slot: u16,
    pub(super) keys: Vec<Vec<u8>>,
    /// The number of the connection that hears its keys or was asked to, or 0.
    pub(super) heard_by: u64,
}
