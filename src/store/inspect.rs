//! The state of a store: its servers, its topics, their groups and consumers.

use std::time::Duration;

use serde::{Serialize, Serializer};

use super::source::{DeliveryId, GroupAt, Partition};
use crate::domain::{
    ConsumerName, EntryId, Group, Migration, NativeCommands, Placement, Timestamp, Topic,
    TopicSettings,
};

/// A duration as whole milliseconds.
fn millis<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    serializer.serialize_u64(millis)
}

/// The state of one consumer of a group.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ConsumerStatus {
    /// The consumer.
    pub consumer: ConsumerName,
    /// Entries delivered to it and unsettled.
    pub in_flight: u64,
    /// How long ago it was last active.
    #[serde(rename = "idleForMs", serialize_with = "millis")]
    pub idle_for: Duration,
}

impl ConsumerStatus {
    /// The status of a consumer that is active now and has no entries.
    #[must_use]
    pub fn new(consumer: ConsumerName) -> Self {
        Self {
            consumer,
            in_flight: 0,
            idle_for: Duration::ZERO,
        }
    }
}

/// Facts about a server, as far as it reports them.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ServerInfo {
    /// Its name: `redis`, `valkey`.
    pub name: String,
    /// Its version, such as `7.2.5`.
    pub version: String,
    /// Its host and port, or the path of its socket; `None` for a store without a server.
    pub address: Option<String>,
    /// Why it did not answer. If set, only `address`, `slots` and `native_chosen` are filled in.
    pub failure: Option<String>,
    /// Why it refused to tell these facts. If set, only `address`, `slots` and `native_chosen` are filled
    /// in.
    pub refusal: Option<String>,
    /// The ranges of slots that it holds in a cluster: the first slot and the last of each.
    pub slots: Vec<(u16, u16)>,
    /// How far its clock is ahead of this process's, in milliseconds; negative when behind.
    pub clock_offset: i64,
    /// How long the answer about the clock took: `clock_offset` is uncertain by half of it.
    #[serde(rename = "roundTripMs", serialize_with = "millis")]
    pub round_trip: Duration,
    /// Whether it is a replica, which takes no writes.
    pub is_replica: bool,
    /// Whether it refuses writes because fewer replicas are connected than its setting
    /// `min-replicas-to-write` asks for.
    pub lacks_replicas: bool,
    /// Its policy for a full memory, such as `noeviction`.
    pub eviction_policy: Option<String>,
    /// Keys that it has evicted since its start.
    pub evicted: u64,
    /// Memory in use for its data, in bytes.
    pub memory_used: u64,
    /// Its memory limit, in bytes; `None` without one.
    pub memory_limit: Option<u64>,
    /// Memory of its machine, in bytes.
    pub machine_memory: Option<u64>,
    /// Whether it keeps an append-only file.
    pub append_only: Option<bool>,
    /// When the append-only file is synced: `always`, `everysec`, `no`; `None` when this user may
    /// not read the setting.
    pub append_sync: Option<String>,
    /// Whether it refuses all keys while some slots of its cluster are not served, by its setting
    /// `cluster-require-full-coverage`. `None` outside a cluster, and when this user may not read the
    /// setting.
    pub needs_all_slots: Option<bool>,
    /// Whether it takes writes while no replica is connected, because its setting
    /// `min-replicas-to-write` is 0. `None` where no sentinels watch it.
    pub writes_alone: Option<bool>,
    /// The keys that it watches for clients, and the most that it watches, by its setting
    /// `tracking-table-max-keys`. `None` when it has no limit, and when this user may not read the setting.
    pub watched_keys: Option<(u64, u64)>,
    /// The native commands that it has; `None` when this user may not ask.
    pub native: Option<NativeCommands>,
    /// The native commands that are switched on in this process.
    pub native_chosen: NativeCommands,
    /// Whether its settings `stream-idmp-maxsize` and `stream-idmp-duration` let it forget the number of a
    /// message that Redstart may still send again. `false` when this user may not read the settings.
    pub drops_numbers: bool,
    /// Errors of its last writes to disk.
    pub persistence_errors: Vec<String>,
    /// How many scripts it has loaded for this process, or why it refused them.
    pub scripts: Option<Result<u64, String>>,
}

/// The state of one group.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct GroupStatus {
    /// The group.
    pub group: Group,
    /// Entries not yet delivered to it.
    pub lag: u64,
    /// Entries delivered and unsettled.
    pub in_flight: u64,
    /// Retries and snoozed messages: scheduled, or due and not yet read again.
    pub scheduled: u64,
    /// Dead letters.
    pub dead: u64,
    /// Consumers that the group knows, alive or not; the members of an owned group.
    pub consumers: u64,
    /// Whether it is an [owned group](crate::docs::owned_groups).
    pub owned: bool,
}

impl GroupStatus {
    /// The status of a group without entries and consumers.
    #[must_use]
    pub fn new(group: Group) -> Self {
        Self {
            group,
            lag: 0,
            in_flight: 0,
            scheduled: 0,
            dead: 0,
            consumers: 0,
            owned: false,
        }
    }
}

/// The state of one topic.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct TopicStatus {
    /// The topic.
    pub topic: Topic,
    /// Entries in its log.
    pub entries: u64,
    /// Its messages for later.
    pub later: u64,
    /// Its settings, fixed when it was created.
    #[serde(flatten)]
    pub settings: TopicSettings,
    /// Its groups, by name.
    pub groups: Vec<GroupStatus>,
}

impl TopicStatus {
    /// The status of a topic without entries and groups.
    #[must_use]
    pub fn new(topic: Topic, settings: TopicSettings) -> Self {
        Self {
            topic,
            entries: 0,
            later: 0,
            settings,
            groups: Vec::new(),
        }
    }

    /// The topic's partitions, in their order.
    #[must_use]
    pub fn partitions(&self) -> Vec<Partition> {
        let numbers = 0..self.settings.partitions();
        let numbered = |number| Partition::numbered(&self.topic, number);
        numbers.map(numbered).collect()
    }
}

/// The most unsettled deliveries that [`Inspect::progress`] returns of each stream of a group.
pub const LONGEST_UNSETTLED: usize = 100;

/// How far a log and its groups have come.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LogProgress {
    /// The newest id that the log has given; its entry may be gone.
    pub last: EntryId,
    /// How many entries the log has received; `None` where the store does not know.
    pub appended: Option<u64>,
    /// When a consumer or a janitor last trimmed it, by
    /// [`Topics::trim_in_turn`](crate::store::Topics::trim_in_turn); `None` if none did.
    pub trimmed: Option<Timestamp>,
    /// Its groups, by name.
    pub groups: Vec<GroupProgress>,
}

/// How far a group has come in a log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GroupProgress {
    /// The group.
    pub group: Group,
    /// The newest entry of the log that it was given, or where it starts.
    pub delivered: EntryId,
    /// How many entries of the log it was given, or skipped when it was created; `None` where the
    /// store does not know. Too low after a restart or a failover that forgot reads.
    pub read: Option<u64>,
    /// Its lease; `None` until a consumer has set one.
    pub lease: Option<Duration>,
    /// Its oldest unsettled deliveries of each stream.
    pub unsettled: Vec<Unsettled>,
}

/// A delivery that a consumer has and has not settled.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Unsettled {
    /// The delivery.
    pub id: DeliveryId,
    /// The consumer, also one of another program.
    pub consumer: String,
    /// How long ago its lease began or was extended; `None` when the consumer has given it back.
    pub idle_for: Option<Duration>,
}

role! {
    /// The state of a store: its servers, its topics, their groups and consumers.
    pub trait Inspect (inspect, InspectOp, InspectAnswer, InspectCalls) {
        /// Whether the store answers on the connection that publishes.
        fn ping as Ping() -> ();

        /// Asks, on the connection that publishes, whether the store takes writes from this user
        /// now. Writes nothing. The error says why not.
        fn try_write as TryWrite() -> ();

        /// Facts about each server; none for a store without a server. Where some primaries of a cluster
        /// do not answer or refuse, the facts about them say why; where all do, the call fails.
        fn servers as Servers() -> Vec<ServerInfo>;

        /// The address of the primary that holds a partition in a cluster, whether it answers or not;
        /// `None` outside a cluster and where no node serves the partition's slot.
        fn server_of as ServerOf(at: &'a Partition) -> Option<String>;

        /// The migrations of the namespace's layout, known or applied, by number; none for a store
        /// whose layout never changes.
        fn migrations as Migrations() -> Vec<Migration>;

        /// Where the keys of the namespace lie; `None` for a namespace that is not set up.
        fn placement as Placement() -> Option<Placement>;

        /// The state of a partition and of its groups; `None` when it does not exist.
        fn status as Status(at: &'a Partition) -> Option<TopicStatus>;

        /// How far a partition's log and its groups have come, with the oldest unsettled deliveries
        /// of each group, up to [`LONGEST_UNSETTLED`](crate::store::LONGEST_UNSETTLED) of each
        /// stream; `None` when the log does not exist.
        fn progress as Progress(at: &'a Partition) -> Option<LogProgress>;

        /// The consumers that a group knows, by name; none where the group does not exist.
        fn consumers as Consumers(at: &'a GroupAt) -> Vec<ConsumerStatus>;
    }
}
