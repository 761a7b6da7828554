//! When a message becomes due: told by its writer, followed by the promoters of its topic.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::domain::Topic;

/// The next time at which a promoter looks: set by settlers and publishers, read by the promoter.
#[derive(Debug, Default)]
pub(crate) struct Due {
    earliest: Mutex<Option<Instant>>,
    changed: Notify,
}

impl Due {
    /// Makes the promoter look after `delay`, unless it looks sooner anyway.
    pub(crate) fn set(&self, delay: Duration) {
        // A delay beyond the clock never comes due in this process.
        let Some(at) = Instant::now().checked_add(delay) else {
            return;
        };
        let mut earliest = self.earliest.lock().unwrap_or_else(PoisonError::into_inner);
        if earliest.is_none_or(|known| at < known) {
            *earliest = Some(at);
            self.changed.notify_one();
        }
    }

    /// Returns the earliest time and forgets it.
    pub(crate) fn drain(&self) -> Option<Instant> {
        self.earliest
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// Waits until an earlier time is set.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// The promoters of a container, by topic.
#[derive(Debug, Default)]
pub(crate) struct DueTable {
    by_topic: Mutex<HashMap<Topic, Vec<Weak<Due>>>>,
}

impl DueTable {
    fn by_topic(&self) -> MutexGuard<'_, HashMap<Topic, Vec<Weak<Due>>>> {
        self.by_topic.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters the promoter of a subscription. It leaves the table when the last `Arc` is dropped.
    pub(crate) fn enter(&self, topic: &Topic) -> Arc<Due> {
        let due = Arc::<Due>::default();
        let mut by_topic = self.by_topic();
        let promoters = by_topic.entry(topic.clone()).or_default();
        promoters.retain(|one| one.strong_count() > 0);
        promoters.push(Arc::downgrade(&due));
        due
    }

    /// Makes this container's promoters of a topic look after `delay`; with zero, now. Returns whether
    /// there are any.
    pub(crate) fn look(&self, topic: &Topic, delay: Duration) -> bool {
        let mut by_topic = self.by_topic();
        let Some(promoters) = by_topic.get_mut(topic) else {
            return false;
        };
        promoters.retain(|one| match one.upgrade() {
            Some(due) => {
                due.set(delay);
                true
            }
            None => false,
        });
        let any = !promoters.is_empty();
        if !any {
            by_topic.remove(topic);
        }
        any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_earliest_due_time_wins_and_is_drained_once() {
        let due = Due::default();
        let before = Instant::now();
        for seconds in [3, 1, 2] {
            due.set(Duration::from_secs(seconds));
        }
        let earliest = due.drain().unwrap();
        assert!((1..2).contains(&earliest.duration_since(before).as_secs()));
        assert_eq!(due.drain(), None);
        due.set(Duration::MAX);
        assert_eq!(due.drain(), None);
    }

    #[tokio::test]
    async fn a_look_reaches_the_promoters_of_its_topic_only() {
        let (table, orders) = (DueTable::default(), Topic::new("orders").unwrap());
        let (one, two) = (table.enter(&orders), table.enter(&orders));
        let other = table.enter(&Topic::new("bills").unwrap());
        assert!(table.look(&orders, Duration::ZERO));
        assert!(one.drain().is_some() && two.drain().is_some());
        assert_eq!(other.drain(), None);
        drop((one, two));
        assert!(!table.look(&orders, Duration::ZERO));
        assert_eq!(table.by_topic().len(), 1, "ended promoters leave the table");
    }
}
