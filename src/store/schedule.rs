//! Retries and snoozed messages that are not due yet.

use std::time::Duration;

use bytes::Bytes;

use super::source::{DeliveryId, GroupAt};
use crate::domain::Timestamp;

/// What [`Schedule::promote`] or [`Later::promote`](super::Later::promote) moved.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Promoted {
    /// How many entries went to the redelivery stream.
    pub moved: u64,
    /// How many messages for later went to the log.
    pub published: u64,
    /// How long until the next one is due; zero when one is due already.
    pub next: Option<Duration>,
    /// How many due retries and messages for later had lost their message: something other than
    /// Redstart removed it.
    pub missing: u64,
}

/// A scheduled retry or snoozed message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Scheduled {
    /// The delivery that it ended.
    pub receipt: DeliveryId,
    /// When it is due, by the store's clock.
    pub due: Timestamp,
    /// What the redelivery stream will hold.
    pub redelivery: Bytes,
}

/// A page of scheduled entries, from [`Schedule::list`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ScheduledPage {
    /// The store's time at this moment.
    pub now: Timestamp,
    /// Earliest first.
    pub entries: Vec<Scheduled>,
}

role! {
    /// Retries and snoozed messages that are not due yet.
    pub trait Schedule (schedule, ScheduleOp, ScheduleAnswer, ScheduleCalls) {
        /// Moves up to `max` due entries to the redelivery stream, earliest first, and up to `max`
        /// due messages for later to the log of the partition.
        fn promote as Promote(at: &'a GroupAt, max: usize) -> Promoted;

        /// Scheduled entries after a position in their order, earliest first. Up to `max` of them,
        /// fewer where they are heavy, none only at the end.
        fn list as List(
            at: &'a GroupAt, after: Option<(Timestamp, DeliveryId)>, max: usize,
        ) -> ScheduledPage;

        /// Moves these entries to the redelivery stream now, each atomically. For each, whether it
        /// was scheduled.
        fn run_now as RunNow(at: &'a GroupAt, receipts: &'a [DeliveryId]) -> Vec<bool>;

        /// Removes these entries for good. For each, whether it was scheduled.
        fn cancel as Cancel(at: &'a GroupAt, receipts: &'a [DeliveryId]) -> Vec<bool>;
    }
}
