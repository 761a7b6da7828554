//! Watching for messages that die from now on.

use futures_util::future::join_all;

use crate::domain::{DeadLetterFilter, DeadLetterSummary, EntryId, Error, Group, Topic};
use crate::operate::dead_letters::handle::DeadLetters;
use crate::store::{GroupAt, IdRange};

/// How many dead letters of a partition a look shows at most.
const PAGE: usize = 500;

/// The dead letters of a group that come from now on.
///
/// Keeps a place on each partition of the topic: the ids of two partitions follow two clocks, so a message
/// can die on one with a lower id than another has already shown.
#[derive(Debug)]
pub struct DeadLetterWatch {
    dead_letters: DeadLetters,
    filter: DeadLetterFilter,
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    at: GroupAt,
    after: Option<EntryId>,
}

/// What [`DeadLetterWatch::look`] found.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct NewDeadLetters {
    /// Those that match. The ids of each partition grow; two looks can overlap.
    pub items: Vec<(EntryId, DeadLetterSummary)>,
    /// Whether another look at once may find more.
    pub more: bool,
}

impl DeadLetters {
    /// Watches for messages that die from now on and match a filter.
    ///
    /// # Errors
    ///
    /// The kinds of the connection.
    pub async fn watch(
        &self,
        topic: &Topic,
        group: &Group,
        filter: DeadLetterFilter,
    ) -> Result<DeadLetterWatch, Error> {
        let parts = self.parts(topic, group).await?;
        let newest = join_all(parts.iter().map(|at| self.port().newest(at))).await;
        let since = filter.bounds().0;
        let parts = parts.into_iter().zip(newest).map(|(at, newest)| {
            let after = newest?.max(since);
            Ok(Part { at, after })
        });
        Ok(DeadLetterWatch {
            dead_letters: self.clone(),
            filter,
            parts: parts.collect::<Result<_, Error>>()?,
        })
    }
}

impl DeadLetterWatch {
    /// Returns the dead letters that have come since the last look. Asks all partitions at once.
    ///
    /// # Errors
    ///
    /// The kinds of the connection, if a partition cannot be asked and no other has a new dead letter.
    /// The next look continues at the same place.
    pub async fn look(&mut self) -> Result<NewDeadLetters, Error> {
        let (dead_letters, filter) = (&self.dead_letters, &self.filter);
        let looks = self
            .parts
            .iter_mut()
            .map(|part| part.look(dead_letters, filter));
        let (mut all, mut failure) = (NewDeadLetters::default(), None);
        for looked in join_all(looks).await {
            match looked {
                Ok(found) => {
                    all.items.extend(found.items);
                    all.more |= found.more;
                }
                Err(error) => failure = Some(error),
            }
        }
        all.items.sort_by_key(|(id, _)| *id);
        match failure {
            Some(error) if all.items.is_empty() => Err(error),
            _ => Ok(all),
        }
    }
}

impl Part {
    async fn look(
        &mut self,
        dead_letters: &DeadLetters,
        filter: &DeadLetterFilter,
    ) -> Result<NewDeadLetters, Error> {
        let port = dead_letters.port();
        let newest = port.newest(&self.at).await?;
        if newest <= self.after {
            return Ok(NewDeadLetters::default());
        }
        let range = IdRange {
            after: self.after,
            until: filter.bounds().1,
            newest_first: false,
        };
        let found = port.search(&self.at, range, filter, PAGE).await?;
        let next = found.next();
        self.after = match next {
            Some(next) => Some(next),
            // The next look begins behind those that do not match, too.
            None => newest.max(found.items.last().map(|(id, _)| *id)),
        };
        Ok(NewDeadLetters {
            items: found.items,
            more: next.is_some(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::memory::{ManualClock, MemoryStore};
    use crate::container::Container;
    use crate::domain::{DeadLetter, DeliveryHistory, Reason, Sweep, Timestamp, TopicSettings};
    use crate::operate::dead_letters::PlannedSweep;
    use crate::operate::plan::Plan;
    use crate::store::{Partition, Restored, Restoring, StartFrom};
    use crate::wire::dead_letter::encode_record;

    /// A group on three partitions whose clock stands still.
    struct Stage {
        container: Container,
        at: GroupAt,
        next: u64,
    }

    impl Stage {
        async fn new() -> Self {
            let clock = ManualClock::new(Timestamp::from_millis(1_000_000).unwrap());
            let store = MemoryStore::with_clock(clock);
            let container = Container::builder().with_memory(store).connect().await;
            let container = container.unwrap();
            let (orders, billing) = (
                Topic::new("orders").unwrap(),
                Group::new("billing").unwrap(),
            );
            let settings = TopicSettings::default().with_partitions(3);
            container.topics().create(&orders, settings).await.unwrap();
            let at = GroupAt::of(&orders, &billing);
            let (store, start) = (container.store(), StartFrom::Beginning);
            store.topics().create_group(&at, start).await.unwrap();
            Self {
                container,
                at,
                next: 0,
            }
        }

        /// A message dies on a partition.
        async fn die(&mut self, number: u16) -> EntryId {
            self.next += 1;
            let dead = DeadLetter {
                id: EntryId::default(),
                topic: self.at.topic().clone(),
                group: self.at.group.clone(),
                reason: Reason::Rejected,
                error: "no".to_owned(),
                fingerprint: "no".to_owned(),
                handler: "bill".to_owned(),
                consumer: "one".to_owned(),
                message_type: "order.placed".to_owned(),
                tenant: None,
                correlation: None,
                message_id: None,
                attempts: 1,
                last_failure: Timestamp::from_millis(1).unwrap(),
                history: DeliveryHistory::from(EntryId::new(1, self.next)),
                fields: Vec::new(),
                imported_from: None,
            };
            let restoring = Restoring {
                identity: self.next.to_string(),
                own: None,
                record: encode_record(&dead),
            };
            let at = GroupAt {
                partition: Partition::numbered(self.at.topic(), number),
                group: self.at.group.clone(),
            };
            let store = self.container.store();
            let restored = store.dead_letters().restore(&at, &[restoring], false).await;
            match restored.unwrap()[..] {
                [Restored::Added(id)] => id,
                ref other => panic!("{other:?}"),
            }
        }

        async fn watch(&self) -> DeadLetterWatch {
            let (dead, all) = (self.container.dead_letters(), DeadLetterFilter::default());
            let watch = dead.watch(self.at.topic(), &self.at.group, all).await;
            watch.unwrap()
        }
    }

    async fn seen(watch: &mut DeadLetterWatch) -> Vec<EntryId> {
        let found = watch.look().await.unwrap();
        assert!(!found.more);
        found.items.into_iter().map(|(id, _)| id).collect()
    }

    #[tokio::test]
    async fn a_dead_letter_of_a_partition_whose_clock_is_behind_is_seen() {
        let mut stage = Stage::new().await;
        stage.die(2).await;
        let mut watch = stage.watch().await;
        assert_eq!(seen(&mut watch).await, []);
        // The clock of the test stands still: the ids differ by their partitions only.
        let first = stage.die(1).await;
        assert_eq!(seen(&mut watch).await, [first]);
        let (second, third) = (stage.die(0).await, stage.die(2).await);
        assert!(second < first, "{second} {first}");
        assert_eq!(seen(&mut watch).await, [second, third]);
        assert_eq!(seen(&mut watch).await, []);
    }

    /// A plan of a purge of two dead letters, after which others died: below the newest of the whole
    /// topic, on partitions with and without older ones.
    async fn planned() -> (Stage, Plan<PlannedSweep>, [EntryId; 2]) {
        let mut stage = Stage::new().await;
        let old = [stage.die(1).await, stage.die(2).await];
        let dead = stage.container.dead_letters();
        let sweep = Sweep::purge(DeadLetterFilter::default());
        let plan = dead.plan(stage.at.topic(), &stage.at.group, sweep).await;
        stage.die(0).await;
        stage.die(1).await;
        (stage, plan.unwrap(), old)
    }

    #[tokio::test]
    async fn a_copy_has_what_the_plan_saw() {
        let (stage, plan, old) = planned().await;
        let mut copy = Vec::new();
        let mut pages = stage.container.dead_letters().pages_of(plan.preview());
        while let Some(letters) = pages.next().await.unwrap() {
            copy.extend(letters.iter().map(|letter| letter.id));
        }
        assert_eq!(copy, old);
    }

    #[tokio::test]
    async fn a_purge_removes_what_the_plan_saw() {
        let (stage, plan, old) = planned().await;
        let dead = stage.container.dead_letters();
        let report = dead.run(plan.confirm_unasked(), &|_| {}).await.unwrap();
        assert_eq!(report.progress.taken, 2);
        let (topic, group) = (stage.at.topic(), &stage.at.group);
        let left = dead.get(topic, group, &old).await.unwrap();
        assert!(left.is_empty(), "{left:?}");
    }
}
