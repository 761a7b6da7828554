//! Reads the partitions that this process owns.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::group::OwnedGroup;
use crate::domain::{BoxFuture, Error};
use crate::store::{Bell, Fetched, Interrupt, Opened, Reader, Ring};

pub(super) fn open(group: &Arc<OwnedGroup>) -> Opened {
    let interrupted = Arc::<Notify>::default();
    let reader = OwnedReader {
        bell: group.store.bell(&group.member.at),
        group: Arc::clone(group),
        interrupted: Arc::clone(&interrupted),
        first: 0,
    };
    (Box::new(reader), Box::new(OwnedInterrupt(interrupted)))
}

#[derive(Debug)]
struct OwnedReader {
    group: Arc<OwnedGroup>,
    /// Rings for every partition.
    bell: Option<Arc<Bell>>,
    interrupted: Arc<Notify>,
    /// Which partition comes first, so that they take turns.
    first: usize,
}

impl OwnedReader {
    /// Hands out messages of all partitions in turn.
    async fn look(&mut self, max: usize) -> Result<Vec<Fetched>, Error> {
        let mut partitions = self.group.all();
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        self.first = (self.first + 1) % partitions.len();
        partitions.rotate_left(self.first);
        let (mut found, mut room, mut failure) = (Vec::new(), max, None);
        for partition in partitions {
            if room == 0 {
                break;
            }
            match partition.hand_out(room).await {
                Ok(fetched) => {
                    room -= fetched.len();
                    found.push((partition, fetched));
                }
                Err(error) => failure = Some(error),
            }
        }
        // A partition that was lost meanwhile hands its messages out again when it is back.
        found.retain(|(partition, _)| !partition.tenure.is_over());
        let all: Vec<Fetched> = found.into_iter().flat_map(|(_, fetched)| fetched).collect();
        match failure {
            Some(failure) if all.is_empty() => Err(failure),
            _ => Ok(all),
        }
    }

    async fn read(&mut self, max: usize, wait: Duration) -> Result<Vec<Fetched>, Error> {
        let until = Instant::now() + wait;
        let interrupted = Arc::clone(&self.interrupted);
        loop {
            let interrupted = interrupted.notified();
            let rings = self
                .bell
                .as_ref()
                .map_or(0, |bell| bell.count(Ring::Entries));
            let changes = self.group.changed.count();
            let fetched = self.look(max).await?;
            if !fetched.is_empty() || Instant::now() >= until {
                return Ok(fetched);
            }
            let hears = self.bell.as_ref().is_some_and(|bell| bell.hears());
            let look = (!hears).then(|| Instant::now() + self.group.pause_between_looks());
            let due = self
                .group
                .all()
                .iter()
                .filter_map(|one| one.next_due())
                .min();
            let next = [look, due].into_iter().flatten().fold(until, Instant::min);
            let rung = async {
                match &self.bell {
                    Some(bell) => bell.rung_since(Ring::Entries, rings).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = interrupted => return Ok(Vec::new()),
                () = rung => {}
                () = self.group.changed.since(changes) => {}
                () = sleep_until(next) => {}
            }
        }
    }
}

impl Reader for OwnedReader {
    fn fetch(&mut self, max: usize, wait: Duration) -> BoxFuture<'_, Result<Vec<Fetched>, Error>> {
        Box::pin(self.read(max, wait))
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
