//! Effects: messages and changes of state that are written in one step, with or without the
//! acknowledgement of a delivery.

use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use super::later::NewLater;
use super::log::{Appended, NewEntry};
use super::source::{DeliveryId, Member, Partition};
use crate::domain::ScheduleId;

/// The most commits in one call.
pub const MAX_COMMITS: usize = 32;

/// How long a store remembers the answer to the last call of a session: a day.
pub const SESSION_LIVES: Duration = Duration::from_secs(24 * 60 * 60);

/// One operation, in bytes.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Effect {
    /// Appends a message.
    Publish {
        /// Where to.
        at: Partition,
        /// The message.
        entry: NewEntry,
        /// Appends nothing if the message's id was appended within this time.
        window: Option<Duration>,
    },
    /// Stores a value.
    Set {
        /// The key.
        key: String,
        /// The value.
        value: Bytes,
        /// Its time to live; `None`: for ever.
        ttl: Option<Duration>,
    },
    /// Stores a value under a key that must be absent.
    Insert {
        /// The key.
        key: String,
        /// The value.
        value: Bytes,
        /// Its time to live; `None`: for ever.
        ttl: Option<Duration>,
    },
    /// Removes a key, if it exists.
    Delete {
        /// The key.
        key: String,
    },
    /// Adds to an integer and keeps its time to live. An absent key counts as 0.
    Increment {
        /// The key.
        key: String,
        /// The number to add.
        by: i64,
        /// The bounds of the sum, both included.
        within: Option<(i64, i64)>,
    },
    /// Stores a value under a key that must hold `seen`, byte for byte (`None`: must be absent).
    Replace {
        /// The key.
        key: String,
        /// What the key must hold.
        seen: Option<Bytes>,
        /// The value.
        value: Bytes,
        /// Its time to live; `None`: for ever.
        ttl: Option<Duration>,
    },
    /// Demands that a key holds `seen`, byte for byte (`None`: is absent).
    Unchanged {
        /// The key.
        key: String,
        /// What the key must hold.
        seen: Option<Bytes>,
    },
    /// Schedules a message, as [`Later::put`](super::Later::put) does. The topic exists.
    Schedule {
        /// The partition that keeps the message.
        at: Partition,
        /// The message.
        message: NewLater,
    },
    /// Removes a message for later, if it is scheduled.
    Cancel {
        /// The partition that keeps the message.
        at: Partition,
        /// Its id.
        id: ScheduleId,
    },
    /// Creates a key as the mark of completed work. If it exists, no effect of the commit is
    /// written.
    Once {
        /// The key.
        key: String,
        /// How long the mark lives.
        ttl: Duration,
    },
}

impl Effect {
    /// What an error about the effect names: its topic or key.
    #[must_use]
    pub fn subject(&self) -> &str {
        match self {
            Self::Publish { at, .. } | Self::Schedule { at, .. } | Self::Cancel { at, .. } => {
                at.topic().as_str()
            }
            Self::Set { key, .. }
            | Self::Insert { key, .. }
            | Self::Delete { key }
            | Self::Increment { key, .. }
            | Self::Replace { key, .. }
            | Self::Unchanged { key, .. }
            | Self::Once { key, .. } => key,
        }
    }

    /// About how many bytes the effect sends.
    #[must_use]
    pub fn weight(&self) -> usize {
        let seen_weight = |seen: &Option<Bytes>| seen.as_ref().map_or(0, Bytes::len);
        match self {
            Self::Publish { entry, .. } => entry.value.len(),
            Self::Schedule { message, .. } => message.id.as_str().len() + message.value.len(),
            Self::Cancel { id, .. } => id.as_str().len(),
            Self::Set { key, value, .. } | Self::Insert { key, value, .. } => {
                key.len() + value.len()
            }
            Self::Replace {
                key, seen, value, ..
            } => key.len() + seen_weight(seen) + value.len(),
            Self::Unchanged { key, seen } => key.len() + seen_weight(seen),
            Self::Delete { key } | Self::Increment { key, .. } | Self::Once { key, .. } => {
                key.len()
            }
        }
    }
}

/// One delivery and the effects that its handler returned.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EffectCommit {
    /// The delivery.
    pub delivery: DeliveryId,
    /// Whether the effects acknowledge it. A checkpoint does not: the member keeps the delivery.
    pub acknowledges: bool,
    /// Whether the member has the only copy of the message: the store lost its record of the
    /// delivery. The store then also commits where nobody holds the delivery.
    pub only_copy: bool,
    /// What to write.
    pub effects: Vec<Effect>,
}

impl EffectCommit {
    /// About how many bytes the commit sends.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.effects.iter().map(Effect::weight).sum()
    }
}

/// A numbered call of commits without a delivery.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Session {
    /// The session. One caller uses it, with one call at a time.
    pub id: Uuid,
    /// The call's number, greater than those of all calls before.
    pub number: u64,
}

/// Why a store refused a commit that no repetition changes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Refusal {
    /// The key has another type than the operation needs.
    WrongType,
    /// The value is not an integer.
    NotAnInteger,
    /// The sum lies outside the range, or does not fit into an `i64`.
    OutOfRange,
    /// The topic's stream has given its last id.
    StreamFull,
    /// The topic keeps as many messages for later as its backlog limit, or the partition of the message
    /// as many as its part.
    LaterFull {
        /// The partition; `None` if the topic has one partition.
        partition: Option<u16>,
    },
}

/// The result of one commit.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum EffectFate {
    /// Everything was written. Holds the messages' entries, in the order of the effects.
    Done(Vec<Appended>),
    /// Another member holds the delivery, or the group is gone; the store wrote nothing.
    Lost,
    /// Nobody holds the delivery; the store wrote nothing.
    NotHeld,
    /// The key of an [`Effect::Once`] exists. The delivery is acknowledged, and nothing else was
    /// written.
    Skipped,
    /// The effect at this place demands another value than the key holds; the store wrote nothing.
    Differs(usize),
    /// The effect at this place cannot be written; the store wrote nothing.
    Refused(usize, Refusal),
}

role! {
    /// Effects: what is written in one step, all or nothing.
    pub trait EffectStore (effects, EffectStoreOp, EffectStoreAnswer, EffectStoreCalls) {
        /// Writes the effects of deliveries that the member holds, and acknowledges these
        /// deliveries. Each commit is all or nothing: its effects and its acknowledgement. The
        /// commits of a call follow each other, so the second sees what the first has written. A
        /// commit that is refused changes nothing about the others. Of two commits of one delivery
        /// the second is [`Lost`](EffectFate::Lost).
        ///
        /// The member's calls are numbered, from 1, each greater than the one before. The store
        /// remembers the last number and its answer for [`SESSION_LIVES`](crate::store::SESSION_LIVES).
        /// A repeated number gets the same answer and writes nothing. A number below the last one
        /// fails with [`Refused`](crate::ErrorKind::Refused) and writes nothing.
        ///
        /// An error of the call means that the store wrote nothing, or, as
        /// [`OutcomeUnknown`](crate::ErrorKind::OutcomeUnknown), that the caller repeats the same
        /// call under the same number until it is answered.
        fn commit as Commit(
            by: &'a Member, number: u64, commits: &'a [EffectCommit],
        ) -> Vec<EffectFate>;

        /// Writes the effects of deliveries of a partition of an owned group, under the token of the
        /// partition's owner. Under any other token than the one that last took the cursor every
        /// commit is [`Lost`](EffectFate::Lost), and the store writes nothing. So is a commit of a
        /// delivery that is settled. A delivery that a commit acknowledges counts as settled, and
        /// [`take`](super::Owners::take) tells it, until a step forgets it. Otherwise as `commit`.
        fn commit_owned as CommitOwned(
            by: &'a Member, token: u64, number: u64, commits: &'a [EffectCommit],
        ) -> Vec<EffectFate>;

        /// Writes effects without a delivery, each list all or nothing. Otherwise as
        /// `commit`, with the numbers of the session.
        fn apply as Apply(session: Session, commits: &'a [Vec<Effect>]) -> Vec<EffectFate>;

        /// What `apply` would answer now. Writes nothing, and names no
        /// entries.
        fn rehearse as Rehearse(effects: &'a [Effect]) -> EffectFate;
    }
}
