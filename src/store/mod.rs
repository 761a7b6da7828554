//! The port of adapters; not covered by semver.
//!
//! A store has one accessor per role: `store.dead_letters().search(…)`. A topic is a log of
//! entries. A group has a cursor over the log, and in addition a redelivery stream of its own, to
//! which due retries and redriven dead letters return. A consumer holds a fetched entry under a
//! lease: the right to settle it, until the time since the fetch or the last extension exceeds the
//! lease that a reclaimer asks for.
//!
//! The runtime is written once on this port, and adapters carry out its calls. The documentation
//! of each method says how every adapter must behave; the conformance suite of feature `testing`
//! checks it.
//!
//! A new method takes a line in its role's file here, its implementation in each adapter, a
//! conformance check, and its caller. No decorator and no test double changes.

#[macro_use]
mod role;
pub mod decorate;

mod attempts;
pub(crate) mod batch;
mod bell;
mod commit;
mod dead_letters;
mod deliveries;
mod effects;
mod inspect;
mod later;
mod log;
mod owners;
mod partitions;
mod rings;
mod schedule;
mod source;
mod topics;
mod values;

use std::fmt;
use std::sync::Arc;

pub use crate::domain::Cursor;
pub(crate) use crate::domain::{check_key, check_prefix};
pub use crate::wire::{Fields, Limits, Record, decode_entry, encode_entry};
pub use attempts::Attempts;
pub use bell::{Bell, Ring};
pub use commit::{Commit, Commits, End, Fate, Replies};
pub use dead_letters::{
    Counted, DeadLetters, DeadLettersAnswer, DeadLettersCalls, DeadLettersOp, Disposition, Found,
    IdRange, JournalRow, LONGEST_COUNTS, LONGEST_JOURNAL, LONGEST_SEARCH, Restored, Restoring,
};
pub use deliveries::{
    Begin, Deliveries, DeliveriesAnswer, DeliveriesCalls, DeliveriesOp, Fetched, Holder, Interrupt,
    Kind, Opened, Reader, ReclaimCursor, Reclaimed, Unmarked,
};
pub use effects::{
    Effect, EffectCommit, EffectFate, EffectStore, EffectStoreAnswer, EffectStoreCalls,
    EffectStoreOp, MAX_COMMITS, Refusal, SESSION_LIVES, Session,
};
pub use inspect::{
    ConsumerStatus, GroupProgress, GroupStatus, Inspect, InspectAnswer, InspectCalls, InspectOp,
    LONGEST_UNSETTLED, LogProgress, ServerInfo, TopicStatus, Unsettled,
};
pub use later::{
    Later, LaterAnswer, LaterCalls, LaterEntry, LaterOp, LaterPage, LaterPlace, LaterPut, NewLater,
};
pub use log::{Appended, Log, LogAnswer, LogCalls, LogOp, NewEntry};
pub(crate) use owners::wrong_kind;
pub use owners::{
    Attendance, KeptMessage, LaneStep, Note, OwnedProgress, Owner, Owners, OwnersAnswer,
    OwnersCalls, OwnersOp, Roster, Step, Stepped, Taken,
};
pub use partitions::Partitioned;
pub(crate) use rings::Rings;
pub use schedule::{
    Promoted, Schedule, ScheduleAnswer, ScheduleCalls, ScheduleOp, Scheduled, ScheduledPage,
};
pub use source::{DeliveryId, GroupAt, Lane, Member, Opening, Partition, Reading, Source};
pub use topics::{
    GroupRemoval, GroupReset, ResetTo, StartFrom, TopicRemoval, Topics, TopicsAnswer, TopicsCalls,
    TopicsOp, Trimmed,
};
pub use values::{
    CasResult, ClaimResult, KeyCursor, KeyPage, LONGEST_SCAN, Peeked, Values, ValuesAnswer,
    ValuesCalls, ValuesOp,
};

use crate::domain::{BoxFuture, Error, Timestamp};

/// The most ids that one call takes; callers with more make several calls.
pub const MAX_BATCH: usize = 500;

/// What a store offers in addition to the bus.
///
/// A store refuses an operation that it does not claim with
/// [`Unsupported`](crate::ErrorKind::Unsupported), and names it. The conformance suite runs the
/// checks of what a store claims, and checks that it refuses the rest.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Capabilities {
    /// [`Log::append_once`]: the store recognises messages by their id for a window.
    pub append_once: bool,
    /// All of [`Values`]: the key-value store.
    pub values: bool,
    /// All of [`EffectStore`]: messages and values that are written in one step.
    pub effects: bool,
    /// The effects of one commit may name any topic and any value. Otherwise they lie beside each
    /// other, such as in one slot of a cluster.
    pub effects_anywhere: bool,
    /// All of [`Later`]: messages that are due at a time.
    pub later: bool,
    /// All of [`Owners`]: groups whose partitions have one owner each.
    pub ownership: bool,
}

/// A store: the roles of the port, and its clock.
pub trait Store: Send + Sync + fmt::Debug {
    /// The adapter's name: `redis`, `memory`.
    fn name(&self) -> &'static str;

    /// What the store offers in addition to the bus; the same at every call.
    fn capabilities(&self) -> Capabilities;

    /// The time from which failure times are taken.
    fn now(&self) -> Timestamp;

    /// Whether the adapter itself keeps the time by which delays go: that of `now`. By
    /// default the time that really passes counts.
    fn keeps_time(&self) -> bool {
        false
    }

    /// Completes when the clock has been set forward since the call. Where time only passes by
    /// itself, as it does by default, never.
    fn clock_set(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }

    /// Opens a reader on a set of sources.
    fn open<'a>(&'a self, opening: &'a Opening) -> BoxFuture<'a, Result<Opened, Error>>;

    /// Tells when something of a group may have changed, for as long as the bell is held. `None` where
    /// the store cannot tell; the runtime then looks at regular times.
    fn bell(&self, _at: &GroupAt) -> Option<Arc<Bell>> {
        None
    }

    /// Topics and groups: creating, listing, removing and trimming.
    fn topics(&self) -> &dyn Topics;

    /// The log of a partition: appending, and reading without a group.
    fn log(&self) -> &dyn Log;

    /// What consumers hold, and how each delivery ends.
    fn deliveries(&self) -> &dyn Deliveries;

    /// Retries and snoozed messages that are not due yet.
    fn schedule(&self) -> &dyn Schedule;

    /// Messages for later; by default the store refuses them.
    fn later(&self) -> &dyn Later {
        &decorate::Nowhere
    }

    /// Owned groups; by default the store refuses them.
    fn owners(&self) -> &dyn Owners {
        &decorate::Nowhere
    }

    /// Dead letters, and the journal of operators' changes.
    fn dead_letters(&self) -> &dyn DeadLetters;

    /// The state of the store.
    fn inspect(&self) -> &dyn Inspect;

    /// The key-value store.
    fn values(&self) -> &dyn Values;

    /// What is written in one step; by default the store refuses it.
    fn effects(&self) -> &dyn EffectStore {
        &decorate::Nowhere
    }

    /// The inner store, which handles single partitions. `None` if this store handles them itself, or does not
    /// show its inner store.
    fn single(&self) -> Option<Arc<dyn Store>> {
        None
    }

    /// The lane of effects without a delivery. Effects of different lanes may lie on different servers: a
    /// caller that gives each lane a session of its own can have a call of each under way, and a server
    /// that is away holds up no other lane. By default all effects have one lane.
    fn lane_of(&self, _effects: &[Effect]) -> u16 {
        0
    }
}
