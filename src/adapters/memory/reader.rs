//! Reading: entries that are there at once, or that arrive while the reader waits.

use std::collections::BTreeSet;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select_all;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use super::adapter::{MemoryAdapter, gone};
use super::state::Space;
use crate::domain::{BoxFuture, Error};
use crate::store::{Fetched, Interrupt, Opened, Opening, Reader};

impl MemoryAdapter {
    pub(super) fn open_reader(&self, opening: &Opening) -> Opened {
        let interrupted = Arc::new(Notify::new());
        let reader = MemoryReader {
            store: self.clone(),
            opening: opening.clone(),
            interrupted: Arc::clone(&interrupted),
        };
        (Box::new(reader), Box::new(MemoryInterrupt(interrupted)))
    }
}

#[derive(Debug)]
struct MemoryReader {
    store: MemoryAdapter,
    opening: Opening,
    interrupted: Arc<Notify>,
}

/// The result of one look: entries, or what completes at the next arrival in each partition.
enum Look {
    Found(Vec<Fetched>),
    Nothing(Vec<Pin<Box<OwnedNotified>>>),
}

impl MemoryReader {
    fn look(&self, max: usize) -> Result<Look, Error> {
        self.store.with(|space| {
            let fetched = self.take(space, max);
            let fetched = fetched.ok_or_else(|| gone("read").on(self.opening.to_string()))?;
            if !fetched.is_empty() {
                return Ok(Look::Found(fetched));
            }
            // Made under the lock: later appends complete them.
            let sources = self.opening.sources.iter();
            let partitions: BTreeSet<_> = sources.map(|source| &source.partition).collect();
            let states = partitions.iter().filter_map(|at| space.topics.get(*at));
            let arrivals =
                states.map(|state| Box::pin(Arc::clone(&state.arrived).notified_owned()));
            Ok(Look::Nothing(arrivals.collect()))
        })
    }

    /// `None` when the group is gone from any source.
    fn take(&self, space: &mut Space, max: usize) -> Option<Vec<Fetched>> {
        let Opening {
            group,
            consumer,
            sources,
            ..
        } = &self.opening;
        // All of them first: a fetch that fails takes nothing.
        for source in sources {
            let topic = space.topics.get_mut(&source.partition)?;
            topic.groups.get_mut(group)?.set_active(consumer);
        }
        let mut fetched = Vec::new();
        for (number, source) in (0..).zip(sources) {
            let topic = space.topics.get_mut(&source.partition)?;
            let (entries, cursor) = topic.lane(group, source.lane)?;
            fetched.extend(cursor.take(entries, (number, source.lane), consumer, max));
        }
        Some(fetched)
    }

    async fn read(&self, max: usize, wait: Duration) -> Result<Vec<Fetched>, Error> {
        tokio::task::coop::consume_budget().await;
        let mut interrupted = pin!(self.interrupted.notified());
        let mut waited = pin!(tokio::time::sleep(wait));
        loop {
            match self.look(max)? {
                Look::Found(fetched) => return Ok(fetched),
                Look::Nothing(arrivals) => tokio::select! {
                    biased;
                    () = &mut interrupted => return Ok(Vec::new()),
                    _ = select_all(arrivals) => {}
                    () = &mut waited => return Ok(Vec::new()),
                },
            }
        }
    }
}

impl Reader for MemoryReader {
    fn fetch(&mut self, max: usize, wait: Duration) -> BoxFuture<'_, Result<Vec<Fetched>, Error>> {
        Box::pin(self.read(max, wait))
    }
}

#[derive(Debug)]
struct MemoryInterrupt(Arc<Notify>);

impl Interrupt for MemoryInterrupt {
    fn interrupt(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async {
            self.0.notify_waiters();
            Ok(())
        })
    }
}
