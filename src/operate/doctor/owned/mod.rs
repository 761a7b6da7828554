//! Findings on owned groups: partitions without an owner, members that stand by, and what `keys` finds.

#[cfg(test)]
mod fixture;
mod keys;

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::domain::{Error, Group, Topic};
use crate::operate::dead_letters::counted;
use crate::operate::doctor::Doctor;
use crate::operate::doctor::finding::{Finding, Severity, roughly};
use crate::operate::doctor::groups::TopicFacts;
use crate::operate::doctor::progress::Circumstances;
use crate::operate::doctor::unseen::Failed;
use crate::operate::owned::{self, OwnedPartition};
use crate::store::GroupAt;

/// From when on a partition is without an owner. A handover takes milliseconds. After a crash the other
/// members claim a partition within a fifth of their lease, which is a second by default.
const OWNERLESS: Duration = Duration::from_secs(3);
const BETWEEN_LOOKS: Duration = Duration::from_millis(500);

/// How many failed messages of a partition the doctor reads.
const LISTED: usize = 10;

/// An owned group.
#[derive(Debug)]
pub(super) struct OwnedFacts {
    topic: Topic,
    group: Group,
    members: usize,
    /// The partitions that had no owner at any look, although the group has members.
    ownerless: Vec<u16>,
    /// From the first look to the last that could be made.
    looked_for: Duration,
    partitions: Vec<OwnedPartition>,
    /// The partitions that are read no further, each with the number of entries that wait.
    full: Vec<(u16, usize)>,
}

impl OwnedFacts {
    fn at(&self) -> GroupAt {
        GroupAt::of(&self.topic, &self.group)
    }
}

impl Doctor {
    /// The facts of all owned groups. Takes some seconds where a partition has no owner.
    pub(super) async fn owned_groups(&self, topics: &[TopicFacts]) -> (Vec<OwnedFacts>, Failed) {
        let (mut all, mut failures) = (Vec::new(), Failed::default());
        for status in topics.iter().map(|one| &one.status) {
            for group in status.groups.iter().filter(|group| group.owned) {
                let at = GroupAt::of(&status.topic, &group.group);
                if failures.gives_up(&at) {
                    continue;
                }
                match self.owned_group(&at).await {
                    Ok(facts) => all.extend(facts),
                    Err(error) => failures.note(&at, &error),
                }
            }
        }
        let mut unread: HashSet<GroupAt> = HashSet::new();
        let (first, mut looked_for) = (Instant::now(), Duration::ZERO);
        let is_open = |one: &OwnedFacts, unread: &HashSet<GroupAt>| {
            !one.ownerless.is_empty() && !unread.contains(&one.at())
        };
        while all.iter().any(|one| is_open(one, &unread)) && looked_for < OWNERLESS {
            sleep(BETWEEN_LOOKS).await;
            looked_for = first.elapsed();
            for one in &mut all {
                if !is_open(one, &unread) {
                    continue;
                }
                let at = one.at();
                let roster = match owned::roster(&*self.store, &at).await {
                    Ok(roster) => roster.unwrap_or_default(),
                    Err(error) => {
                        // Keeps the results of the earlier looks.
                        failures.note(&at, &error);
                        unread.insert(at);
                        continue;
                    }
                };
                (one.members, one.looked_for) = (roster.members.len(), looked_for);
                one.ownerless.retain(|number| {
                    !roster.members.is_empty() && !roster.owners.contains_key(number)
                });
            }
        }
        (all, failures)
    }

    async fn owned_group(&self, at: &GroupAt) -> Result<Option<OwnedFacts>, Error> {
        let Some(roster) = owned::roster(&*self.store, at).await? else {
            return Ok(None);
        };
        let partitions = owned::partitions(&*self.store, at, &roster, LISTED).await?;
        let mut full = Vec::new();
        for one in partitions.iter().filter(|one| one.held_back > 0) {
            let waiting = self.waiting_behind(at.topic(), one).await?;
            full.extend(waiting.map(|count| (one.partition, count)));
        }
        let ownerless = partitions.iter().filter(|one| one.owner.is_none());
        let ownerless = ownerless.filter(|_| !roster.members.is_empty());
        Ok(Some(OwnedFacts {
            topic: at.topic().clone(),
            group: at.group.clone(),
            members: roster.members.len(),
            ownerless: ownerless.map(|one| one.partition).collect(),
            looked_for: Duration::ZERO,
            full,
            partitions,
        }))
    }
}

/// The findings on owned groups.
pub(super) fn judge(all: &[OwnedFacts], at: &Circumstances) -> Vec<Finding> {
    let of_group = |one: &OwnedFacts| [ownerless(one), standby(one), keys::judge(one, at)];
    all.iter().flat_map(of_group).flatten().collect()
}

/// Whether partitions have no owner although the group has members.
fn ownerless(facts: &OwnedFacts) -> Option<Finding> {
    let numbers: Vec<String> = facts.ownerless.iter().map(u16::to_string).collect();
    let (which, have) = match &numbers[..] {
        [] => return None,
        [one] => (format!("partition {one}"), "has"),
        [..] => (format!("partitions {}", numbers.join(", ")), "have"),
    };
    let OwnedFacts { topic, group, .. } = facts;
    let what = format!(
        "{topic}/{group}: {which} {have} had no owner for {} at least; the group has {}",
        roughly(facts.looked_for),
        counted(facts.members as u64, "member", "members"),
    );
    // One look proves nothing: a handover takes milliseconds.
    let severity = match facts.looked_for < OWNERLESS {
        true => Severity::Unknown,
        false => Severity::Problem,
    };
    let finding = Finding::new(severity, "owners", what)
        .because("no process handles the messages of a partition without an owner");
    Some(finding.advise(
        "read the log of the group's members, which claim such partitions every fifth of their lease; \
         if a member with a lease of more than 15 s has just crashed, run the doctor again",
    ))
}

/// Whether members have nothing to do because there are more of them than partitions.
fn standby(facts: &OwnedFacts) -> Option<Finding> {
    let partitions = facts.partitions.len();
    let rest = facts.members.checked_sub(partitions)?;
    if rest == 0 {
        return None;
    }
    let OwnedFacts { topic, group, .. } = facts;
    let what = format!(
        "{topic}/{group}: {} for {}: {rest} of them {} by",
        counted(facts.members as u64, "member", "members"),
        counted(partitions as u64, "partition", "partitions"),
        if rest == 1 { "stands" } else { "stand" },
    );
    Some(Finding::ok("owners", what))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::fixture::Two;
    use super::*;
    use crate::domain::{BoxFuture, ErrorKind};
    use crate::store::decorate::{Answer, Decorated, Decorator, Next, Op};
    use crate::store::{OwnersOp, Partitioned, Store};

    #[tokio::test]
    async fn a_partition_without_an_owner_is_told_where_it_stays_so() {
        let two = Two::new().await;
        assert_eq!(two.found().await, [], "a group without members");
        two.claim("one", &[0]).await;
        let begun = Instant::now();
        let what =
            "orders/billing: partition 1 has had no owner for 3 s at least; the group has 1 member";
        let expected = ("owners", Severity::Problem, what.to_owned());
        assert_eq!(two.found().await, [expected]);
        assert!(begun.elapsed() >= OWNERLESS, "one look is not enough");
        let claims = async {
            sleep(Duration::from_millis(1)).await;
            two.claim("one", &[1]).await;
        };
        let (found, ()) = tokio::join!(two.found(), claims);
        assert_eq!(found, [], "it was on its way to its owner");
    }

    #[tokio::test]
    async fn members_beyond_the_partitions_stand_by() {
        let two = Two::new().await;
        two.claim("one", &[0, 1]).await;
        two.claim("two", &[]).await;
        assert_eq!(two.found().await, []);
        two.claim("three", &[]).await;
        let what = "orders/billing: 3 members for 2 partitions: 1 of them stands by";
        assert_eq!(
            two.found().await,
            [("owners", Severity::Ok, what.to_owned())]
        );
    }

    /// Answers no question for a roster after one for the progress of a partition.
    #[derive(Debug, Default)]
    struct OneLook(AtomicBool);

    impl Decorator for OneLook {
        fn call<'a>(
            &'a self,
            op: Op<'a>,
            mut next: Next<'a>,
        ) -> BoxFuture<'a, Result<Answer, Error>> {
            Box::pin(async move {
                match op {
                    Op::Owners(OwnersOp::Progress { .. }) => self.0.store(true, Ordering::Relaxed),
                    Op::Owners(OwnersOp::Roster { .. }) if self.0.load(Ordering::Relaxed) => {
                        return Err(Error::new(ErrorKind::Unavailable, op.name(), "gone"));
                    }
                    _ => {}
                }
                next.run(op).await
            })
        }
    }

    #[tokio::test]
    async fn a_look_that_fails_drops_nothing_that_another_one_found() {
        let two = Two::new().await;
        two.claim("one", &[0]).await;
        let single = two.store.single().unwrap_or_else(|| two.store.clone());
        let late = Decorated::new(Arc::new(OneLook::default()), single);
        let store: Arc<dyn Store> = Arc::new(Partitioned::new(Arc::new(late)));
        let report = Doctor::new(store).run().await;
        let found = report.findings.iter().filter(|one| one.check == "owners");
        let found: Vec<_> = found.map(|one| (one.severity, &*one.what)).collect();
        let is_found = |severity, sign| {
            let mut found = found.iter();
            found.any(|(of, what)| *of == severity && what.contains(sign))
        };
        assert!(
            is_found(Severity::Unknown, "partition 1 has had no owner for 0 s"),
            "{report:?}"
        );
        assert!(
            is_found(Severity::Problem, "orders/billing: not checked: "),
            "{report:?}"
        );
    }
}
