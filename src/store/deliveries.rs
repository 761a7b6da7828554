//! Deliveries: what consumers hold, how they read more, and how each delivery ends.
//!
//! A [`DeliveryId`] identifies a delivery within its member. It does not tell one hand-out from the
//! next of the same entry to the same member. The runtime's in-flight table does that by tokens of
//! its own, so the port carries none.
//!
//! A store counts the attempts at an entry that were begun, and those among them that are known to
//! have failed. A hand-out counts nothing. The runtime marks an attempt with [`Deliveries::begin`]
//! where it needs an exact count, and leaves the first attempt at an entry unmarked, because a mark
//! costs a call. It also notes a failure with it when the next attempt runs from memory.

use std::fmt;
use std::time::Duration;

use super::attempts::Attempts;
use super::commit::{Commits, Replies};
use super::source::{DeliveryId, Member};
use crate::domain::{BoxFuture, EntryId, Error};
use crate::wire::Fields;

/// An entry handed to a consumer, under a lease.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Which source of the reader's [`Opening`](crate::store::Opening) it came from. An entry that
    /// [`Deliveries::claim_expired`] took over counts the log as 0 and the redelivery stream as 1.
    pub source: u16,
    /// What it is settled by.
    pub receipt: DeliveryId,
    /// Its fields. Those of a redelivery were given to [`End::Reschedule`](super::End::Reschedule) or a redrive.
    pub fields: Fields,
    /// The attempts at the entry before; none for an entry that no member was given.
    pub attempts: Attempts,
    /// What came before this hand-out.
    pub kind: Kind,
}

/// What came before a hand-out, in an owned group. A shared group has fresh hand-outs only:
/// [`Deliveries::claim_expired`] gives the others.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Kind {
    /// Nothing.
    #[default]
    Fresh,
    /// An earlier attempt may have begun: the next one is marked.
    TakenOver,
    /// The message failed and has kept its place. The fields are those of a redelivery.
    Kept,
}

/// Who holds a delivery, as the store answers the member that asks about it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Holder {
    /// The member.
    Member,
    /// The member held it until this call. Something other than Redstart removed the entry from its
    /// stream, so no other member can get it.
    Trimmed,
    /// Nobody. The delivery has ended, or something other than Redstart removed the consumer.
    Nobody,
    /// Another member; or the group is gone.
    Other,
}

/// An attempt that begins, or that has failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Begin {
    /// The delivery.
    pub delivery: DeliveryId,
    /// The attempts at the entry from now on. At least one was begun.
    pub attempts: Attempts,
}

/// How [`Deliveries::claim_expired`] counts an entry that was fetched and whose attempt was never
/// marked: nobody knows whether it began.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unmarked {
    /// As one attempt.
    Begun,
    /// As none, because the members of the group mark every attempt.
    NotBegun,
}

/// What [`Deliveries::claim_expired`] took over.
#[derive(Debug, Default)]
pub struct Reclaimed {
    /// Entries whose lease had expired; the caller holds them now.
    pub taken: Vec<Fetched>,
    /// Where the next call continues.
    pub cursor: ReclaimCursor,
    /// Entries that someone removed while a consumer held them: data loss.
    pub missing: u64,
    /// The lease of the group; zero where none is set.
    pub lease: Duration,
    /// How many entries the members of the group held before the call, expired or not.
    pub pending: u64,
}

/// How far a reclaimer has come in each lane.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ReclaimCursor {
    /// In the log.
    pub log: EntryId,
    /// In the redelivery stream.
    pub redelivery: EntryId,
}

role! {
    /// What consumers hold, and how each delivery ends.
    pub trait Deliveries (deliveries, DeliveriesOp, DeliveriesAnswer, DeliveriesCalls) {
        /// Ends deliveries.
        ///
        /// Acknowledgements are not fenced: work that was done is done, whoever holds the lease now.
        /// Acknowledging twice succeeds.
        ///
        /// The fenced commits end deliveries that the member still holds; each one atomically,
        /// written before it is acknowledged. Where the member does not hold the delivery, nothing
        /// is written.
        ///
        /// An error of the whole call means that the store did nothing, or that the outcome of
        /// every commit is unknown. Repeating the same call is safe in either case.
        fn commit as Commit(by: &'a Member, commits: &'a Commits) -> Replies;

        /// Records the attempts at entries, because one begins or has failed, and restarts the
        /// leases. Answers who holds each delivery; where the member does not, nothing is written.
        /// The counts are absolute, so repeating the call is safe.
        fn begin as Begin(by: &'a Member, begins: &'a [Begin]) -> Vec<Holder>;

        /// Restarts the lease of deliveries. Answers who holds each.
        fn extend as Extend(by: &'a Member, receipts: &'a [DeliveryId]) -> Vec<Holder>;

        /// The deliveries that the member holds, up to `max`, oldest first in each lane. A
        /// connection that broke while a fetch was answered leaves deliveries of which the member
        /// does not know. Fails with [`NotFound`](crate::ErrorKind::NotFound) when the group is
        /// gone.
        fn pending_of as PendingOf(by: &'a Member, max: usize) -> Vec<DeliveryId>;

        /// Takes over up to `max` entries of each lane whose lease is older than `lease`, and than
        /// the lease of the group, from any member. Counts no attempt but the one that `unmarked`
        /// says. Continues at `cursor`, and starts over after the end. Fails with
        /// [`NotFound`](crate::ErrorKind::NotFound) when the group is gone.
        fn claim_expired as ClaimExpired(
            by: &'a Member, lease: Duration, unmarked: Unmarked, cursor: ReclaimCursor, max: usize,
        ) -> Reclaimed;
    }
}

/// A reader, and the handle that ends its wait.
pub type Opened = (Box<dyn Reader>, Box<dyn Interrupt>);

/// Reads the sources of one [`Opening`](crate::store::Opening).
pub trait Reader: Send + fmt::Debug {
    /// Takes entries that no member of the group has been given: up to `max` of each source.
    ///
    /// Waits up to `wait` while there are none, then returns an empty list. Fails with
    /// [`NotFound`](crate::ErrorKind::NotFound) when the group is gone. After any other error
    /// the reader cannot be used again, and the member may hold entries that it never saw.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: entries on their way are then held unseen. Use [`Interrupt`].
    fn fetch(&mut self, max: usize, wait: Duration) -> BoxFuture<'_, Result<Vec<Fetched>, Error>>;

    /// Waits, for any time, until a fetch may find entries. The next fetch then looks at once and does
    /// not wait. If no fetch follows, the next wait returns at once. `None` for a reader that can only
    /// wait within a fetch.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it takes nothing.
    fn ready(&mut self) -> Option<BoxFuture<'_, ()>> {
        None
    }
}

/// Ends a reader's wait early, from another task.
pub trait Interrupt: Send + Sync + fmt::Debug {
    /// Makes a waiting fetch return with what it has. Does nothing while no fetch waits.
    fn interrupt(&self) -> BoxFuture<'_, Result<(), Error>>;
}
