//! Findings on logs and their groups: ids ahead of the clock, entries removed before delivery,
//! deliveries held for long.

use std::time::Duration;

use uuid::Uuid;

use crate::domain::{EntryId, Timestamp, Topic};
use crate::operate::dead_letters::counted;
use crate::operate::doctor::finding::{Finding, Severity, roughly};
use crate::store::{
    GroupProgress, GroupStatus, LONGEST_UNSETTLED, LogProgress, Partition, Unsettled,
};

/// An id may be ahead of the server's clock by this: a clock that was set back explains more only
/// rarely.
const AHEAD: Duration = Duration::from_secs(5);
/// Without a setting, a delivery is held for long from this time on, or from this multiple of the
/// group's lease if that is longer.
pub(super) const LONG: Duration = Duration::from_secs(900);
const LEASES: u32 = 10;

/// What the findings depend on besides the progress.
#[derive(Clone, Copy, Debug)]
pub(super) struct Circumstances {
    /// The store's clock.
    pub(super) now: Timestamp,
    /// From when on a delivery is held for long, where it is set.
    pub(super) longest_pending: Option<Duration>,
    /// Whether a restart of the server forgets how many entries a group has read. The append-only
    /// file does not record it.
    pub(super) forgets_reads: bool,
}

impl Circumstances {
    fn since(&self, id: EntryId) -> Duration {
        age(id, self.now)
    }

    /// How long ago a time was.
    pub(super) fn age_of(&self, time: Timestamp) -> Duration {
        let millis = self.now.as_millis().saturating_sub(time.as_millis());
        Duration::from_millis(u64::try_from(millis).unwrap_or(0))
    }
}

/// Facts about a group that its status does not tell.
#[derive(Clone, Debug, Default)]
pub(super) struct GroupFacts {
    /// How long ago a consumer was last active; `None` when the group knows no consumer.
    pub(super) idle_for: Option<Duration>,
    /// The age of the topic's oldest entry.
    pub(super) oldest: Option<Duration>,
    /// How long the first retry has been due, zero before; `None` when no retry is scheduled.
    pub(super) overdue: Option<Duration>,
    /// The partition of the first retry.
    pub(super) overdue_in: Option<u16>,
    /// The age of its oldest entry that is not settled or not delivered.
    pub(super) behind: Option<Duration>,
}

/// A partition that no consumer of a group reads, while others are read.
#[derive(Debug)]
pub(super) struct Still {
    pub(super) at: Partition,
    /// The group on the partition.
    pub(super) status: GroupStatus,
    /// The age of the oldest entry that is not settled.
    pub(super) waits: Duration,
    /// How long ago a consumer last asked for entries of the partition; `None` where none has.
    pub(super) idle_for: Option<Duration>,
}

/// Whether ids of a topic are ahead of the clock.
pub(super) fn ahead(topic: &Topic, progress: &LogProgress, at: &Circumstances) -> Option<Finding> {
    let now = u64::try_from(at.now.as_millis()).unwrap_or(0);
    let ahead = Duration::from_millis(progress.last.millis.saturating_sub(now));
    if ahead < AHEAD {
        return None;
    }
    let until = progress
        .last
        .time()
        .map_or_else(|| "for ever".to_owned(), |time| format!("until {time}"));
    let what = format!(
        "{topic}: entry id {} is {} ahead of the server's clock",
        progress.last,
        roughly(ahead)
    );
    let why = format!(
        "a producer wrote its own id, or the clock was set back; every later entry gets an id after \
         it {until}, so ages and times by id are wrong: retention by age can keep entries, and the \
         ages of pending entries and of lags mislead"
    );
    let fix = "let the server choose the ids of all producers (XADD with *); if ids must have right \
               times again before then, move to a new topic";
    let finding = Finding::new(Severity::Warning, "ids", what).because(why);
    Some(finding.advise(fix))
}

/// Whether entries left the log before a group read them.
pub(super) fn unread(
    topic: &Partition,
    log: &LogProgress,
    group: &GroupProgress,
    status: &GroupStatus,
    at: &Circumstances,
) -> Option<Finding> {
    let passed = log.appended?.saturating_sub(status.lag);
    let lost = passed.saturating_sub(group.read?);
    if lost == 0 {
        return None;
    }
    let name = &group.group;
    let read = group.read.unwrap_or(0);
    let remedy = format!(
        "take MAXLEN and MINID out of the XADD of all producers, and stop jobs that call XTRIM or \
         XDEL: Redstart removes settled entries itself; to clear this finding, stop the group's \
         consumers and run XGROUP SETID <log of {topic}> {name} {} ENTRIESREAD {passed}",
        group.delivered.in_partition(0)
    );
    if !at.forgets_reads {
        let what = format!(
            "{topic}/{name}: {} left the topic before the group read them (it is past {passed} entries, and read {read} of them)",
            counted(lost, "entry", "entries")
        );
        let finding = Finding::new(Severity::Problem, "unread", what);
        let finding = finding.because("the group never handles these messages");
        return Some(finding.advise(remedy));
    }
    let what =
        format!("{topic}/{name}: the group is past {passed} entries, and read {read} of them");
    let why = format!(
        "{lost} left the topic before the group read them, which then never handles them; or the \
         server restarted from its append-only file, which forgets how many a group has read"
    );
    let finding = Finding::new(Severity::Warning, "unread", what).because(why);
    Some(finding.advise(remedy))
}

/// Whether a consumer has held deliveries of a group for long.
pub(super) fn pending(
    topic: &Topic,
    group: &GroupProgress,
    facts: &GroupFacts,
    at: &Circumstances,
) -> Option<Finding> {
    let lease = group.lease.unwrap_or_default();
    let limit = at
        .longest_pending
        .unwrap_or_else(|| LONG.max(lease * LEASES));
    let long = |one: &&Unsettled| pending_for(one, at.now) >= limit;
    let all: Vec<&Unsettled> = group.unsettled.iter().filter(long).collect();
    let oldest = all.iter().max_by_key(|one| pending_for(one, at.now))?;
    let consumer = &oldest.consumer;
    let own = all.iter().filter(|one| one.consumer == *consumer).count();
    let entries = match own {
        1 => format!("entry {}", oldest.id),
        LONGEST_UNSETTLED.. => format!("{own} entries or more, the oldest {}", oldest.id),
        _ => format!("{own} entries, the oldest {}", oldest.id),
    };
    let others = match all.len() - own {
        0 => String::new(),
        others => format!("; other consumers hold {others} more for as long"),
    };
    let (name, time) = (&group.group, roughly(pending_for(oldest, at.now)));
    let age = roughly(at.since(oldest.id.id));
    let age = match time == age {
        true => String::new(),
        false => format!(", published {age} ago"),
    };
    let holds = format!("{topic}/{name}: {consumer} has held {entries}{age}, for up to {time}");
    let (what, fix) = match oldest.idle_for {
        None => (
            format!(
                "{topic}/{name}: {consumer} gave back {entries}{age}, and no consumer has taken it over"
            ),
            takeover(facts),
        ),
        Some(idle) if idle > lease * LEASES && !lease.is_zero() => (
            format!(
                "{holds}; its lease ended, the last extension was {} ago",
                roughly(idle)
            ),
            takeover(facts),
        ),
        Some(idle) => (
            format!("{holds}; it extended its lease {} ago", roughly(idle)),
            format!(
                "read the log of {consumer}; if its handler hangs, end that process: another \
                 consumer then takes the entry over"
            ),
        ),
    };
    let why = "the topic keeps this entry and all later ones until the group settles it, so its \
               backlog grows";
    let finding = Finding::new(Severity::Warning, "deliveries", what + &others);
    Some(finding.because(why).advise(fix))
}

fn takeover(facts: &GroupFacts) -> String {
    match facts.idle_for {
        Some(idle) => format!(
            "a running consumer takes over such entries within seconds, and the last activity of \
             one was {} ago: start a consumer of the group, or read the log of its consumers",
            roughly(idle)
        ),
        None => "start a consumer of the group".to_owned(),
    }
}

/// For how long at most: since the entry exists, and since the consumer does.
pub(in crate::operate) fn pending_for(one: &Unsettled, now: Timestamp) -> Duration {
    let age = age(one.id.id, now);
    let Some(started) = started(&one.consumer) else {
        return age;
    };
    let now = u64::try_from(now.as_millis()).unwrap_or(0);
    age.min(Duration::from_millis(now.saturating_sub(started)))
}

/// How long an entry exists.
fn age(id: EntryId, now: Timestamp) -> Duration {
    let now = u64::try_from(now.as_millis()).unwrap_or(0);
    Duration::from_millis(now.saturating_sub(id.millis))
}

/// When a consumer's process took its name, in milliseconds since 1970: the name ends in a UUIDv7.
fn started(consumer: &str) -> Option<u64> {
    let (_, fresh) = consumer.rsplit_once('-')?;
    let (seconds, nanos) = Uuid::try_parse(fresh).ok()?.get_timestamp()?.to_unix();
    Some(seconds * 1000 + u64::from(nanos / 1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Group;
    use crate::store::{DeliveryId, Lane};

    const NOW: u64 = 1_764_000_000_000;
    const MINUTE: u64 = 60_000;

    fn at() -> Circumstances {
        Circumstances {
            now: Timestamp::from_millis(i64::try_from(NOW).unwrap()).unwrap(),
            longest_pending: None,
            forgets_reads: false,
        }
    }

    fn topic() -> Topic {
        Topic::new("orders").unwrap()
    }

    fn id(millis: u64) -> EntryId {
        EntryId::new(millis, 0)
    }

    fn group(read: Option<u64>, unsettled: Vec<Unsettled>) -> GroupProgress {
        GroupProgress {
            group: Group::new("billing").unwrap(),
            delivered: id(NOW),
            read,
            lease: Some(Duration::from_secs(30)),
            unsettled,
        }
    }

    fn log(last: EntryId, appended: Option<u64>) -> LogProgress {
        LogProgress {
            last,
            appended,
            trimmed: None,
            groups: Vec::new(),
        }
    }

    fn unsettled(consumer: &str, millis: u64, idle: Option<u64>) -> Unsettled {
        Unsettled {
            id: DeliveryId::new(Lane::Log, id(millis)),
            consumer: consumer.to_owned(),
            idle_for: idle.map(Duration::from_secs),
        }
    }

    #[test]
    fn ids_in_microseconds_and_a_clock_that_was_set_back_are_found() {
        let found = |last| ahead(&topic(), &log(id(last), None), &at());
        assert_eq!(found(NOW + 4_000), None);
        let day = found(NOW + 86_400_000).unwrap();
        assert!(day.what.contains("24 h ahead"), "{day:?}");
        assert!(day.why.contains("until 2025-11-25T16:00:00"), "{day:?}");
        let micros = found(NOW * 1_000).unwrap();
        assert!(micros.why.contains("after it for ever"), "{micros:?}");
        assert!(micros.what.contains("1764000000000000-0"), "{micros:?}");
    }

    #[test]
    fn entries_that_left_before_delivery_are_counted() {
        let found = |appended, lag, read| {
            let mut status = GroupStatus::new(Group::new("billing").unwrap());
            status.lag = lag;
            let group = group(read, Vec::new());
            unread(
                &Partition::of(&topic()),
                &log(id(1), appended),
                &group,
                &status,
                &at(),
            )
        };
        assert_eq!(found(Some(30), 3, Some(27)), None, "all were read");
        assert_eq!(found(None, 0, Some(5)), None);
        assert_eq!(found(Some(30), 0, None), None, "the store does not know");
        assert_eq!(found(Some(30), 40, Some(0)), None, "a lag may be too high");
        let lost = found(Some(30), 3, Some(2)).unwrap();
        assert_eq!(lost.severity, Severity::Problem);
        assert!(
            lost.what.contains("orders/billing: 25 entries left"),
            "{lost:?}"
        );
        let mut status = GroupStatus::new(Group::new("billing").unwrap());
        status.lag = 3;
        let maybe = Circumstances {
            forgets_reads: true,
            ..at()
        };
        let mut group = group(Some(2), Vec::new());
        group.delivered = group.delivered.in_partition(3);
        let third = Partition::numbered(&topic(), 3);
        let found = unread(&third, &log(id(1), Some(30)), &group, &status, &maybe).unwrap();
        // The command names the log of one partition, and an id as that log has it.
        assert!(found.what.starts_with("orders/3/billing:"), "{found:?}");
        let command = "XGROUP SETID <log of orders/3> billing 1764000000000-0 ENTRIESREAD 27";
        assert!(found.advice.contains(command), "{found:?}");
        assert_eq!(found.severity, Severity::Warning);
        assert!(found.why.contains("append-only file"), "{found:?}");
    }

    #[test]
    fn the_oldest_delivery_that_is_held_for_long_is_named() {
        let found = |all: Vec<Unsettled>| {
            let group = group(None, all);
            let facts = GroupFacts::default();
            pending(&topic(), &group, &facts, &at()).map(|finding| finding.what)
        };
        assert_eq!(found(Vec::new()), None);
        assert_eq!(
            found(vec![unsettled("c", NOW - 14 * MINUTE, Some(1))]),
            None
        );
        let what = found(vec![
            unsettled("other", NOW - 20 * MINUTE, Some(1)),
            unsettled("c", NOW - 60 * MINUTE, Some(4)),
            unsettled("c", NOW - MINUTE, Some(4)),
        ]);
        assert_eq!(
            what.unwrap(),
            "orders/billing: c has held entry 1763996400000-0, for up to 60 min; it extended its \
             lease 4 s ago; other consumers hold 1 more for as long"
        );
        let what = found(vec![unsettled("c", NOW - 60 * MINUTE, Some(3_000))]).unwrap();
        assert!(what.contains("its lease ended"), "{what}");
        let what = found(vec![unsettled("c", NOW - 60 * MINUTE, None)]).unwrap();
        assert!(what.contains("c gave back entry"), "{what}");
        let two = [60, 70].map(|age| unsettled("c", NOW - age * MINUTE, Some(1)));
        let what = found(two.to_vec()).unwrap();
        assert!(
            what.contains("2 entries, the oldest 1763995800000-0"),
            "{what}"
        );
    }

    #[test]
    fn nobody_has_held_an_entry_for_longer_than_the_process_lives() {
        let born = |age: u64| {
            let millis = NOW - age * MINUTE;
            let seconds = uuid::Timestamp::from_unix(uuid::NoContext, millis / 1000, 0);
            format!("billing-{}", Uuid::new_v7(seconds).simple())
        };
        let longest = |consumer: &str| {
            pending_for(&unsettled(consumer, NOW - 60 * MINUTE, Some(1)), at().now)
        };
        assert_eq!(longest("c"), Duration::from_millis(60 * MINUTE));
        assert_eq!(longest("by-hand"), Duration::from_millis(60 * MINUTE));
        assert_eq!(longest(&born(90)), Duration::from_millis(60 * MINUTE));
        assert_eq!(longest(&born(2)), Duration::from_millis(2 * MINUTE));
    }

    #[test]
    fn what_is_long_follows_the_lease_and_the_setting() {
        let facts = GroupFacts::default();
        let mut group = group(None, vec![unsettled("c", NOW - 60 * MINUTE, Some(1))]);
        group.lease = Some(Duration::from_secs(3_600));
        assert_eq!(pending(&topic(), &group, &facts, &at()), None);
        let set = Circumstances {
            longest_pending: Some(Duration::ZERO),
            ..at()
        };
        assert!(pending(&topic(), &group, &facts, &set).is_some());
    }
}
