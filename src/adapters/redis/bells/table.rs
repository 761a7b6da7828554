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
    by_key: HashMap<Vec<u8>, Key>,
    /// Which connection hears a slot, as last told.
    pub(super) connection: Option<HeardBy>,
    /// The keys that the server is asked to watch again, by the time of the question. The number tells keys
    /// of one time apart.
    to_watch: BTreeMap<(Instant, u64), Vec<u8>>,
    last: u64,
}

/// A key of groups.
struct Key {
    bells: Vec<Weak<Bell>>,
    ring: Ring,
    slot: u16,
    /// `None` for a key that somebody else tells of.
    watched: Option<Arc<Watched>>,
    /// The time of the first ring since the server last watched it.
    rung: Instant,
    /// Whether a key that is read waits for its time to be watched again.
    is_queued: bool,
    /// When it last rang after the server was asked to watch it.
    asked: Option<Instant>,
}

/// Whether the server watches a key.
#[derive(Debug, Default)]
pub(in crate::adapters::redis) struct Watched {
    /// How often the server has told of a change.
    told: AtomicU64,
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
    fn is_read(&self) -> bool {
        matches!(self.ring, Ring::Entries | Ring::Redeliveries)
    }

    fn ring(&self) {
        for bell in self.bells.iter().filter_map(Weak::upgrade) {
            bell.ring(self.ring);
        }
    }
}

impl Table {
    pub(super) fn ear(&self, slot: u16) -> Option<Ear> {
        self.connection.as_ref().and_then(|of| of(slot))
    }

    /// Adds a bell to a key. Nobody is asked to watch a key that is not to be watched.
    pub(super) fn add(
        &mut self,
        key: Vec<u8>,
        slot: u16,
        (ring, is_watched): (Ring, bool),
        bell: &Arc<Bell>,
    ) {
        let key = self.by_key.entry(key).or_insert_with(|| Key {
            bells: Vec::new(),
            ring,
            slot,
            watched: is_watched.then(Arc::default),
            rung: Instant::now(),
            is_queued: false,
            asked: None,
        });
        key.bells.retain(|bell| bell.strong_count() > 0);
        key.bells.push(Arc::downgrade(bell));
    }

    /// Removes the keys of groups that nobody reads.
    pub(super) fn remove_unused(&mut self) {
        self.by_key.retain(|_, key| {
            key.bells.retain(|bell| bell.strong_count() > 0);
            !key.bells.is_empty()
        });
    }

    pub(super) fn watched(&self, name: &[u8]) -> Option<&Arc<Watched>> {
        self.by_key.get(name)?.watched.as_ref()
    }

    /// Rings for a change. Returns whether a key is now due before all others.
    pub(super) fn rang(&mut self, name: &[u8], now: Instant) -> bool {
        let Some(key) = self.by_key.get(name) else {
            return false;
        };
        let Some(watched) = &key.watched else {
            key.ring();
            return false;
        };
        let was_watched = watched.is_watched();
        watched.told.fetch_add(1, Ordering::AcqRel);
        let is_heard = self.ear(key.slot).is_some();
        let Some(key) = self.by_key.get_mut(name) else {
            return false;
        };
        if !is_heard {
            // The next connection that hears is asked to watch all keys.
            key.ring();
            return false;
        }
        let at = if key.is_read() {
            key.ring();
            if was_watched {
                key.rung = now;
            }
            if std::mem::replace(&mut key.is_queued, true) {
                return false;
            }
            key.rung + READ_WITHIN
        } else {
            // Rings once the server watches it again.
            let rested = key.asked.map(|at| at + BETWEEN_RINGS);
            rested.map_or(now, |at| at.max(now))
        };
        self.watch_at(at, name)
    }

    /// Takes the keys that the server is to be asked about now. Rings for those that no connection hears.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<Due> {
        let later = self.to_watch.split_off(&(now, u64::MAX));
        let names = std::mem::replace(&mut self.to_watch, later).into_values();
        let mut due = Vec::new();
        for name in names {
            let Some(key) = self.by_key.get_mut(&name) else {
                continue;
            };
            let Some(watched) = &key.watched else {
                continue;
            };
            key.is_queued = false;
            if key.is_read() {
                if watched.is_watched() {
                    continue;
                }
                // Somebody has read it, and it has rung again since.
                let at = key.rung + READ_WITHIN;
                if at > now {
                    key.is_queued = true;
                    self.watch_at(at, &name);
                    continue;
                }
            }
            let (slot, told) = (key.slot, watched.told());
            match self.ear(slot) {
                Some(ear) => due.push(Due { name, ear, told }),
                None => self.by_key.get(&name).into_iter().for_each(Key::ring),
            }
        }
        due
    }

    /// When the next key is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.to_watch.first_key_value().map(|((at, _), _)| *at)
    }

    /// Rings for a key that the connection of a number was asked to watch. With `told` the server watches it since
    /// it had told so often. Returns whether a key is now due before all others, or `None` if that connection
    /// does not hear the key any more.
    pub(super) fn ring_again(
        &mut self,
        name: &[u8],
        number: u64,
        told: Option<u64>,
        now: Instant,
    ) -> Option<bool> {
        let slot = self.by_key.get(name)?.slot;
        // Another connection has been asked to watch all keys, and rings then.
        self.ear(slot).filter(|ear| ear.number() == number)?;
        let key = self.by_key.get_mut(name)?;
        key.asked = Some(now);
        key.ring();
        let (Some(told), Some(watched)) = (told, &key.watched) else {
            return Some(false);
        };
        watched.note(told);
        if !key.is_read() || watched.is_watched() || key.is_queued {
            return Some(false);
        }
        // It has rung between the question and the answer.
        key.rung = now;
        key.is_queued = true;
        Some(self.watch_at(now + READ_WITHIN, name))
    }

    /// Returns whether no key is due earlier.
    fn watch_at(&mut self, at: Instant, key: &[u8]) -> bool {
        self.last += 1;
        self.to_watch.insert((at, self.last), key.to_vec());
        let first = self.to_watch.first_key_value();
        first.is_some_and(|((_, number), _)| *number == self.last)
    }
}

/// A key that the server is to be asked about.
pub(super) struct Due {
    pub(super) name: Vec<u8>,
    pub(super) ear: Ear,
    /// How often the server has told of it.
    pub(super) told: u64,
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
