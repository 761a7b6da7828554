//! Findings on topics and groups.

use std::time::Duration;

use crate::domain::{EntryId, Retention, Timestamp, Topic};
use crate::operate::dead_letters::counted;
use crate::operate::doctor::finding::{Finding, Severity, roughly};
use crate::operate::doctor::progress::{self, Circumstances, GroupFacts, Still};
use crate::store::{GroupProgress, GroupStatus, Lane, LogProgress, Partition, TopicStatus};

/// A retry or message for later that is overdue for longer than this has no consumer that promotes it.
pub(super) const OVERDUE: Duration = Duration::from_secs(60);

/// A topic, and the facts of each of its groups, in their order.
#[derive(Debug)]
pub(super) struct TopicFacts {
    pub(super) status: TopicStatus,
    pub(super) groups: Vec<GroupFacts>,
    /// `None` for a topic without a log, and where the user may not look.
    pub(super) progress: Option<LogProgress>,
    /// How many of its entries every group has settled, of those before the first that one has not;
    /// `None` where they are too many to count, or unknown.
    pub(super) settled: Option<u64>,
    /// The partitions with many settled entries, with the time of the entry that makes them many.
    pub(super) many_settled: Vec<(Partition, Timestamp)>,
    /// How long its first message for later has been due, zero before, and its partition; `None` without
    /// one.
    pub(super) later_overdue: Option<(Duration, u16)>,
    /// The log of each partition that the user may look at; the only one is the whole topic.
    pub(super) each: Vec<(Partition, LogProgress)>,
    /// Partitions of groups that nobody reads.
    pub(super) still: Vec<Still>,
    /// The status of each partition, if there are several.
    pub(super) parts: Vec<TopicStatus>,
}

/// The number of settled entries from which the doctor reports a topic. Trimming removes whole nodes
/// of a stream, so some stay in any case.
pub(super) const MANY_SETTLED: usize = 200;
/// A consumer trims at least every 30 seconds.
const UNTRIMMED: Duration = Duration::from_secs(120);

pub(super) fn judge(
    topics: &[TopicFacts],
    stuck_after: Duration,
    at: &Circumstances,
) -> Vec<Finding> {
    let mut findings: Vec<Finding> = topics.iter().filter_map(backlog).collect();
    let (mut stuck, mut late) = (Vec::new(), Vec::new());
    for topic in topics {
        let (name, log) = (&topic.status.topic, topic.progress.as_ref());
        findings.extend(log.and_then(|log| progress::ahead(name, log, at)));
        findings.extend(untrimmed(topic, at));
        for (status, facts) in topic.status.groups.iter().zip(&topic.groups) {
            let groups = log.map_or(&[][..], |log| &log.groups);
            let group = groups.iter().find(|one| one.group == status.group);
            findings.extend(unread(topic, status, at));
            if let Some(finding) = is_stuck(&topic.status, status, facts, stuck_after) {
                stuck.push(finding);
                continue;
            }
            late.extend(is_late(&topic.status, status, facts));
            late.extend(group.and_then(|group| progress::pending(name, group, facts, at)));
        }
    }
    if stuck.is_empty() {
        let groups: usize = topics.iter().map(|topic| topic.groups.len()).sum();
        let what = format!("{}, none stuck", counted(groups as u64, "group", "groups"));
        stuck.push(Finding::ok("groups", what));
    }
    findings.append(&mut stuck);
    findings.append(&mut late);
    findings
}

/// What left a group unread, on each partition by itself: a command for it names one log.
fn unread(topic: &TopicFacts, whole: &GroupStatus, at: &Circumstances) -> Vec<Finding> {
    let found = topic.each.iter().filter_map(|(partition, log)| {
        let part = topic.parts.get(usize::from(partition.number()));
        let groups = &part.unwrap_or(&topic.status).groups;
        let status = groups.iter().find(|one| one.group == whole.group)?;
        let group = log.groups.iter().find(|one| one.group == whole.group)?;
        progress::unread(partition, log, group, status, at)
    });
    found.collect()
}

/// The partition of a topic that has several, in words.
pub(super) fn in_partition(topic: &TopicStatus, number: u16) -> String {
    match topic.settings.partitions() {
        1 => String::new(),
        _ => format!(" in partition {number}"),
    }
}

/// From when on a backlog is close to its limit: four fifths, without overflow.
pub(super) fn is_close(backlog: u64, status: &TopicStatus) -> bool {
    let limit = status.settings.backlog_limit();
    backlog >= limit - limit / 5
}

/// What the topic keeps for its groups, at least: the entries of the slowest one, all without a group,
/// and all scheduled retries. With the number of entries that all groups have settled, it is exact.
pub(super) fn backlog_of(status: &TopicStatus, settled: Option<u64>) -> u64 {
    let in_log = match settled {
        Some(settled) => status.entries.saturating_sub(settled),
        None => {
            let unsettled = status.groups.iter().map(|one| one.lag + one.in_flight);
            let most = unsettled.max().unwrap_or(status.entries);
            most.min(status.entries)
        }
    };
    let scheduled: u64 = status.groups.iter().map(|group| group.scheduled).sum();
    in_log.saturating_add(scheduled)
}

/// The smallest id that a group still needs, of an entry now or later.
pub(super) fn floor(group: &GroupProgress) -> EntryId {
    let EntryId {
        millis, sequence, ..
    } = group.delivered;
    let next = EntryId::new(millis, sequence.saturating_add(1));
    let next = next.in_partition(group.delivered.partition());
    let in_log = group
        .unsettled
        .iter()
        .filter(|one| one.id.lane == Lane::Log);
    let first = in_log.map(|one| one.id.id).min();
    first.map_or(next, |first| first.min(next))
}

/// Whether a topic is at its backlog limit, or close to it, and because of which group.
fn backlog(topic: &TopicFacts) -> Option<Finding> {
    let TopicFacts { status, groups, .. } = topic;
    let backlog = backlog_of(status, topic.settled);
    if !is_close(backlog, status) {
        return None;
    }
    let limit = status.settings.backlog_limit();
    let level = if backlog < limit {
        Severity::Warning
    } else {
        Severity::Problem
    };
    // The group with the oldest unsettled entry keeps all later ones.
    let oldest = groups.iter().filter_map(|facts| facts.behind).max();
    let keeps = |group: &GroupStatus, facts: &GroupFacts| {
        let keeps_all = oldest.is_some() && facts.behind == oldest;
        let in_log = match keeps_all {
            true => status.entries,
            false => group.lag + group.in_flight,
        };
        in_log + group.scheduled
    };
    let all = status.groups.iter().zip(groups);
    let slowest = all.max_by_key(|(group, facts)| keeps(group, facts));
    let name = &status.topic;
    let (by, fix) = match slowest {
        Some((status, facts)) => of_slowest(name, status, facts),
        None => (
            "no group reads the topic".to_owned(),
            "start the service that reads it".to_owned(),
        ),
    };
    let what = format!("{name}: keeps {backlog} unsettled messages, the limit is {limit}; {by}");
    let finding = Finding::new(level, "backlog", what);
    let finding = finding.because("the topic refuses messages at the limit");
    Some(finding.advise(fix))
}

/// What the slowest group holds up, and how that ends.
fn of_slowest(topic: &Topic, status: &GroupStatus, facts: &GroupFacts) -> (String, String) {
    let GroupStatus {
        group,
        lag,
        in_flight,
        scheduled,
        ..
    } = status;
    let age = facts.behind.or(facts.oldest);
    let age = age.map_or_else(String::new, |age| {
        format!(", the oldest from {} ago", roughly(age))
    });
    let by = format!(
        "the slowest group is {group}: {lag} not delivered, {in_flight} in flight, {scheduled} scheduled{age}"
    );
    let fix = format!(
        "start more consumers of {group}; if nobody needs the group, stop its consumers and run \
         `redstart groups remove {topic} {group} --force`"
    );
    (by, fix)
}

/// Whether settled entries stay because no process of Redstart removes them.
fn untrimmed(topic: &TopicFacts, at: &Circumstances) -> Option<Finding> {
    if topic.status.settings.retention() != Retention::Settled {
        return None;
    }
    let found = topic.many_settled.iter();
    found
        .filter_map(|(partition, many)| untrimmed_part(topic, partition, *many, at))
        .next()
}

fn untrimmed_part(
    topic: &TopicFacts,
    partition: &Partition,
    many_settled: Timestamp,
    at: &Circumstances,
) -> Option<Finding> {
    let (_, log) = topic.each.iter().find(|(one, _)| one == partition)?;
    let since = |time: Timestamp| {
        let millis = at.now.as_millis().saturating_sub(time.as_millis());
        Duration::from_millis(u64::try_from(millis).unwrap_or(0))
    };
    let age = since(many_settled);
    let trimmed = log.trimmed.map(since);
    if age < UNTRIMMED || trimmed.is_some_and(|ago| ago < UNTRIMMED) {
        return None;
    }
    let last = trimmed.map_or_else(
        || "no process of Redstart has removed any".to_owned(),
        |ago| {
            format!(
                "a process of Redstart last removed some {} ago",
                roughly(ago)
            )
        },
    );
    let name = &topic.status.topic;
    let what = format!(
        "{partition}: more than {MANY_SETTLED} entries that every group has settled are not removed; {last}"
    );
    let finding = Finding::new(Severity::Warning, "trimming", what).because(
        "consumers of other programs remove nothing, so the topic fills the server's memory",
    );
    Some(finding.advise(format!(
        "run `redstart janitor {name}` beside the topic's consumers"
    )))
}

/// Whether messages wait for a group without an active consumer.
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
    // Retries that are not due need no consumer yet.
    let is_due = *scheduled > 0 && facts.overdue.is_none_or(|overdue| !overdue.is_zero());
    if lag + in_flight == 0 && !is_due {
        return None;
    }
    // A group that knows no consumer may be between two deployments: its messages have waited at
    // most as long as the oldest entry. Messages of the redelivery stream alone have no age.
    let waited = facts.idle_for.or(facts.oldest).or(facts.overdue);
    if waited.is_some_and(|waited| waited < stuck_after) {
        return None;
    }
    let consumers = match facts.idle_for {
        Some(idle) => format!("no active consumer for {}", roughly(idle)),
        None => "no consumer".to_owned(),
    };
    let name = &topic.topic;
    let what = format!(
        "{name}/{group}: {consumers}; {lag} not delivered, {in_flight} in flight, {scheduled} scheduled"
    );
    let why = match topic.settings.backlog_limit() {
        u64::MAX => "its unsettled entries stay in the topic for ever".to_owned(),
        limit => {
            format!("its unsettled entries stay in the topic, which refuses messages at {limit}")
        }
    };
    let finding = Finding::new(Severity::Problem, "groups", what).because(why);
    Some(finding.advise(format!(
        "start its consumers; if nobody needs the group, run `redstart groups remove {name} {group} --force`"
    )))
}

/// Whether due retries are not promoted although the group has consumers.
fn is_late(topic: &TopicStatus, status: &GroupStatus, facts: &GroupFacts) -> Option<Finding> {
    let overdue = facts.overdue.filter(|overdue| *overdue >= OVERDUE)?;
    let number = facts.overdue_in.unwrap_or_default();
    let what = format!(
        "{}/{}: a retry{} is overdue for {}",
        topic.topic,
        status.group,
        in_partition(topic, number),
        roughly(overdue)
    );
    let finding = Finding::new(Severity::Problem, "retries", what)
        .because("a running consumer promotes due retries every second");
    Some(finding.advise("read the log of the group's consumers"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::domain::{Group, TopicSettings};

    const MINUTE: Duration = Duration::from_secs(60);

    pub(in crate::operate::doctor) fn facts(counts: [u64; 3], facts: GroupFacts) -> TopicFacts {
        let [lag, in_flight, scheduled] = counts;
        TopicFacts {
            status: TopicStatus {
                topic: Topic::new("orders").unwrap(),
                entries: 100,
                later: 0,
                settings: TopicSettings::default().with_backlog_limit(100),
                groups: vec![GroupStatus {
                    group: Group::new("billing").unwrap(),
                    lag,
                    in_flight,
                    scheduled,
                    dead: 0,
                    consumers: 0,
                    owned: false,
                }],
            },
            groups: vec![facts],
            progress: None,
            settled: None,
            many_settled: Vec::new(),
            later_overdue: None,
            each: Vec::new(),
            still: Vec::new(),
            parts: Vec::new(),
        }
    }

    fn at() -> Circumstances {
        Circumstances {
            now: crate::domain::Timestamp::from_millis(0).unwrap(),
            longest_pending: None,
            forgets_reads: false,
        }
    }

    fn checks(counts: [u64; 3], group: GroupFacts) -> Vec<(&'static str, Severity)> {
        let findings = judge(&[facts(counts, group)], 5 * MINUTE, &at());
        findings
            .iter()
            .map(|one| (one.check, one.severity))
            .collect()
    }

    #[test]
    fn a_group_is_stuck_when_messages_wait_and_no_consumer_was_active() {
        let active = |idle| GroupFacts {
            idle_for: Some(idle),
            ..GroupFacts::default()
        };
        let stuck = [("groups", Severity::Problem)];
        let fine = [("groups", Severity::Ok)];
        assert_eq!(checks([1, 0, 0], active(5 * MINUTE)), stuck);
        assert_eq!(checks([0, 1, 0], active(6 * MINUTE)), stuck);
        assert_eq!(
            checks([0, 0, 1], active(6 * MINUTE)),
            stuck,
            "in the redelivery stream"
        );
        assert_eq!(checks([1, 1, 1], active(4 * MINUTE)), fine);
        assert_eq!(checks([0, 0, 0], active(9 * MINUTE)), fine);
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
    fn redriven_messages_of_a_group_without_consumers_are_found() {
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
    fn retries_that_are_not_due_need_no_consumer() {
        let later = GroupFacts {
            idle_for: Some(9 * MINUTE),
            overdue: Some(Duration::ZERO),
            ..GroupFacts::default()
        };
        assert_eq!(checks([0, 0, 5], later), [("groups", Severity::Ok)]);
    }

    #[test]
    fn overdue_retries_beside_active_consumers_are_found() {
        let late = |overdue| GroupFacts {
            idle_for: Some(Duration::ZERO),
            overdue: Some(overdue),
            ..GroupFacts::default()
        };
        let found = [("groups", Severity::Ok), ("retries", Severity::Problem)];
        assert_eq!(checks([0, 0, 1], late(2 * MINUTE)), found);
        assert_eq!(
            checks([0, 0, 1], late(MINUTE / 2)),
            [("groups", Severity::Ok)]
        );
    }

    #[test]
    fn a_backlog_is_found_from_four_fifths_on() {
        let level = |lag| match checks([lag, 0, 0], GroupFacts::default())[0] {
            ("backlog", level) => Some(level),
            _ => None,
        };
        assert_eq!(level(79), None);
        assert_eq!(level(80), Some(Severity::Warning));
        assert_eq!(level(100), Some(Severity::Problem));
    }

    #[test]
    fn a_backlog_names_the_slowest_group_and_the_command_that_removes_it() {
        let hours = |hours: u64| GroupFacts {
            idle_for: Some(Duration::ZERO),
            behind: Some(Duration::from_secs(3_600 * hours)),
            ..GroupFacts::default()
        };
        let mut topic = facts([80, 10, 0], hours(3));
        let mut quick = topic.status.groups[0].clone();
        (quick.group, quick.lag) = (Group::new("mail").unwrap(), 1);
        topic.status.groups.push(quick);
        topic.groups.push(hours(1));
        let found = judge(&[topic], 5 * MINUTE, &at()).remove(0);
        assert_eq!(
            found.what,
            "orders: keeps 90 unsettled messages, the limit is 100; the slowest group is billing: \
             80 not delivered, 10 in flight, 0 scheduled, the oldest from 3 h ago"
        );
        let command = "`redstart groups remove orders billing --force`";
        assert!(found.advice.contains(command), "{found:?}");
        let mut nobody = facts([0, 0, 0], GroupFacts::default());
        (nobody.status.groups, nobody.groups) = (Vec::new(), Vec::new());
        let found = judge(&[nobody], 5 * MINUTE, &at()).remove(0);
        assert!(
            found.what.ends_with("no group reads the topic"),
            "{found:?}"
        );
    }

    #[test]
    fn a_handler_that_hangs_and_scheduled_retries_count() {
        // 100 entries are kept for one that hangs.
        let mut topic = facts([0, 1, 0], GroupFacts::default());
        assert_eq!(backlog_of(&topic.status, None), 1);
        topic.settled = Some(3);
        assert_eq!(backlog_of(&topic.status, topic.settled), 97);
        let found = judge(&[topic], MINUTE, &at()).remove(0);
        assert_eq!(
            (found.check, found.severity),
            ("backlog", Severity::Warning)
        );
        let retries = facts([0, 0, 90], GroupFacts::default());
        assert_eq!(backlog_of(&retries.status, Some(100)), 90);
        assert!(is_close(90, &retries.status) && !is_close(79, &retries.status));
    }

    #[test]
    fn a_topic_without_a_limit_has_no_backlog_finding() {
        let mut topic = facts([100, 0, 0], GroupFacts::default());
        topic.status.settings = TopicSettings::default().with_backlog_limit(u64::MAX);
        assert!(
            judge(&[topic], MINUTE, &at())
                .iter()
                .all(|one| one.check == "groups")
        );
    }

    #[test]
    fn settled_entries_that_nobody_removes_are_found() {
        let now = Timestamp::from_millis(10_000_000).unwrap();
        let ago = |millis| Timestamp::from_millis(now.as_millis() - millis).ok();
        let at = Circumstances { now, ..at() };
        let found = |many_settled: Option<Timestamp>, trimmed, retention| {
            let mut topic = facts([0, 0, 0], GroupFacts::default());
            topic.status.settings = TopicSettings::default().with_retention(retention);
            let whole = Partition::of(&topic.status.topic);
            topic.many_settled = many_settled
                .map(|many| (whole.clone(), many))
                .into_iter()
                .collect();
            let log = LogProgress {
                last: EntryId::default(),
                appended: None,
                trimmed,
                groups: Vec::new(),
            };
            topic.each = vec![(whole, log)];
            untrimmed(&topic, &at)
        };
        let settled = Retention::Settled;
        let never = found(ago(300_000), None, settled).unwrap();
        assert_eq!(never.severity, Severity::Warning);
        assert!(
            never.advice.contains("`redstart janitor orders`"),
            "{never:?}"
        );
        let once = found(ago(300_000), ago(200_000), settled).unwrap();
        assert!(
            once.what.contains("200 s ago") || once.what.contains("3 min ago"),
            "{once:?}"
        );
        assert_eq!(
            found(ago(300_000), ago(20_000), settled),
            None,
            "trimmed lately"
        );
        assert_eq!(found(ago(20_000), None, settled), None, "young entries");
        assert_eq!(found(None, None, settled), None, "few entries");
        let by_age = Retention::Age(Duration::from_secs(60));
        assert_eq!(found(ago(300_000), None, by_age), None, "kept on purpose");
    }
}
