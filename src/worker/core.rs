//! What the parts of one running subscription share.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::api::options::SubscribeOptions;
use crate::domain::{Error, RetryPolicy, TopicSettings, describe};
use crate::store::{DeliveryId, Fetched, Member, Settlement, Store};
use crate::wire::Limits;
use crate::worker::intake::capacity::Capacity;
use crate::worker::intake::in_flight::InFlight;
use crate::worker::intake::queue::{Job, Queue};
use crate::worker::meters::Meters;

pub(crate) struct Core {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) member: Arc<Member>,
    pub(crate) handler_name: String,
    pub(crate) options: SubscribeOptions,
    pub(crate) limits: Limits,
    pub(crate) meters: Meters,
    pub(crate) held: InFlight,
    pub(crate) room: Capacity,
    pub(crate) queue: Queue,
    pub(crate) acks: mpsc::Sender<DeliveryId>,
    pub(crate) writes: mpsc::Sender<Settlement>,
    /// Reading ends.
    pub(crate) stop: CancellationToken,
    /// The keeper, the promoter and the janitor end.
    pub(crate) halt: CancellationToken,
    /// Only one of recovery and reclaim claims at a time.
    pub(crate) claiming: tokio::sync::Mutex<()>,
    /// When a retry of this consumer's is due, sooner than the promoter may know.
    pub(crate) due: Due,
    pub(crate) acknowledged: AtomicU64,
    /// The topic's settings as they were found: after FLUSHALL it gets them back.
    pub(crate) settings: TopicSettings,
    /// This consumer may hold deliveries that it has never seen.
    pub(crate) stranded: AtomicBool,
    /// Why due retries do not come back, while they do not.
    pub(crate) promoting: Fault,
    /// Why leases are not extended, while they are not.
    pub(crate) keeping: Fault,
    /// Why reading does not work, while it does not.
    pub(crate) reading: Fault,
    /// Why retries, snoozes and dead letters cannot be written, while they cannot.
    pub(crate) writing: Fault,
    /// Why acknowledging does not work, while it does not.
    pub(crate) acknowledging: Fault,
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core")
            .field("member", &self.member)
            .finish_non_exhaustive()
    }
}

impl Core {
    /// Enters deliveries and hands them to the workers; those held already are left alone.
    pub(crate) fn hand_over(&self, fetched: Vec<Fetched>) -> usize {
        let entered = self.held.enter(fetched.iter().map(|one| one.receipt));
        let new = entered.iter().flatten().count();
        self.room.take(new);
        let jobs = fetched.into_iter().zip(entered);
        self.queue.push(jobs.filter_map(|(fetched, lease)| {
            let lease = lease?;
            Some(Job { fetched, lease })
        }));
        self.meters.delivered.increment(new as u64);
        self.meters.in_flight.set(self.held.len() as f64);
        new
    }

    /// Why the subscription does not work at the moment, if it does not.
    pub(crate) fn trouble(&self) -> Option<String> {
        let parts = [
            ("reading", &self.reading),
            ("extending leases", &self.keeping),
            ("bringing retries back", &self.promoting),
            ("settling", &self.writing),
            ("acknowledging", &self.acknowledging),
        ];
        let said: Vec<String> = parts
            .into_iter()
            .filter_map(|(what, trouble)| Some(format!("{what}: {}", trouble.said()?)))
            .collect();
        (!said.is_empty()).then(|| said.join("; "))
    }
}

/// Why a part does not work, while it does not.
#[derive(Debug, Default)]
pub(crate) struct Fault(Mutex<Option<String>>);

impl Fault {
    pub(crate) fn say(&self, error: &Error) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(describe(error));
    }

    pub(crate) fn over(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn said(&self) -> Option<String> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// The earliest due time that this consumer has set and the promoter has not seen.
#[derive(Debug, Default)]
pub(crate) struct Due {
    earliest: Mutex<Option<tokio::time::Instant>>,
    changed: Notify,
}

impl Due {
    pub(crate) fn set(&self, delay: Duration) {
        let at = tokio::time::Instant::now() + delay;
        let mut earliest = self.earliest.lock().unwrap_or_else(PoisonError::into_inner);
        if earliest.is_none_or(|known| at < known) {
            *earliest = Some(at);
            self.changed.notify_one();
        }
    }

    pub(crate) fn take(&self) -> Option<tokio::time::Instant> {
        self.earliest
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// How long to wait before trying again what failed `failures` times in a row.
///
/// Reconnects neither spin nor give up: from 100 milliseconds to 5 seconds, jittered.
pub(crate) fn back_off(failures: u32) -> Duration {
    RetryPolicy::exponential(Duration::from_millis(100), Duration::from_secs(5))
        .with_max_attempts(u32::MAX)
        .delay_after(failures.max(1), fastrand::f64())
        .unwrap_or(Duration::from_secs(5))
}
