//! Findings on the partitions of a topic.

use crate::domain::{Error, Placement};
use crate::operate::doctor::Doctor;
use crate::operate::doctor::finding::{Finding, Severity, roughly};
use crate::operate::doctor::groups::{TopicFacts, backlog_of};
use crate::operate::doctor::progress::Still;
use crate::operate::topics;
use crate::store::{GroupStatus, TopicStatus};

/// The backlog from which an uneven one is worth a finding.
const SOME: u64 = 1_000;

/// Whether one partition of a topic has most of its backlog, or many times its share. `parts` has the status
/// of each partition, in their order.
pub(super) fn skew(parts: &[TopicStatus]) -> Option<Finding> {
    let backlogs = parts.iter().map(|one| backlog_of(one, None));
    let total: u64 = backlogs.clone().sum();
    let (number, (most, part)) = backlogs
        .zip(parts)
        .enumerate()
        .max_by_key(|(_, (backlog, _))| *backlog)?;
    let share = total / parts.len() as u64;
    // Halfway between its share and all of it: more than three quarters of two partitions.
    let is_skewed = most > share + (total - share) / 2 || most / 10 > share;
    if parts.len() < 2 || most < SOME || !is_skewed {
        return None;
    }
    let name = &part.topic;
    let what = format!(
        "{name}: partition {number} of {} has {most} of {total} unsettled messages",
        parts.len()
    );
    let why = "messages of one key go to one partition, and a partition is handled no faster by others that \
               are idle";
    let finding = Finding::new(Severity::Warning, "partitions", what).because(why);
    Some(finding.advise(format!(
        "spread the load over more keys, or find the consumer that holds the partition up: \
         `redstart groups {name} --partitions`"
    )))
}

/// Whether the partitions of a topic lie unevenly on the primaries of a cluster: more than twice an equal
/// share of them on one, or all. Few partitions lie unevenly by chance. `held_by` has the primary of each
/// partition, if its slot has one.
fn uneven(status: &TopicStatus, held_by: &[Option<String>], primaries: usize) -> Option<Finding> {
    let on = |primary: &String| {
        held_by
            .iter()
            .flatten()
            .filter(|one| *one == primary)
            .count()
    };
    let (most, primary) = held_by.iter().flatten().map(|one| (on(one), one)).max()?;
    let all = held_by.len();
    let is_uneven = most * primaries > 2 * all || most == all;
    if primaries < 2 || all < 2 * primaries || !is_uneven {
        return None;
    }
    let name = &status.topic;
    let what = format!(
        "{name}: {most} of {all} partitions are on {primary}, one of {primaries} primaries"
    );
    let why = "this primary carries more than its share of the topic's load, and while it is down the keys \
               of these partitions wait";
    let finding = Finding::new(Severity::Warning, "partitions", what).because(why);
    Some(finding.advise(format!(
        "move the slots of some of its partitions to other primaries, or publish to a new topic with another \
         name or more partitions; `redstart groups {name} --partitions` shows the primary of each"
    )))
}

impl Doctor {
    /// The findings on topics whose partitions lie unevenly on the primaries of a cluster.
    pub(super) async fn uneven(
        &self,
        topics: &[TopicFacts],
        primaries: usize,
    ) -> Result<Vec<Finding>, Error> {
        let mut divided: Vec<&TopicStatus> = topics.iter().map(|topic| &topic.status).collect();
        divided.retain(|status| status.settings.partitions() > 1);
        // With the other placement all topics lie on one primary by choice.
        if primaries < 2
            || divided.is_empty()
            || self.store.inspect().placement().await? == Some(Placement::Together)
        {
            return Ok(Vec::new());
        }
        let mut findings = Vec::new();
        for status in divided {
            let held_by = topics::primaries(&*self.store, status).await?;
            findings.extend(uneven(status, &held_by, primaries));
        }
        Ok(findings)
    }
}

/// One partition stands still. The sums of the group look as if it ran.
pub(super) fn still(one: &Still) -> Finding {
    let (name, number) = (one.at.topic(), one.at.number());
    let GroupStatus {
        group,
        lag,
        in_flight,
        ..
    } = &one.status;
    let read = match one.idle_for {
        Some(idle) => format!("no consumer has read it for {}", roughly(idle)),
        None => "no consumer has read it".to_owned(),
    };
    let what = format!(
        "{name}/{group}: partition {number} stands still: {read}; {lag} not delivered, {in_flight} in \
         flight, the oldest from {} ago",
        roughly(one.waits)
    );
    let why = "consumers read other partitions, so the group looks as if it ran; messages whose keys \
               belong to this partition wait";
    let finding = Finding::new(Severity::Problem, "partitions", what).because(why);
    finding.advise(format!(
        "read the log of the consumers of {group} for errors of {}, check that they reach its server, and \
         restart them; `redstart groups {name} --partitions` shows each partition",
        one.at
    ))
}

/// The part of the limit of messages for later that a partition has used up, if one has.
pub(super) fn full_later(parts: &[TopicStatus]) -> Option<Finding> {
    let share = |part: &TopicStatus| part.settings.share(part.settings.backlog_limit());
    let is_full = |part: &TopicStatus| part.later >= share(part);
    let (number, part) = parts.iter().enumerate().find(|(_, part)| is_full(part))?;
    let (name, all) = (
        &part.topic,
        parts.iter().map(|part| part.later).sum::<u64>(),
    );
    let others = match parts.iter().filter(|part| is_full(part)).count() {
        1 => String::new(),
        count => format!(", and {} more are full", count - 1),
    };
    let what = format!(
        "{name}: partition {number} of {} keeps {} messages for later, its part of the backlog limit of {}; \
         the topic keeps {all}{others}",
        parts.len(),
        part.later,
        part.settings.backlog_limit(),
    );
    let why = "scheduling another message fails if its key, or its id without a key, belongs to this \
               partition";
    let finding = Finding::new(Severity::Problem, "schedules", what).because(why);
    Some(finding.advise(format!(
        "spread the messages over more keys, cancel some of `redstart schedules list {name} --partition \
         {number}`, or raise the limit: `redstart topics settings {name} --backlog-limit N`"
    )))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::adapters::memory::{ManualClock, MemoryStore};
    use crate::domain::{ConsumerName, Group, Timestamp, Topic, TopicSettings};
    use crate::store::{GroupAt, Member, NewEntry, Opening, Partition, StartFrom};

    #[test]
    fn a_partition_that_nobody_reads_is_named() {
        let mut status = GroupStatus::new(Group::new("billing").unwrap());
        (status.lag, status.in_flight) = (12, 1);
        let mut one = Still {
            at: Partition::numbered(&Topic::new("orders").unwrap(), 3),
            status,
            waits: Duration::from_secs(1_200),
            idle_for: Some(Duration::from_secs(900)),
        };
        let found = still(&one);
        found.assert_helpful();
        assert_eq!(
            found.what,
            "orders/billing: partition 3 stands still: no consumer has read it for 15 min; 12 not delivered, \
             1 in flight, the oldest from 20 min ago"
        );
        assert!(found.advice.contains("errors of orders/3,"), "{found:?}");
        one.idle_for = None;
        assert!(still(&one).what.contains("no consumer has read it;"));
    }

    #[tokio::test]
    async fn one_partition_stands_still_while_others_are_read() {
        let clock = ManualClock::new(Timestamp::from_millis(1_000_000_000).unwrap());
        let store = MemoryStore::with_clock(clock.clone()).store(None);
        let (orders, billing) = (
            Topic::new("orders").unwrap(),
            Group::new("billing").unwrap(),
        );
        let settings = TopicSettings::default().with_partitions(3);
        store
            .topics()
            .ensure_topic(&orders, settings)
            .await
            .unwrap();
        let at = GroupAt::of(&orders, &billing);
        store
            .topics()
            .create_group(&at, StartFrom::Beginning)
            .await
            .unwrap();
        let entry = |slot| NewEntry {
            id: uuid::Uuid::from_u128(slot),
            name: "json",
            value: "1".into(),
            slot: Some(slot as u16),
        };
        let entries: Vec<NewEntry> = (0..3).map(entry).collect();
        store.log().append(&at.partition, &entries).await.unwrap();
        clock.advance(Duration::from_secs(600));
        let found = async || {
            let report = Doctor::new(store.clone()).run().await;
            let all = report.findings.into_iter();
            all.filter(|one| one.check == "partitions" || one.check == "groups")
                .map(|one| one.what)
                .collect::<Vec<_>>()
        };
        let stuck = found().await;
        assert!(
            stuck[0].starts_with("orders/billing: no consumer"),
            "{stuck:?}"
        );
        assert_eq!(stuck.len(), 1, "all of the group is stuck: {stuck:?}");
        for number in [0, 1] {
            let member = Member {
                at: GroupAt {
                    partition: Partition::numbered(&orders, number),
                    group: billing.clone(),
                },
                consumer: ConsumerName::new("one").unwrap(),
            };
            let (mut reader, _) = store.open(&Opening::of(&member)).await.unwrap();
            reader.fetch(1, Duration::ZERO).await.unwrap();
        }
        let one = found().await;
        assert_eq!(
            one,
            [
                "1 group, none stuck",
                "orders/billing: partition 2 stands still: no consumer has read it; 1 not delivered, 0 in \
                 flight, the oldest from 10 min ago"
            ]
        );
    }

    #[test]
    fn a_partition_that_keeps_its_part_of_messages_for_later_is_named() {
        let settings = TopicSettings::default().with_partitions(12);
        let settings = settings.with_backlog_limit(100);
        let found = |later: &[u64]| {
            let part = |later: &u64| TopicStatus {
                later: *later,
                ..TopicStatus::new(Topic::new("orders").unwrap(), settings)
            };
            let parts: Vec<TopicStatus> = later.iter().map(part).collect();
            full_later(&parts)
        };
        assert_eq!(found(&[]), None);
        assert_eq!(found(&[8; 12]), None);
        let mut one = [1; 12];
        one[5] = 9;
        let finding = found(&one).unwrap();
        finding.assert_helpful();
        assert_eq!(
            finding.what,
            "orders: partition 5 of 12 keeps 9 messages for later, its part of the backlog limit of 100; \
             the topic keeps 20"
        );
        assert!(finding.advice.contains("--partition 5`"), "{finding:?}");
        assert!(
            found(&[9; 12])
                .unwrap()
                .what
                .ends_with("and 11 more are full")
        );
    }

    #[test]
    fn partitions_that_lie_unevenly_are_named() {
        let told = |held_by: &[&str], primaries: usize| {
            let settings = TopicSettings::default().with_partitions(held_by.len() as u16);
            let status = TopicStatus::new(Topic::new("orders").unwrap(), settings);
            let held_by = held_by
                .iter()
                .map(|one| (*one != "-").then(|| (*one).to_owned()));
            let held_by: Vec<Option<String>> = held_by.collect();
            let finding = uneven(&status, &held_by, primaries)?;
            finding.assert_helpful();
            Some(finding.what)
        };
        assert_eq!(
            told(&["a", "b", "b", "b", "b", "b"], 3).as_deref(),
            Some("orders: 5 of 6 partitions are on b, one of 3 primaries")
        );
        assert_eq!(told(&["a", "c", "b", "b", "b", "b"], 3), None);
        assert_eq!(told(&["a"; 6], 3).map(|_| ()), Some(()));
        assert_eq!(told(&["a"; 5], 3), None, "too few to be spread evenly");
        assert_eq!(
            told(&["-", "b", "b", "b", "b", "b"], 3).as_deref(),
            Some("orders: 5 of 6 partitions are on b, one of 3 primaries")
        );
        assert_eq!(told(&["-", "-"], 1), None, "no primary");
        assert_eq!(told(&["a"; 3], 2), None);
        assert_eq!(told(&["a"; 4], 2).map(|_| ()), Some(()));
        assert_eq!(told(&["a"; 4], 1), None);
        assert_eq!(told(&[], 3), None, "outside a cluster");
    }

    fn told(entries: &[u64]) -> Option<String> {
        let settings = TopicSettings::default().with_partitions(entries.len() as u16);
        let part = |entries: &u64| TopicStatus {
            entries: *entries,
            ..TopicStatus::new(Topic::new("orders").unwrap(), settings)
        };
        let parts: Vec<TopicStatus> = entries.iter().map(part).collect();
        let finding = skew(&parts)?;
        finding.assert_helpful();
        Some(finding.what)
    }

    #[test]
    fn a_partition_with_most_of_the_backlog_is_named() {
        let told_of = told(&[10, 10, 10, 5000]).unwrap();
        assert_eq!(
            told_of,
            "orders: partition 3 of 4 has 5000 of 5030 unsettled messages"
        );
        assert!(told(&[4000, 1000]).is_some());
        let mut many = [100; 64];
        many[7] = 3000;
        assert!(told(&many).unwrap().contains("partition 7 of 64"));
    }

    #[test]
    fn an_even_small_or_undivided_backlog_is_no_skew() {
        for even in [
            &[][..],
            &[5000],
            &[999, 0],
            &[3000, 1500],
            &[2000, 1500, 1800, 2500],
        ] {
            assert_eq!(told(even), None, "{even:?}");
        }
    }
}
