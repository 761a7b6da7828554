//! Findings on messages for later.

use crate::operate::dead_letters::counted;
use crate::operate::doctor::finding::{Finding, Severity, roughly};
use crate::operate::doctor::groups::{OVERDUE, TopicFacts, in_partition};
use crate::operate::doctor::partitions;
use crate::operate::doctor::progress::GroupFacts;
use crate::store::Partition;

/// Whether messages for later of a topic are overdue, or as many as the topic may keep.
pub(super) fn judge(topic: &TopicFacts) -> Option<Finding> {
    let (status, name) = (&topic.status, &topic.status.topic);
    let (overdue, number) = topic.later_overdue.unwrap_or_default();
    if overdue > OVERDUE {
        let what = format!(
            "{name}: the first of {}{} is overdue by {}",
            counted(status.later, "message for later", "messages for later"),
            in_partition(status, number),
            roughly(overdue)
        );
        let runs = |facts: &GroupFacts| facts.idle_for.is_some_and(|idle| idle < OVERDUE);
        let (why, fix) = match topic.groups.iter().any(runs) {
            false => (
                "subscriptions to the topic publish what is due, and none runs",
                format!("start a consumer of {name}"),
            ),
            true => (
                "subscriptions to the topic run and do not publish it",
                format!(
                    "read the log of the topic's consumers for errors of {}",
                    Partition::numbered(name, number)
                ),
            ),
        };
        let finding = Finding::new(Severity::Problem, "schedules", what).because(why);
        return Some(finding.advise(format!(
            "{fix}; redstart schedules list {name} shows the messages"
        )));
    }
    if topic.parts.len() > 1 {
        return partitions::full_later(&topic.parts);
    }
    if status.later < status.settings.backlog_limit() {
        return None;
    }
    let what = format!(
        "{name}: keeps {} messages for later, its limit",
        status.later
    );
    let why = "scheduling another message fails";
    let finding = Finding::new(Severity::Problem, "schedules", what).because(why);
    Some(finding.advise(format!(
        "cancel messages, or raise the limit: `redstart topics settings {name} --backlog-limit N`"
    )))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::operate::doctor::groups::tests::facts;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn messages_for_later_are_overdue_without_a_subscription() {
        let found = |later, overdue: Option<Duration>| {
            let mut topic = facts([0, 0, 0], GroupFacts::default());
            topic.status.later = later;
            topic.later_overdue = overdue.map(|overdue| (overdue, 0));
            judge(&topic).map(|one| (one.severity, one.what))
        };
        assert_eq!(found(0, None), None);
        assert_eq!(found(3, Some(Duration::ZERO)), None);
        assert_eq!(found(3, Some(MINUTE)), None);
        let (severity, what) = found(3, Some(3 * MINUTE)).unwrap();
        assert_eq!(severity, Severity::Problem);
        assert!(
            what.starts_with("orders: the first of 3 messages for later is overdue"),
            "{what}"
        );
        let mut topic = facts([0, 0, 0], GroupFacts::default());
        topic.status.settings = topic.status.settings.with_partitions(4);
        (topic.status.later, topic.later_overdue) = (3, Some((3 * MINUTE, 2)));
        topic.groups[0].idle_for = Some(Duration::ZERO);
        let one = judge(&topic).unwrap();
        let what = "orders: the first of 3 messages for later in partition 2 is overdue by 3 min";
        assert_eq!(one.what, what);
        assert!(one.advice.contains("errors of orders/2;"), "{one:?}");
        let (_, what) = found(100, Some(Duration::ZERO)).unwrap();
        assert_eq!(what, "orders: keeps 100 messages for later, its limit");
    }
}
