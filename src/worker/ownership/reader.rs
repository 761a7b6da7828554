//! Reads the partitions that this process owns.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::forget;
use std::panic::resume_unwind;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::group::OwnedGroup;
use super::partition::OwnedPartition;
use crate::api::Fence;
use crate::domain::{BoxFuture, Error, describe};
use crate::store::{Bell, Fetched, Interrupt, Opened, Reader, Ring, Rings};
use crate::worker::fault::back_off;

/// How long a look waits for calls to the store. Calls that take longer go on beside the next looks.
const PATIENCE: Duration = Duration::from_millis(20);

pub(super) fn open(group: &Arc<OwnedGroup>) -> Opened {
    let interrupted = Arc::<Notify>::default();
    let reader = OwnedReader {
        bell: group.store.bell(&group.member.at),
        group: Arc::clone(group),
        interrupted: Arc::clone(&interrupted),
        first: 0,
        late: JoinSet::new(),
        asked: BTreeSet::new(),
        failed: BTreeMap::new(),
    };
    (Box::new(reader), Box::new(OwnedInterrupt(interrupted)))
}

/// A call for a partition, which prepares its next messages.
type Call = (Arc<OwnedPartition>, Result<(), Error>);

/// Lets the flusher ask the partition if the call fails or is dropped: it may leave a step without an answer.
struct Asks<'a>(&'a Rings);

impl Drop for Asks<'_> {
    fn drop(&mut self) {
        self.0.ring();
    }
}

async fn prepare(group: Arc<OwnedGroup>, partition: Arc<OwnedPartition>, max: usize) -> Call {
    let asks = Asks(&group.unwritten);
    let prepared = partition.prepare(max).await;
    if prepared.is_ok() {
        forget(asks);
    }
    (partition, prepared)
}

/// A partition that does not answer, or whose last call failed, is left out: it delays no other.
#[derive(Debug)]
struct OwnedReader {
    group: Arc<OwnedGroup>,
    /// Rings for every partition.
    bell: Option<Arc<Bell>>,
    interrupted: Arc<Notify>,
    /// Which partition comes first, so that they take turns.
    first: usize,
    /// The calls that took longer than a look. They are tasks, because a call that waits for the store holds
    /// the partition's turn to write; and they end with this reader.
    late: JoinSet<Call>,
    /// The partitions that these calls are for, in the time of this owner.
    asked: BTreeSet<Fence>,
    /// How often the last calls for a partition have failed, and when the next one may begin.
    failed: BTreeMap<Fence, (u32, Instant)>,
}

impl OwnedReader {
    /// Until when a partition is left out, because its last call failed.
    fn rests_until(&self, partition: &OwnedPartition) -> Option<Instant> {
        let failed = self.failed.get(&partition.tenure.fence());
        failed.map(|(_, until)| *until)
    }

    /// Whether a look leaves a partition out that begins at this time.
    fn is_left_out(&self, partition: &OwnedPartition, at: Instant) -> bool {
        let rests = self.rests_until(partition);
        self.asked.contains(&partition.tenure.fence()) || rests.is_some_and(|until| until > at)
    }

    /// Prepares the next messages of each partition in turn, then takes those that may begin. Between the
    /// two nothing waits, so a message that is taken is on its way to the workers at once.
    async fn look(&mut self, max: usize, began: Instant) -> Vec<Fetched> {
        while let Some(late) = self.late.try_join_next() {
            self.note_late(late);
        }
        let mut partitions = self.group.all();
        if partitions.is_empty() {
            return Vec::new();
        }
        self.first = (self.first + 1) % partitions.len();
        partitions.rotate_left(self.first);
        let until = began + PATIENCE;
        for partition in &partitions {
            if self.is_left_out(partition, began) {
                continue;
            }
            if !partition.needs_call(max) {
                if !partition.is_silent() {
                    self.note(partition, Ok(()));
                }
                continue;
            }
            let group = Arc::clone(&self.group);
            let mut call = Box::pin(prepare(group, Arc::clone(partition), max));
            match timeout_at(until, &mut call).await {
                Ok((partition, prepared)) => self.note(&partition, prepared),
                Err(_) => {
                    self.asked.insert(partition.tenure.fence());
                    self.late.spawn(call);
                }
            }
        }
        // Also from a partition whose call is under way: what an earlier call has prepared may begin. A server
        // that is always slow would otherwise hand nothing out.
        partitions.retain(|one| self.rests_until(one).is_none_or(|until| until <= began));
        let share = max.div_ceil(partitions.len().max(1));
        let mut all = Vec::new();
        // First an equal part of each partition, so that none gets all workers.
        for most in [share, max] {
            for partition in &partitions {
                let room = max - all.len();
                if room > 0 {
                    all.extend(partition.take(most.min(room)));
                }
            }
        }
        all
    }

    fn note_late(&mut self, late: Result<Call, JoinError>) {
        match late {
            Ok((partition, prepared)) => {
                self.asked.remove(&partition.tenure.fence());
                self.note(&partition, prepared);
            }
            Err(error) => {
                if let Ok(panic) = error.try_into_panic() {
                    // The fetcher is watched: it reads on with another reader.
                    resume_unwind(panic);
                }
            }
        }
    }

    /// Notes the end of a call.
    fn note(&mut self, partition: &OwnedPartition, prepared: Result<(), Error>) {
        let fence = partition.tenure.fence();
        let before = self.failed.remove(&fence);
        match prepared {
            Ok(()) => {
                // An earlier reader may have set it.
                if partition.faults.reading.is_set() {
                    partition.faults.reading.clear();
                    tracing::info!(
                        subscription = %self.group.member, partition = fence.partition,
                        "reading a partition again",
                    );
                }
            }
            Err(error) => {
                let failures = before.map_or(1, |(failures, _)| failures + 1);
                let until = Instant::now() + back_off(failures);
                self.failed.insert(fence, (failures, until));
                partition.faults.reading.set(&error);
                if failures == 1 {
                    tracing::warn!(
                        subscription = %self.group.member, partition = fence.partition,
                        error = %describe(&error),
                        "reading a partition failed; retrying until it works",
                    );
                }
                // The flusher asks a partition whose step failed.
                self.group.unwritten.ring();
            }
        }
    }

    async fn read(&mut self, max: usize, wait: Duration) -> Vec<Fetched> {
        let until = Instant::now() + wait;
        let interrupted = Arc::clone(&self.interrupted);
        loop {
            let mut interrupted = pin!(interrupted.notified());
            interrupted.as_mut().enable();
            let rings = self
                .bell
                .as_ref()
                .map_or(0, |bell| bell.count(Ring::Entries));
            let changes = self.group.changed.count();
            let began = Instant::now();
            let fetched = self.look(max, began).await;
            if !fetched.is_empty() || Instant::now() >= until {
                return fetched;
            }
            let next = self.next_look(max, began);
            let next = next.map_or(until, |next| next.min(until));
            let rung = async {
                match &self.bell {
                    Some(bell) => bell.rung_since(Ring::Entries, rings).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = interrupted => return Vec::new(),
                Some(late) = self.late.join_next() => self.note_late(late),
                () = rung => {}
                () = self.group.changed.since(changes) => {}
                () = sleep_until(next) => {}
            }
        }
    }

    /// When to look again though nothing rings, after a look that began at a time.
    fn next_look(&mut self, max: usize, began: Instant) -> Option<Instant> {
        let partitions = self.group.all();
        self.failed
            .retain(|fence, _| partitions.iter().any(|one| one.tenure.fence() == *fence));
        let hears = self.bell.as_ref().is_some_and(|bell| bell.hears());
        let look = (!hears).then(|| Instant::now() + self.group.pause_between_looks());
        // What is due in a partition that is left out makes nobody look.
        let due = partitions
            .iter()
            .filter_map(|one| match self.is_left_out(one, began) {
                true => self.rests_until(one).filter(|until| *until > began),
                false if one.needs_step(max) => Some(began),
                false => one.next_due(),
            });
        due.chain(look).min()
    }
}

impl Reader for OwnedReader {
    fn fetch(&mut self, max: usize, wait: Duration) -> BoxFuture<'_, Result<Vec<Fetched>, Error>> {
        Box::pin(async move { Ok(self.read(max, wait).await) })
    }
}

#[derive(Debug)]
struct OwnedInterrupt(Arc<Notify>);

impl Interrupt for OwnedInterrupt {
    fn interrupt(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async {
            self.0.notify_waiters();
            Ok(())
        })
    }
}
