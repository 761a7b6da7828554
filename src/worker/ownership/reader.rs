//! Reads the partitions that this process owns.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::group::OwnedGroup;
use super::partition::OwnedPartition;
use crate::domain::{BoxFuture, Error, describe};
use crate::store::{Bell, Fetched, Interrupt, Opened, Reader, Ring};
use crate::worker::fault::back_off;

/// How long ready messages wait for those whose beginning the store learns of at the same time.
const GATHERS: Duration = Duration::from_millis(50);

pub(super) fn open(group: &Arc<OwnedGroup>) -> Opened {
    let interrupted = Arc::<Notify>::default();
    let reader = OwnedReader {
        bell: group.store.bell(&group.member.at),
        group: Arc::clone(group),
        interrupted: Arc::clone(&interrupted),
        first: 0,
        reads: FuturesUnordered::new(),
        reading: BTreeSet::new(),
        answers: mpsc::unbounded_channel(),
        allowing: BTreeMap::new(),
        failed: BTreeMap::new(),
    };
    (Box::new(reader), Box::new(OwnedInterrupt(interrupted)))
}

/// A partition, and the messages that the store allows to begin there.
type Allowed = (u16, Result<Vec<Fetched>, Error>);

/// Each partition is read by itself, so one that does not answer delays no other.
#[derive(Debug)]
struct OwnedReader {
    group: Arc<OwnedGroup>,
    /// Rings for every partition.
    bell: Option<Arc<Bell>>,
    interrupted: Arc<Notify>,
    /// Which partition comes first, so that they take turns.
    first: usize,
    /// The reads under way, also those that an earlier fetch began, and their partitions.
    reads: FuturesUnordered<BoxFuture<'static, (u16, Result<(), Error>)>>,
    reading: BTreeSet<u16>,
    answers: (
        mpsc::UnboundedSender<Allowed>,
        mpsc::UnboundedReceiver<Allowed>,
    ),
    /// The partitions whose answer is under way, and how many messages it is about.
    allowing: BTreeMap<u16, usize>,
    /// How often the last calls for a partition have failed, and when the next one may begin.
    failed: BTreeMap<u16, (u32, Instant)>,
}

impl OwnedReader {
    /// Whether the last call for a partition has failed, and the next one is to wait.
    fn rests(&self, number: u16) -> bool {
        let failed = self.failed.get(&number);
        failed.is_some_and(|(_, until)| *until > Instant::now())
    }

    /// Begins to read the partitions that are not read already.
    fn read_on(&mut self, max: usize) {
        for partition in self.group.all() {
            let number = partition.number();
            if !self.rests(number) && partition.wants_more(max) && self.reading.insert(number) {
                let read = async move { (number, partition.read(max).await) };
                self.reads.push(Box::pin(read));
            }
        }
    }

    /// Hands out ready messages of all partitions in turn.
    async fn look(&mut self, max: usize) -> Vec<Fetched> {
        let mut fetched = Vec::new();
        while let Some(Some(read)) = self.reads.next().now_or_never() {
            self.note_read(read);
        }
        while let Ok(allowed) = self.answers.1.try_recv() {
            fetched.extend(self.note(allowed));
        }
        let mut partitions = self.group.all();
        if partitions.is_empty() {
            return fetched;
        }
        self.first = (self.first + 1) % partitions.len();
        partitions.rotate_left(self.first);
        // Partitions that do not answer keep at most half of the room from the others.
        let allowing: usize = self.allowing.values().sum();
        let mut room = max.saturating_sub(fetched.len() + allowing.min(max / 2));
        let mut asked = Vec::new();
        for partition in partitions {
            let number = partition.number();
            if room == 0 {
                break;
            }
            if self.allowing.contains_key(&number) || self.rests(number) {
                continue;
            }
            let hand_out = partition.take(room);
            room -= hand_out.len();
            if hand_out.needs_step() {
                self.allowing.insert(number, hand_out.len());
                asked.push(number);
                let (answers, group) = (self.answers.0.clone(), Arc::clone(&self.group));
                // Not dropped with this reader: what it is about would never be handed out again.
                tokio::spawn(async move {
                    let allowed = partition.allow(hand_out).await;
                    if let Err(mpsc::error::SendError((_, allowed))) =
                        answers.send((number, allowed))
                    {
                        put_back(&group, &partition, allowed.unwrap_or_default());
                    }
                });
            } else {
                fetched.extend(partition.fetched(&hand_out));
            }
        }
        let until = Instant::now() + GATHERS;
        while asked.iter().any(|one| self.allowing.contains_key(one)) {
            match timeout_at(until, self.answers.1.recv()).await {
                Ok(Some(allowed)) => fetched.extend(self.note(allowed)),
                _ => break,
            }
        }
        fetched
    }

    fn note_read(&mut self, (number, read): (u16, Result<(), Error>)) {
        self.reading.remove(&number);
        self.note_call(number, read.err());
    }

    /// Notes an answer of the store. Returns the messages that may begin.
    fn note(&mut self, (number, allowed): Allowed) -> Vec<Fetched> {
        self.allowing.remove(&number);
        let (fetched, error) = match allowed {
            Ok(fetched) => (fetched, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        self.note_call(number, error);
        fetched
    }

    fn note_call(&mut self, number: u16, error: Option<Error>) {
        let group = &self.group;
        let had_failed = !self.failed.is_empty();
        let before = self.failed.remove(&number);
        self.failed.retain(|number, _| group.get(*number).is_some());
        if let Some(error) = error {
            let failures = before.map_or(1, |(failures, _)| failures + 1);
            let until = Instant::now() + back_off(failures);
            self.failed.insert(number, (failures, until));
            if !group.reading.is_set() {
                tracing::warn!(
                    subscription = %group.member, partition = number, error = %describe(&error),
                    "a partition cannot be read; retrying until it works"
                );
            }
            group.reading.set(&error);
        } else if had_failed && self.failed.is_empty() {
            group.reading.clear();
        }
    }

    async fn read(&mut self, max: usize, wait: Duration) -> Vec<Fetched> {
        let until = Instant::now() + wait;
        let interrupted = Arc::clone(&self.interrupted);
        loop {
            let mut interrupted = pin!(interrupted.notified());
            let rings = self
                .bell
                .as_ref()
                .map_or(0, |bell| bell.count(Ring::Entries));
            let changes = self.group.changed.count();
            self.read_on(max);
            loop {
                let fetched = self.look(max).await;
                if !fetched.is_empty() || Instant::now() >= until {
                    return fetched;
                }
                let hears = self.bell.as_ref().is_some_and(|bell| bell.hears());
                let look = (!hears).then(|| Instant::now() + self.group.pause_between_looks());
                let all = self.group.all();
                let due = all.iter().filter_map(|one| one.next_due()).min();
                let again = self.failed.values().map(|(_, until)| *until);
                let again = again.filter(|until| *until > Instant::now()).min();
                let next = [look, due, again];
                let next = next.into_iter().flatten().fold(until, Instant::min);
                let rung = async {
                    match &self.bell {
                        Some(bell) => bell.rung_since(Ring::Entries, rings).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    biased;
                    () = &mut interrupted => return Vec::new(),
                    Some(read) = self.reads.next(), if !self.reads.is_empty() => self.note_read(read),
                    Some(allowed) = self.answers.1.recv() => {
                        let fetched = self.note(allowed);
                        if !fetched.is_empty() {
                            return fetched;
                        }
                    }
                    () = rung => break,
                    () = self.group.changed.since(changes) => break,
                    () = sleep_until(next) => break,
                }
            }
        }
    }
}

impl Drop for OwnedReader {
    fn drop(&mut self) {
        self.answers.1.close();
        while let Ok((number, allowed)) = self.answers.1.try_recv() {
            if let (Some(partition), Ok(fetched)) = (self.group.get(number), allowed) {
                put_back(&self.group, &partition, fetched);
            }
        }
    }
}

/// Puts messages back that no reader hands out.
fn put_back(group: &OwnedGroup, partition: &OwnedPartition, fetched: Vec<Fetched>) {
    let ids = fetched
        .into_iter()
        .map(|one| super::group::bare(one.receipt));
    partition.put_back(ids, Duration::ZERO);
    group.changed.ring();
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
