//! Topics and groups: creating, listing, removing and trimming.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::inspect::GroupStatus;
use super::source::{GroupAt, Member, Partition};
use crate::domain::{ConsumerName, EntryId, Topic, TopicSettings};

/// What a group starts with, when it is created.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum StartFrom {
    /// Everything that the topic still holds; the default.
    #[default]
    Beginning,
    /// Only messages published after the group was created.
    End,
}

/// Where a group goes on after a reset.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ResetTo {
    /// At the oldest entry that the topic still holds.
    Beginning,
    /// At the entry with this id, or the first one after it.
    Entry(EntryId),
    /// After the newest entry.
    End,
}

impl fmt::Display for ResetTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Beginning => f.write_str("beginning"),
            Self::Entry(id) => id.fmt(f),
            Self::End => f.write_str("end"),
        }
    }
}

impl Serialize for ResetTo {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What [`Topics::reset_group`] found, and whether it moved the cursor.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct GroupReset {
    /// Whether the cursor was moved.
    pub moved: bool,
    /// Consumers that were active within the time asked about.
    pub live_consumers: u64,
    /// The newest entry that counted as delivered before.
    pub before: EntryId,
    /// The newest entry that counts as delivered now.
    pub after: EntryId,
}

impl GroupReset {
    /// The answer for a group that keeps its cursor.
    #[must_use]
    pub fn new(cursor: EntryId, live_consumers: u64) -> Self {
        Self {
            moved: false,
            live_consumers,
            before: cursor,
            after: cursor,
        }
    }
}

/// What [`Topics::remove_group`] found, and whether it removed the group.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct GroupRemoval {
    /// Whether the group was removed.
    pub removed: bool,
    /// Where it stood.
    #[serde(flatten)]
    pub status: GroupStatus,
    /// Consumers that were active within the time asked about.
    pub live_consumers: u64,
}

impl GroupRemoval {
    /// The answer for a group that stays, without live consumers.
    #[must_use]
    pub fn new(status: GroupStatus) -> Self {
        Self {
            removed: false,
            status,
            live_consumers: 0,
        }
    }
}

/// What [`Topics::remove_topic`] found, and whether it removed the topic.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct TopicRemoval {
    /// Whether the topic was removed.
    pub removed: bool,
    /// Entries in its log.
    pub entries: u64,
    /// Its groups.
    pub groups: u64,
}

impl TopicRemoval {
    /// The answer for a topic with this many entries and groups. A topic that has groups stays.
    #[must_use]
    pub fn new(entries: u64, groups: u64) -> Self {
        Self {
            removed: groups == 0,
            entries,
            groups,
        }
    }
}

/// What [`Topics::trim`] removed and found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Trimmed {
    /// Entries removed from the log.
    pub removed: u64,
    /// Entries left in the log.
    pub length: u64,
    /// What the topic keeps for its groups: the log's entries from the first that a group has not
    /// settled on, all of them while there is no group; and each group's scheduled retries and
    /// unsettled redeliveries.
    pub backlog: u64,
    /// Whether the topic's settings are stored; FLUSHALL removes them.
    pub known: bool,
}

role! {
    /// Topics and groups: creating, listing, removing and trimming.
    pub trait Topics (topics, TopicsOp, TopicsAnswer, TopicsCalls) {
        /// Creates a topic with all of its partitions, or finds it: an existing topic keeps its
        /// settings. Returns the settings in force.
        fn ensure_topic as EnsureTopic(topic: &'a Topic, settings: TopicSettings) -> TopicSettings;

        /// Changes the settings of a topic but the number of its partitions, and returns the earlier
        /// ones; `None` where it does not exist.
        fn change_settings as ChangeSettings(
            topic: &'a Topic, settings: TopicSettings,
        ) -> Option<TopicSettings>;

        /// Removes a topic with its entries, but keeps one that has groups. The store checks and
        /// removes in one step. Returns `None` where it does not exist.
        fn remove_topic as RemoveTopic(topic: &'a Topic) -> Option<TopicRemoval>;

        /// The number of a topic's partitions; `None` where it does not exist.
        fn partitions as Partitions(topic: &'a Topic) -> Option<u16>;

        /// The topics of the namespace, by name.
        fn list as List() -> Vec<Topic>;

        /// Creates a group; an existing group keeps its cursor.
        fn create_group as CreateGroup(at: &'a GroupAt, start: StartFrom) -> ();

        /// Sets the lease of the member's group: a longer one than the group has at once, a shorter
        /// one when no other live consumer is left. Returns the lease that holds.
        fn set_lease as SetLease(by: &'a Member, lease: Duration) -> Duration;

        /// Removes a group and all that is its own: its cursor, its pending deliveries, its
        /// redelivery stream, its scheduled retries, its dead letters. The log and other groups
        /// stay as they are.
        ///
        /// Without `force`, keeps a group that has unsettled messages, scheduled retries or dead
        /// letters, or of which a consumer was active within `quiet`. The store checks and removes
        /// in one step. Returns where the group stood, or `None` where it does not exist.
        fn remove_group as RemoveGroup(
            at: &'a GroupAt, quiet: Duration, force: bool,
        ) -> Option<GroupRemoval>;

        /// Moves a group's cursor in the log. Unsettled deliveries, scheduled retries and dead letters
        /// stay as they are. A place after the newest entry is the end.
        ///
        /// Leaves the cursor where a consumer was active within `quiet`. The store checks and moves
        /// in one step. Returns `None` where the group does not exist.
        fn reset_group as ResetGroup(
            at: &'a GroupAt, to: ResetTo, quiet: Duration,
        ) -> Option<GroupReset>;

        /// Removes from the log what retention no longer asks for; never an entry that a group has
        /// not settled. Also measures the backlog.
        fn trim as Trim(at: &'a Partition) -> Trimmed;

        /// Trims the log, unless another call of this method did so less than `pause` ago: the
        /// consumers of a topic share the work. Returns how many entries it removed.
        fn trim_in_turn as TrimInTurn(at: &'a Partition, pause: Duration) -> u64;

        /// Removes settled entries from a group's redelivery stream.
        fn trim_redelivery as TrimRedelivery(at: &'a GroupAt) -> ();

        /// Removes consumers that were not active for `idle` and have no pending deliveries; with
        /// `only`, that consumer alone. Returns how many. The store then forgets the number of the
        /// consumer's last call of effects, if `only` names it or if the group's lease has passed since
        /// the consumer was active.
        fn prune_consumers as PruneConsumers(
            at: &'a GroupAt, idle: Duration, only: Option<&'a ConsumerName>,
        ) -> u64;
    }
}
