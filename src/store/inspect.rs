//! What a store tells of itself, of its topics and of their groups.

use std::time::Duration;

use crate::domain::{ConsumerName, Group, Topic, TopicSettings};

/// Where a consumer of a group stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConsumerStatus {
    /// The consumer.
    pub consumer: ConsumerName,
    /// Entries delivered to it and unsettled.
    pub in_flight: u64,
    /// For how long it has not been heard of.
    pub idle_for: Duration,
}

/// What [`Store::remove_group`](crate::store::Store::remove_group) found, and whether it removed it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GroupRemoval {
    /// Whether the group was removed.
    pub removed: bool,
    /// Where it stood.
    pub status: GroupStatus,
    /// Consumers that have been heard of in the time asked about.
    pub live_consumers: u64,
}

/// What a server says of itself, where it says it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct ServerInfo {
    /// What it is called: `redis`, `valkey`.
    pub name: String,
    /// Its version, such as `7.2.5`.
    pub version: String,
    /// How far its clock is before this process's, in milliseconds; negative when behind.
    pub clock_offset: i64,
    /// How long the answer about the clock took: `clock_offset` is uncertain by half of it.
    pub round_trip: Duration,
    /// Whether it takes no writes because it follows another.
    pub is_replica: bool,
    /// What it does when its memory is full, such as `noeviction`.
    pub eviction_policy: Option<String>,
    /// Keys that it has evicted since its start.
    pub evicted: u64,
    /// Memory that its data takes, in bytes.
    pub memory_used: u64,
    /// How much it may take, in bytes; `None` without a limit.
    pub memory_limit: Option<u64>,
    /// Memory of its machine, in bytes.
    pub machine_memory: Option<u64>,
    /// Whether it keeps an append-only file.
    pub append_only: Option<bool>,
    /// When the append-only file is synced: `always`, `everysec`, `no`; `None` when this process
    /// may not know.
    pub append_sync: Option<String>,
    /// What went wrong the last time it wrote to its disk.
    pub persistence_errors: Vec<String>,
    /// How many scripts it has loaded for this process; or why it does not.
    pub scripts: Option<Result<u64, String>>,
}

/// Where a group stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GroupStatus {
    /// The group.
    pub group: Group,
    /// Entries not yet delivered to it.
    pub lag: u64,
    /// Entries delivered and unsettled.
    pub in_flight: u64,
    /// Retries and snoozed messages waiting for their time, or to be read again.
    pub scheduled: u64,
    /// Dead letters.
    pub dead: u64,
    /// Consumers that it knows, alive or not.
    pub consumers: u64,
}

/// Where a topic stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TopicStatus {
    /// The topic.
    pub topic: Topic,
    /// Entries in its log.
    pub entries: u64,
    /// What was fixed when it was created.
    pub settings: TopicSettings,
    /// Its groups, by name.
    pub groups: Vec<GroupStatus>,
}
