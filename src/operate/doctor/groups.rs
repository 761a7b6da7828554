//! What the state of topics and groups means.

use std::time::Duration;

use crate::operate::doctor::{Finding, Severity, roughly};
use crate::store::{GroupStatus, TopicStatus};

/// A retry that is due for longer than this is not being promoted.
const OVERDUE: Duration = Duration::from_secs(60);

/// A topic, and what is known of each of its groups, in their order.
#[derive(Debug)]
pub(super) struct TopicFacts {
    pub(super) status: TopicStatus,
    pub(super) groups: Vec<GroupFacts>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct GroupFacts {
    /// For how long no consumer was heard of; `None` when it knows none.
    pub(super) quiet: Option<Duration>,
    /// The age of the topic's oldest entry.
    pub(super) oldest: Option<Duration>,
    /// For how long its first retry is due; zero before. `None` when none waits.
    pub(super) overdue: Option<Duration>,
}

pub(super) fn judge(topics: &[TopicFacts], stuck_after: Duration) -> Vec<Finding> {
    let mut findings: Vec<Finding> = topics
        .iter()
        .filter_map(|topic| backlog(&topic.status))
        .collect();
    let (mut stuck, mut late) = (Vec::new(), Vec::new());
    for topic in topics {
        for (status, facts) in topic.status.groups.iter().zip(&topic.groups) {
            match is_stuck(&topic.status, status, facts, stuck_after) {
                Some(finding) => stuck.push(finding),
                None => late.extend(is_late(&topic.status, status, facts)),
            }
        }
    }
    if stuck.is_empty() {
        let groups: usize = topics.iter().map(|topic| topic.groups.len()).sum();
        let what = format!("{groups} in {} topics, none is stuck", topics.len());
        stuck.push(Finding::ok("groups", what));
    }
    findings.append(&mut stuck);
    findings.append(&mut late);
    findings
}

/// How near a topic is to refusing messages.
fn backlog(topic: &TopicStatus) -> Option<Finding> {
    let unsettled = topic.groups.iter().map(|group| group.lag + group.in_flight);
    let backlog = unsettled.max().unwrap_or(topic.entries).min(topic.entries);
    let limit = topic.settings.backlog_limit();
    // Four fifths, without overflow.
    if backlog < limit - limit / 5 {
        return None;
    }
    let level = if backlog < limit {
        Severity::Warning
    } else {
        Severity::Problem
    };
    let what = format!("{}: {backlog} unsettled of at most {limit}", topic.topic);
    let finding = Finding::new(level, "backlog", what)
        .because("at the limit publishing is refused")
        .advise("start more consumers for its slowest group");
    Some(finding)
}

/// Whether something waits for a group that nobody serves.
fn is_stuck(
    topic: &TopicStatus,
    status: &GroupStatus,
    facts: &GroupFacts,
    stuck_after: Duration,
) -> Option<Finding> {
    let GroupStatus {
        group,
        lag,
        in_flight,
        scheduled,
        ..
    } = status;
    // What waits for its time in future waits for nobody yet.
    let is_due = *scheduled > 0 && facts.overdue.is_none_or(|overdue| !overdue.is_zero());
    if lag + in_flight == 0 && !is_due {
        return None;
    }
    // A group that knows no consumer may be between two: it waits no longer than the oldest entry.
    // Nothing tells since when what is in the redo lane alone has waited.
    let quiet = facts.quiet.or(facts.oldest).or(facts.overdue);
    if quiet.is_some_and(|quiet| quiet < stuck_after) {
        return None;
    }
    let quiet = match facts.quiet {
        Some(quiet) => format!("no consumer heard of for {}", roughly(quiet)),
        None => "no consumer".to_owned(),
    };
    let name = &topic.topic;
    let what = format!(
        "{name}/{group}: {quiet}; {lag} not delivered, {in_flight} in flight, {scheduled} scheduled"
    );
    let why = match topic.settings.backlog_limit() {
        u64::MAX => "what it has not settled stays in the topic for ever".to_owned(),
        limit => {
            format!("what it has not settled stays in the topic, which refuses messages at {limit}")
        }
    };
    let finding = Finding::new(Severity::Problem, "groups", what).because(why);
    Some(finding.advise(format!(
        "start its consumers; or, where it is not needed any more, `redstart groups remove {name} {group} --force`"
    )))
}

/// Whether retries are due and stay where they are, though the group has consumers.
fn is_late(topic: &TopicStatus, status: &GroupStatus, facts: &GroupFacts) -> Option<Finding> {
    let overdue = facts.overdue.filter(|overdue| *overdue >= OVERDUE)?;
    let what = format!(
        "{}/{}: due for {} and not brought back",
        topic.topic,
        status.group,
        roughly(overdue)
    );
    let finding = Finding::new(Severity::Problem, "retries", what)
        .because("its consumers bring retries back every second while they work");
    Some(finding.advise("look at the log of its consumers"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Group, Topic, TopicSettings};

    const MINUTE: Duration = Duration::from_secs(60);

    fn facts(counts: [u64; 3], facts: GroupFacts) -> TopicFacts {
        let [lag, in_flight, scheduled] = counts;
        TopicFacts {
            status: TopicStatus {
                topic: Topic::new("orders").unwrap(),
                entries: 100,
                settings: TopicSettings::default().with_backlog_limit(100),
                groups: vec![GroupStatus {
                    group: Group::new("billing").unwrap(),
                    lag,
                    in_flight,
                    scheduled,
                    dead: 0,
                    consumers: 0,
                }],
            },
            groups: vec![facts],
        }
    }

    fn checks(counts: [u64; 3], group: GroupFacts) -> Vec<(&'static str, Severity)> {
        let findings = judge(&[facts(counts, group)], 5 * MINUTE);
        findings
            .iter()
            .map(|one| (one.check, one.severity))
            .collect()
    }

    #[test]
    fn a_group_is_stuck_when_messages_wait_and_nobody_came_for_long() {
        let heard = |quiet| GroupFacts {
            quiet: Some(quiet),
            ..GroupFacts::default()
        };
        let stuck = [("groups", Severity::Problem)];
        let fine = [("groups", Severity::Ok)];
        assert_eq!(checks([1, 0, 0], heard(5 * MINUTE)), stuck);
        assert_eq!(checks([0, 1, 0], heard(6 * MINUTE)), stuck);
        assert_eq!(
            checks([0, 0, 1], heard(6 * MINUTE)),
            stuck,
            "in the redo lane"
        );
        assert_eq!(checks([1, 1, 1], heard(4 * MINUTE)), fine);
        assert_eq!(checks([0, 0, 0], heard(9 * MINUTE)), fine);
    }

    #[test]
    fn a_group_between_two_deployments_is_not_stuck() {
        let old = |age| GroupFacts {
            oldest: Some(age),
            ..GroupFacts::default()
        };
        assert_eq!(checks([1, 0, 0], old(MINUTE)), [("groups", Severity::Ok)]);
        assert_eq!(
            checks([1, 0, 0], old(9 * MINUTE)),
            [("groups", Severity::Problem)]
        );
    }

    #[test]
    fn what_was_redriven_to_a_group_without_consumers_is_told() {
        assert_eq!(
            checks([0, 0, 3], GroupFacts::default()),
            [("groups", Severity::Problem)]
        );
        assert_eq!(
            checks([0, 0, 0], GroupFacts::default()),
            [("groups", Severity::Ok)]
        );
    }

    #[test]
    fn what_is_due_later_waits_for_nobody() {
        let later = GroupFacts {
            quiet: Some(9 * MINUTE),
            overdue: Some(Duration::ZERO),
            ..GroupFacts::default()
        };
        assert_eq!(checks([0, 0, 5], later), [("groups", Severity::Ok)]);
    }

    #[test]
    fn retries_that_stay_though_consumers_live_are_told() {
        let late = |overdue| GroupFacts {
            quiet: Some(Duration::ZERO),
            overdue: Some(overdue),
            ..GroupFacts::default()
        };
        let told = [("groups", Severity::Ok), ("retries", Severity::Problem)];
        assert_eq!(checks([0, 0, 1], late(2 * MINUTE)), told);
        assert_eq!(
            checks([0, 0, 1], late(MINUTE / 2)),
            [("groups", Severity::Ok)]
        );
    }

    #[test]
    fn a_backlog_is_told_from_four_fifths_on() {
        let level = |lag| match checks([lag, 0, 0], GroupFacts::default())[0] {
            ("backlog", level) => Some(level),
            _ => None,
        };
        assert_eq!(level(79), None);
        assert_eq!(level(80), Some(Severity::Warning));
        assert_eq!(level(100), Some(Severity::Problem));
    }

    #[test]
    fn a_topic_without_a_limit_has_no_backlog_to_tell_of() {
        let mut topic = facts([100, 0, 0], GroupFacts::default());
        topic.status.settings = TopicSettings::default().with_backlog_limit(u64::MAX);
        assert!(
            judge(&[topic], MINUTE)
                .iter()
                .all(|one| one.check == "groups")
        );
    }
}
