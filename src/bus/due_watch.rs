//! Brings the messages for later that this container scheduled to their topics when they are due.
//!
//! Promoters do the same for the topics of their subscriptions. This watch serves the other topics: a
//! subscription of another process may learn of a message late, where the server tells it of none.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::api::supervise::{Watch, back_off, log};
use crate::domain::Topic;
use crate::store::{MAX_BATCH, Partition, Store};

/// The longest time between two looks at a topic. Other processes watch over what they scheduled, and
/// subscriptions look every few seconds.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// The shortest time between two looks, however close together messages are due.
const SHORTEST_WAIT: Duration = Duration::from_millis(5);

/// The watch over messages for later of one container. It ends when it is dropped.
#[derive(Debug)]
pub(super) struct DueWatch {
    shared: Arc<Shared>,
    _halt: DropGuard,
}

#[derive(Debug)]
struct Shared {
    store: Arc<dyn Store>,
    table: Mutex<Table>,
    changed: Notify,
    halt: CancellationToken,
    watch: Watch,
}

#[derive(Debug, Default)]
struct Table {
    /// When to look at each topic next.
    looks: BTreeMap<Topic, Instant>,
    /// Absent, or finished with its runtime, while no look is planned.
    task: Option<JoinHandle<()>>,
}

impl DueWatch {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        let halt = CancellationToken::new();
        let shared = Shared {
            store,
            table: Mutex::default(),
            changed: Notify::new(),
            halt: halt.clone(),
            watch: Watch::default(),
        };
        Self {
            shared: Arc::new(shared),
            _halt: halt.drop_guard(),
        }
    }

    /// Notes that a message of a topic is due after a time.
    pub(super) fn due_in(&self, topic: &Topic, delay: Duration) {
        let shared = &self.shared;
        if shared.halt.is_cancelled() {
            return;
        }
        let at = Instant::now() + delay.min(LONGEST_WAIT);
        let mut table = shared.table();
        table.plan(topic, at);
        if table.task.as_ref().is_none_or(JoinHandle::is_finished) {
            let watched = Arc::clone(shared);
            let task = shared
                .watch
                .supervise("the watch over due messages", move |_| {
                    run(Arc::clone(&watched))
                });
            table.task = Some(tokio::spawn(task));
        }
        drop(table);
        shared.changed.notify_one();
    }

    /// Ends the watch: subscriptions of other processes, and later ones, bring what is due.
    pub(super) fn close(&self) {
        self.shared.halt.cancel();
    }
}

impl Table {
    /// Plans a look, unless an earlier one is planned.
    fn plan(&mut self, topic: &Topic, at: Instant) {
        match self.looks.get_mut(topic) {
            Some(known) => *known = at.min(*known),
            None => drop(self.looks.insert(topic.clone(), at)),
        }
    }

    fn first(&self) -> Option<(Topic, Instant)> {
        let first = self.looks.iter().min_by_key(|(_, at)| **at);
        first.map(|(topic, at)| (topic.clone(), *at))
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks at each topic at its time, until no look is planned.
async fn run(shared: Arc<Shared>) {
    let mut failures = 0;
    // The clock may have been set before this task began to watch it.
    let mut looks_at_all = true;
    loop {
        // Created before the look, so that it also completes for a change during the look.
        let clock_set = shared.store.clock_set();
        let (topic, at) = {
            let mut table = shared.table();
            if std::mem::take(&mut looks_at_all) {
                let now = Instant::now();
                table.looks.values_mut().for_each(|at| *at = now);
            }
            let Some(first) = table.first() else {
                table.task = None;
                return;
            };
            first
        };
        tokio::select! {
            biased;
            () = shared.halt.cancelled() => return,
            () = shared.changed.notified() => continue,
            () = clock_set => {
                looks_at_all = true;
                continue;
            }
            () = sleep_until(at) => {}
        }
        shared.table().looks.remove(&topic);
        let at = Partition::of(&topic);
        let promoted = tokio::select! {
            biased;
            () = shared.halt.cancelled() => return,
            promoted = shared.store.later().promote(&at, MAX_BATCH) => promoted,
        };
        let next = match promoted {
            Ok(promoted) => {
                failures = 0;
                metrics::counter!("redstart_published_total", "topic" => topic.to_string())
                    .increment(promoted.published);
                promoted.next.map(|next| next.max(SHORTEST_WAIT))
            }
            Err(error) => {
                failures += 1;
                log(|| tracing::debug!(%topic, %error, "promoting messages for later failed"));
                Some(back_off(failures))
            }
        };
        if let Some(next) = next {
            let at = Instant::now() + next.min(LONGEST_WAIT);
            shared.table().plan(&topic, at);
        }
        // Other topics that are due go first; the pause bounds the looks at one.
        if failures > 0 {
            sleep(SHORTEST_WAIT).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::memory::{ManualClock, MemoryStore};
    use crate::domain::{Durability, ScheduleId, Timestamp, TopicSettings, When};
    use crate::store::NewLater;

    async fn until(store: &Arc<dyn Store>, at: &Partition, entries: usize) {
        let looking = async {
            while store.log().browse(at, None, 10).await.unwrap().len() < entries {
                sleep(Duration::from_millis(1)).await;
            }
        };
        let found = tokio::time::timeout(Duration::from_secs(20), looking).await;
        found.expect("the watch brings the message");
    }

    fn message(id: &str, seconds: u64) -> NewLater {
        NewLater {
            id: ScheduleId::new(id).unwrap(),
            due: When::After(Duration::from_secs(seconds)),
            keeps: false,
            name: "json",
            value: bytes::Bytes::from_static(b"{}"),
            slot: None,
        }
    }

    #[tokio::test]
    async fn a_watch_follows_the_clock_and_what_the_store_says_is_next() {
        let clock = ManualClock::new(Timestamp::now());
        let store = MemoryStore::with_clock(clock.clone()).store(None);
        let topic = Topic::new("orders").unwrap();
        let at = Partition::of(&topic);
        let settings = TopicSettings::default();
        store.topics().ensure_topic(&topic, settings).await.unwrap();
        let messages = [message("a", 60), message("b", 3600)];
        store
            .later()
            .put(&at, Durability::Accepted, &messages)
            .await
            .unwrap();
        let watch = DueWatch::new(Arc::clone(&store));
        watch.due_in(&topic, Duration::from_secs(60));
        clock.advance(Duration::from_secs(60));
        until(&store, &at, 1).await;
        clock.advance(Duration::from_secs(3600));
        until(&store, &at, 2).await;
        // Nothing waits, so the task ends; the next message starts another.
        while watch.shared.table().task.is_some() {
            sleep(Duration::from_millis(1)).await;
        }
        store
            .later()
            .put(&at, Durability::Accepted, &[message("c", 0)])
            .await
            .unwrap();
        watch.due_in(&topic, Duration::ZERO);
        until(&store, &at, 3).await;
    }

    #[tokio::test]
    async fn a_dropped_watch_holds_no_store() {
        let store = MemoryStore::new().store(None);
        let watch = DueWatch::new(Arc::clone(&store));
        watch.due_in(&Topic::new("orders").unwrap(), Duration::from_secs(3600));
        drop(watch);
        while Arc::strong_count(&store) > 1 {
            sleep(Duration::from_millis(1)).await;
        }
    }
}
