//! Reading: what is there at once, or what comes while the reader waits.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use super::adapter::MemoryAdapter;
use super::store::{Space, TopicState};
use crate::domain::BoxFuture;
use crate::domain::{EntryId, Error, ErrorKind, Group, Topic};
use crate::store::{Fetched, Interrupt, Lane, Member, Opened, Reader, StartFrom};

/// The error that tells the runtime to create the group anew.
pub(super) fn gone(operation: &'static str) -> Error {
    Error::new(ErrorKind::NotFound, operation, "the group is gone")
}

impl MemoryAdapter {
    pub(super) fn ensure_group(&self, topic: &Topic, group: &Group, start: StartFrom) {
        self.with(|space| {
            let state = space.topics.entry(topic.clone()).or_default();
            let delivered = match start {
                StartFrom::Beginning => EntryId::default(),
                StartFrom::End => state.log.last(),
            };
            state.groups.entry(group.clone()).or_insert_with(|| {
                let mut made = super::store::GroupState::default();
                made.log.delivered = delivered;
                made
            });
        });
    }

    pub(super) fn open_reader(&self, member: &Member) -> Opened {
        let interrupt = Arc::new(Notify::new());
        let reader = MemoryReader {
            store: self.clone(),
            member: member.clone(),
            interrupted: Arc::clone(&interrupt),
        };
        (Box::new(reader), Box::new(MemoryInterrupt(interrupt)))
    }
}

#[derive(Debug)]
struct MemoryReader {
    store: MemoryAdapter,
    member: Member,
    interrupted: Arc<Notify>,
}

/// What a look brought: entries, or the bell that rings for the next.
enum Look {
    Found(Vec<Fetched>),
    Nothing(OwnedNotified),
}

impl MemoryReader {
    fn look(&self, max: usize) -> Result<Look, Error> {
        self.store.with(|space: &mut Space| {
            let topic = space.topics.get_mut(&self.member.topic);
            let (topic, fetched) = topic
                .and_then(|topic| {
                    let fetched = self.take(topic, max)?;
                    Some((topic, fetched))
                })
                .ok_or_else(|| gone("read").on(self.member.to_string()))?;
            if !fetched.is_empty() {
                return Ok(Look::Found(fetched));
            }
            // Made under the lock: what is appended after it rings this bell.
            Ok(Look::Nothing(Arc::clone(&topic.arrived).notified_owned()))
        })
    }

    fn take(&self, topic: &mut TopicState, max: usize) -> Option<Vec<Fetched>> {
        let Member {
            group, consumer, ..
        } = &self.member;
        topic.groups.get_mut(group)?.heard_of(consumer);
        let mut fetched = Vec::new();
        for lane in [Lane::Log, Lane::Redelivery] {
            let (entries, cursor) = topic.lane(group, lane)?;
            fetched.extend(cursor.take(entries, lane, consumer, max));
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
                Look::Nothing(arrived) => tokio::select! {
                    biased;
                    () = &mut interrupted => return Ok(Vec::new()),
                    () = arrived => {}
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
        self.0.notify_waiters();
        Box::pin(async { Ok(()) })
    }
}
