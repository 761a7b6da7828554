//! Owned groups: which member reads which partition, and how far it has come.
//!
//! An owned group has no pending deliveries. One member owns a partition at a time and reads it after a
//! [`Cursor`] that the store keeps. The member that owns a partition has a token for it, the fence: each
//! new owner gets a greater one. The store writes a [`Step`] only under the token that last took the
//! cursor. A former owner can therefore neither settle a message nor write a retry or a dead letter.
//!
//! The members of a group are kept with partition 0, the cursor of each partition with that partition.
//! The two are never changed in one step, and need not be: [`take`](Owners::take) compares tokens.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::attempts::Attempts;
use super::commit::Commit;
use super::source::{DeliveryId, GroupAt, Lane, Member};
use super::topics::StartFrom;
use crate::domain::{ConsumerName, Cursor, EntryId, Error, Timestamp};
use crate::wire::Fields;

/// What a member says of itself.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Attendance {
    /// How long it is a member without another call.
    pub lease: Duration,
    /// It is about to leave: the others share the partitions without it.
    pub leaving: bool,
    /// Partitions that it gives up.
    pub gives: Vec<u16>,
    /// Partitions that it claims, each with a token that its own must exceed: 0, or the one that
    /// [`Taken::Stale`] has told.
    pub claims: Vec<(u16, u64)>,
}

/// The owner of a partition.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Owner {
    /// Its name in the group.
    pub consumer: ConsumerName,
    /// Its token.
    pub token: u64,
}

/// The members of a group, and what they own.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Roster {
    /// By name, without those that are about to leave.
    pub members: Vec<ConsumerName>,
    /// The owners, by partition. A partition without one is missing.
    pub owners: BTreeMap<u16, Owner>,
}

/// What the store keeps of a message that is not settled: its attempts, and the message as it comes
/// back.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Note {
    /// The message.
    pub delivery: DeliveryId,
    /// The attempts at it that were begun, and those among them that have failed.
    pub attempts: Attempts,
    /// The message with its errors, for one that failed and keeps its place; and how long it still
    /// waits, by the store's clock.
    pub kept: Option<(Duration, Bytes)>,
}

/// What [`Owners::take`] found.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Taken {
    /// The token holds from now on.
    Taken {
        /// How far the owners before have come in the log and in the redelivery stream.
        cursors: [Cursor; 2],
        /// What they noted of messages that are not settled.
        notes: Vec<Note>,
        /// Messages that [effects](super::EffectStore::commit_owned) have settled since the last step.
        settled: Vec<DeliveryId>,
    },
    /// Another member took the cursor with this token, which is not smaller. Nothing was changed.
    Stale(u64),
}

/// A failed message that keeps its place, and holds back the later messages of its key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeptMessage {
    /// The message.
    pub delivery: DeliveryId,
    /// When it is due again, by the store's clock. It may be running since then.
    pub due: Timestamp,
    /// The message with its errors, as it comes back; `None` where the caller did not ask for it.
    pub message: Option<Bytes>,
}

/// How far the owners of a partition have come.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OwnedProgress {
    /// The store's time at this moment.
    pub now: Timestamp,
    /// The member that last took the cursor, with the token under which it did; `None` where none has.
    pub taken: Option<Owner>,
    /// How far they have come in the log and in the redelivery stream.
    pub cursors: [Cursor; 2],
    /// The failed messages that keep their places, the oldest first.
    pub kept: Vec<KeptMessage>,
}

/// How far the owner has come in one lane.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct LaneStep {
    /// Where the cursor stands now.
    pub cursor: Cursor,
    /// How many entries `low` has passed since the last step.
    pub passed: u64,
}

/// What an owner writes in one step.
#[derive(Clone, Debug, Default)]
pub struct Step {
    /// Its token.
    pub token: u64,
    /// The number of the step, from 1 for each token. The store does a step once, however often it
    /// gets the last number.
    pub number: u64,
    /// The log and the redelivery stream; `None` for one that stays as it is.
    pub lanes: [Option<LaneStep>; 2],
    /// Retries and dead letters of messages that the cursors count as settled.
    pub ends: Vec<Commit>,
    /// Notes to write.
    pub notes: Vec<Note>,
    /// Messages whose notes go, and those settled by effects that the cursors count from now on.
    pub forgets: Vec<DeliveryId>,
}

/// The answer to a [`Step`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Stepped {
    /// The step is done.
    Done,
    /// Another member has taken the partition. Nothing was written.
    Stale,
}

role! {
    /// Owned groups: members, partitions and fenced cursors.
    pub trait Owners (owners, OwnersOp, OwnersAnswer, OwnersCalls) {
        /// Creates an owned group on one partition, or finds it: an existing one keeps its cursor.
        /// Fails with [`Refused`](crate::ErrorKind::Refused) where the group exists and is not owned.
        fn create as Create(at: &'a GroupAt, start: StartFrom) -> ();

        /// Joins the group, or stays in it for the lease. In the same step gives partitions up, and
        /// claims partitions.
        ///
        /// A claim is granted where the partition has no owner, or an owner whose lease has ended. It
        /// gets a token that is greater than every earlier one of the partition, also those of a group of
        /// this name that was removed. A claim on an own partition gets a new token where the member's is
        /// not above the number it names. Only the owner can give a partition up. A member that is about to
        /// leave owns what it has not given up. `by` names partition 0.
        fn attend as Attend(by: &'a Member, attendance: &'a Attendance) -> Roster;

        /// Leaves the group, and gives up every partition. `by` names partition 0.
        fn leave as Leave(by: &'a Member) -> ();

        /// The members and what they own. Changes nothing.
        fn roster as Roster(at: &'a GroupAt) -> Roster;

        /// Takes the cursor of a partition under a token. Taking it again under the same token, as
        /// after a lost answer, is the same as once. A cursor that was moved from outside, such as by
        /// [`reset_group`](super::Topics::reset_group), is where it was moved to. Fails with
        /// [`NotFound`](crate::ErrorKind::NotFound) when the group is gone.
        fn take as Take(by: &'a Member, token: u64) -> Taken;

        /// How far the owners of a partition have come, and which failed messages keep their places there:
        /// 4,096 at most, the oldest `max` of them with their content, fewer where they are heavy. Changes
        /// nothing, and the owner keeps its token. Returns no cursor if no member has taken it, or if the
        /// group does not exist.
        fn progress as Progress(at: &'a GroupAt, max: usize) -> OwnedProgress;

        /// Up to `max` entries of a lane after an id, in their order. Checks no token.
        fn read as Read(at: &'a GroupAt, lane: Lane, after: EntryId, max: usize) -> Vec<(EntryId, Fields)>;

        /// Lets the [bell](super::Store::bell) of the group ring from now on. Returns whether it does;
        /// otherwise the runtime looks at regular times.
        fn listen as Listen(at: &'a GroupAt) -> bool;

        /// Writes a step, all or nothing, if the token holds. A step whose number is neither the
        /// last one nor the next is stale, as after a failover that lost steps. A step of settled
        /// entries and begun attempts only succeeds also while the server's memory is full. Fails with
        /// [`NotFound`](crate::ErrorKind::NotFound) when the group or its cursor is gone.
        fn step as Step(by: &'a Member, step: &'a Step) -> Stepped;
    }
}

/// The error of [`Owners::create`] and of [`create_group`](super::Topics::create_group) where the
/// group exists as the other kind.
pub(crate) fn wrong_kind(operation: &'static str, is_owned: bool) -> Error {
    let rule = match is_owned {
        true => "the group is owned: subscribe with_ownership, or name another group",
        false => "the group is shared: subscribe without ownership, or name another group",
    };
    Error::new(crate::domain::ErrorKind::Refused, operation, rule)
}
