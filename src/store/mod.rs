//! The backend port: what a store must offer the consumer runtime.
//!
//! A topic is a log of entries. A group has a cursor over the log and beside it a lane of
//! its own, the *redo* lane, where due retries and redriven dead letters come back to this
//! group alone. What a consumer has fetched it holds under a lease: the right to settle it,
//! until the time since it was fetched or last extended exceeds what a reclaimer asks for.
//!
//! The runtime is written once on this port; adapters only carry out what it says. Every
//! method says how every adapter must behave.

mod dead_letters;
mod inspect;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

pub use crate::wire::{Fields, Limits, Record, decode_entry, encode_entry};
pub use dead_letters::{
    DeadLetterStore, Disposition, Found, IdRange, JournalRow, LONGEST_JOURNAL, LONGEST_SEARCH,
    Restoring,
};
pub use inspect::{ConsumerStatus, GroupRemoval, GroupStatus, ServerInfo, TopicStatus};

use crate::domain::BoxFuture;
use crate::domain::{
    Clock, ConsumerName, EntryId, Error, ErrorKind, Group, Timestamp, Topic, TopicSettings,
};

/// The most ids that one call takes; callers with more make several calls.
pub const MAX_BATCH: usize = 500;

/// An entry under the id of its message, by which a repeat is recognised.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identified {
    /// The message's id.
    pub id: Uuid,
    /// The name of its field: the codec.
    pub name: &'static str,
    /// The encoded envelope.
    pub value: Bytes,
}

/// What became of an entry that is appended once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Appended {
    /// The entry that the topic has of this message.
    pub id: EntryId,
    /// Whether it was there already, and nothing was appended.
    pub duplicate: bool,
}

/// One named member of a group.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Member {
    /// The topic.
    pub topic: Topic,
    /// The group.
    pub group: Group,
    /// The consumer's name within the group, fresh at every start.
    pub consumer: ConsumerName,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.group)
    }
}

/// Which of a group's two sequences an entry came from.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Lane {
    /// The topic's log, which every group reads.
    Log,
    /// The group's own lane of due retries and redriven dead letters.
    Redelivery,
}

/// What identifies a fetched entry within its group.
///
/// Written as `1762957200123-0` where it came from the log, as `redo:1762957200123-0` where it
/// came from the group's redo lane.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct DeliveryId {
    /// The sequence it came from.
    pub lane: Lane,
    /// Its id there.
    pub id: EntryId,
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.lane {
            Lane::Log => write!(f, "{}", self.id),
            Lane::Redelivery => write!(f, "redo:{}", self.id),
        }
    }
}

impl FromStr for DeliveryId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (lane, id) = match text.strip_prefix("redo:") {
            Some(id) => (Lane::Redelivery, id),
            None => (Lane::Log, text),
        };
        let id = id.parse().map_err(|_| {
            let rule = "must be <milliseconds>-<sequence> or redo:<milliseconds>-<sequence>";
            let shown: String = text.chars().take(64).collect();
            Error::new(ErrorKind::Invalid, "receipt", rule).on(shown)
        })?;
        Ok(Self { lane, id })
    }
}

/// An entry handed to a consumer, under a lease.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// What it is settled by.
    pub receipt: DeliveryId,
    /// Its fields; of the redo lane, those that were given to [`Settlement::Reschedule`] or a redrive.
    pub fields: Fields,
    /// How often it has been handed out, this time included.
    pub deliveries: u32,
}

/// How a delivery ends, other than by being acknowledged.
#[derive(Clone, Debug)]
pub enum Settlement {
    /// Comes back to the same group through its redo lane, once `delay` has passed. Without a delay it
    /// is in the redo lane at once, and never among what waits.
    Reschedule {
        /// What ends.
        receipt: DeliveryId,
        /// How long to wait, by the store's clock.
        delay: Duration,
        /// What the redo lane will hold.
        redelivery: Bytes,
    },
    /// Goes to the group's dead letters.
    DeadLetter {
        /// What ends.
        receipt: DeliveryId,
        /// What the dead letters will hold.
        record: Record,
    },
}

impl Settlement {
    /// What it ends.
    #[must_use]
    pub fn receipt(&self) -> DeliveryId {
        match self {
            Self::Reschedule { receipt, .. } | Self::DeadLetter { receipt, .. } => *receipt,
        }
    }
}

/// What a group starts with, when it is created.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum StartFrom {
    /// Everything that the topic still holds; the default.
    #[default]
    Beginning,
    /// Only what is published after the group was created.
    End,
}

/// What [`Store::reclaim`] took over.
#[derive(Debug, Default)]
pub struct Reclaimed {
    /// Entries whose lease had expired; the caller holds them now.
    pub taken: Vec<Fetched>,
    /// Where to go on next time.
    pub cursor: ReclaimCursor,
    /// Entries that were removed while a consumer held them: data loss by a hand from outside.
    pub missing: u64,
}

/// How far a reclaimer has come in each lane.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ReclaimCursor {
    /// In the log.
    pub log: EntryId,
    /// In the redo lane.
    pub redo: EntryId,
}

/// What [`Store::promote`] moved.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Promoted {
    /// How many entries went to the redo lane.
    pub moved: u64,
    /// How long until the next one is due; zero when one is due already.
    pub next: Option<Duration>,
}

/// A retry or snoozed message that waits for its time.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Scheduled {
    /// The delivery that ended with it.
    pub receipt: DeliveryId,
    /// When it is due, by the store's clock.
    pub due: Timestamp,
    /// What was given to [`Settlement::Reschedule`].
    pub redelivery: Bytes,
}

/// A page of what waits for its time, from [`Store::scheduled`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Schedule {
    /// The store's time at this moment.
    pub now: Timestamp,
    /// Earliest first.
    pub entries: Vec<Scheduled>,
}

/// What [`Store::retain`] removed and found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Trimmed {
    /// Entries removed from the log.
    pub removed: u64,
    /// Entries left in the log.
    pub length: u64,
    /// Entries that the slowest group has not settled; all of them while there is no group.
    pub backlog: u64,
    /// Whether the topic's settings are there; they are lost with FLUSHALL.
    pub known: bool,
}

/// A store of topics, as the runtime needs it.
pub trait Store: Send + Sync + fmt::Debug {
    /// What this adapter is called: `redis`, `memory`.
    fn name(&self) -> &'static str;

    /// The clock that failure times are taken from.
    fn clock(&self) -> &dyn Clock;

    /// Completes when the clock has been set forward since this was called. Where time only
    /// passes by itself, as it does by default, never.
    fn clock_set(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }

    /// Whether publishing can work now.
    fn ping(&self) -> BoxFuture<'_, Result<(), Error>>;

    /// Creates a topic, or finds it: an existing topic keeps its settings. Returns what holds.
    fn ensure_topic<'a>(
        &'a self,
        topic: &'a Topic,
        settings: TopicSettings,
    ) -> BoxFuture<'a, Result<TopicSettings, Error>>;

    /// Appends entries in their order and tells the fate of each, in the same order.
    ///
    /// An error is one of: certainly not appended, or
    /// [`OutcomeUnknown`](crate::ErrorKind::OutcomeUnknown). After an unknown one, those that
    /// follow may have been appended too, and are reported as what they are.
    fn append<'a>(
        &'a self,
        topic: &'a Topic,
        entries: Vec<(&'static str, Bytes)>,
    ) -> BoxFuture<'a, Vec<Result<EntryId, Error>>>;

    /// Appends entries in their order, but none whose message was appended within `window` before
    /// through this method: of that one it tells the entry that the message has. Each is one atomic step, so
    /// that of several who append one message exactly one does. The window goes by the store's clock, and
    /// outlives the entry.
    ///
    /// Errors are those of [`append`](crate::store::Store::append); after one nothing more is
    /// appended, so that the rest can be repeated in its order.
    fn append_once<'a>(
        &'a self,
        topic: &'a Topic,
        window: Duration,
        entries: Vec<Identified>,
    ) -> BoxFuture<'a, Vec<Result<Appended, Error>>>;

    /// Creates a group; one that exists keeps its cursor.
    fn create_group<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        start: StartFrom,
    ) -> BoxFuture<'a, Result<(), Error>>;

    /// Opens a reader for a member.
    fn open<'a>(&'a self, member: &'a Member) -> BoxFuture<'a, Result<Opened, Error>>;

    /// Acknowledges deliveries. Owners are not checked: work that was done is done, whoever
    /// holds the lease now. Acknowledging twice succeeds.
    fn acknowledge<'a>(
        &'a self,
        member: &'a Member,
        receipts: &'a [DeliveryId],
    ) -> BoxFuture<'a, Result<(), Error>>;

    /// Ends deliveries that the member still holds; each one atomically, written before it is
    /// acknowledged. For each, whether the member held it; where it did not, nothing was written.
    fn settle<'a>(
        &'a self,
        member: &'a Member,
        settlements: &'a [Settlement],
    ) -> BoxFuture<'a, Result<Vec<bool>, Error>>;

    /// Starts the lease of held entries anew. For each, whether the member still holds it.
    fn extend<'a>(
        &'a self,
        member: &'a Member,
        receipts: &'a [DeliveryId],
    ) -> BoxFuture<'a, Result<Vec<bool>, Error>>;

    /// Gives held entries back: at once claimable by
    /// [`reclaim`](crate::store::Store::reclaim), and the delivery that ends here is not
    /// counted. Giving back twice, as after a lost answer, uncounts once. Returns how many the
    /// member held.
    fn release<'a>(
        &'a self,
        member: &'a Member,
        receipts: &'a [DeliveryId],
    ) -> BoxFuture<'a, Result<u64, Error>>;

    /// What the member holds, up to a number, oldest first in each lane. A connection that broke
    /// while a fetch was answered leaves entries that the member holds without knowing. Fails
    /// with [`NotFound`](crate::ErrorKind::NotFound) when the group is gone.
    fn pending_of<'a>(
        &'a self,
        member: &'a Member,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<DeliveryId>, Error>>;

    /// Takes over up to `max` entries of each lane whose lease is older than `lease`, whoever
    /// held it. Goes on where `cursor` says and starts anew after the end. Fails with
    /// [`NotFound`](crate::ErrorKind::NotFound) when the group is gone.
    fn reclaim<'a>(
        &'a self,
        member: &'a Member,
        lease: Duration,
        cursor: ReclaimCursor,
        max: usize,
    ) -> BoxFuture<'a, Result<Reclaimed, Error>>;

    /// Moves up to `max` entries whose time has come to the redo lane, earliest first.
    fn promote<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        max: usize,
    ) -> BoxFuture<'a, Result<Promoted, Error>>;

    /// Removes from the log what retention no longer asks for; never what a group has not
    /// settled. Also measures the backlog.
    fn trim<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<Trimmed, Error>>;

    /// Removes from a group's redo lane what it has settled.
    fn trim_redelivery<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
    ) -> BoxFuture<'a, Result<(), Error>>;

    /// Removes consumers that have not been heard of for `idle` and that hold nothing; with
    /// `only`, that consumer alone. Returns how many.
    fn prune_consumers<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        idle: Duration,
        only: Option<&'a ConsumerName>,
    ) -> BoxFuture<'a, Result<u64, Error>>;

    /// What waits for its time, earliest first, after a place in this order. Up to `max` of them,
    /// fewer where they are heavy, none only at the end.
    fn scheduled<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        after: Option<(Timestamp, DeliveryId)>,
        max: usize,
    ) -> BoxFuture<'a, Result<Schedule, Error>>;

    /// Moves what waits for its time to the redo lane now, each atomically. For each, whether it
    /// was waiting.
    fn run_now<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        receipts: &'a [DeliveryId],
    ) -> BoxFuture<'a, Result<Vec<bool>, Error>>;

    /// Removes for good what waits for its time. For each, whether it was waiting.
    fn cancel<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        receipts: &'a [DeliveryId],
    ) -> BoxFuture<'a, Result<Vec<bool>, Error>>;

    /// The consumers that a group knows, by name; none where there is no such group.
    fn consumers<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
    ) -> BoxFuture<'a, Result<Vec<ConsumerStatus>, Error>>;

    /// Removes a group and all that is its own: its cursor, what it holds, its redo lane, what
    /// waits for its time, its dead letters. The log and other groups stay as they are.
    ///
    /// A group for which anything waits, or of which a consumer has been heard within `quiet`, is
    /// only removed with `force`; this is found out in the step that removes it. Returns where it
    /// stood, or `None` where there is no such group.
    fn remove_group<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        quiet: Duration,
        force: bool,
    ) -> BoxFuture<'a, Result<Option<GroupRemoval>, Error>>;

    /// What the server says of itself; `None` where there is none, as by default.
    fn server(&self) -> BoxFuture<'_, Result<Option<ServerInfo>, Error>> {
        Box::pin(async { Ok(None) })
    }

    /// The topics of the namespace, by name.
    fn topics(&self) -> BoxFuture<'_, Result<Vec<Topic>, Error>>;

    /// Where a topic and its groups stand; `None` when it does not exist.
    fn status<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<Option<TopicStatus>, Error>>;

    /// Entries of the log after an id, oldest first, without a group.
    fn browse<'a>(
        &'a self,
        topic: &'a Topic,
        after: Option<EntryId>,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<(EntryId, Fields)>, Error>>;

    /// The newest entries of the log, up to `max`, oldest first, without a group.
    fn latest<'a>(
        &'a self,
        topic: &'a Topic,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<(EntryId, Fields)>, Error>> {
        // Reads the whole log: a store that can read backwards should.
        Box::pin(async move {
            let mut latest = Vec::new();
            let mut after = None;
            loop {
                let page = self.browse(topic, after, MAX_BATCH).await?;
                match page.last() {
                    Some((last, _)) => after = Some(*last),
                    None => return Ok(latest),
                }
                latest.extend(page);
                latest.drain(..latest.len().saturating_sub(max));
            }
        })
    }

    /// The newest entry's id in the log, if there is one.
    fn newest<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<Option<EntryId>, Error>>;

    /// The dead letters of its topics' groups.
    fn dead_letters(&self) -> &dyn DeadLetterStore;
}

/// A reader, and what ends its wait.
pub type Opened = (Box<dyn Reader>, Box<dyn Interrupt>);

/// Reads for one member.
pub trait Reader: Send + fmt::Debug {
    /// Takes entries that no member of the group has been given: up to `max` of each lane.
    ///
    /// Waits up to `wait` where there are none, then returns an empty list. Fails with
    /// [`NotFound`](crate::ErrorKind::NotFound) when the group is gone. After any other error
    /// the reader is of no use, and the member may hold entries that it never saw.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: entries that are on their way are then held unseen. Use [`Interrupt`].
    fn fetch(&mut self, max: usize, wait: Duration) -> BoxFuture<'_, Result<Vec<Fetched>, Error>>;
}

/// Ends a reader's wait early, from another task.
pub trait Interrupt: Send + Sync + fmt::Debug {
    /// Makes a fetch that waits return with what it has. Without one that waits, does nothing.
    fn interrupt(&self) -> BoxFuture<'_, Result<(), Error>>;
}
