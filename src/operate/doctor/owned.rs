//! Findings on owned groups: partitions without an owner, keys that wait long for a failed message, and
//! partitions that are read no further because of such keys.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::domain::{Error, Group, Timestamp, Topic};
use crate::operate::dead_letters::counted;
use crate::operate::doctor::Doctor;
use crate::operate::doctor::finding::{Finding, Severity, roughly};
use crate::operate::doctor::groups::TopicFacts;
use crate::operate::doctor::progress::{Circumstances, LONG};
use crate::operate::doctor::unseen::Failed;
use crate::operate::escape;
use crate::operate::log_pages;
use crate::operate::owned::{self, HoldingMessage, OwnedPartition};
use crate::store::{DeliveryId, GroupAt, Lane, Limits, Partition, decode_entry};
use crate::worker::ownership::{MOST_BYTES, MOST_ENTRIES};

/// From when on a partition is without an owner. A handover takes milliseconds. After a crash the other
/// members claim a partition within a fifth of their lease, which is a second by default.
const OWNERLESS: Duration = Duration::from_secs(3);
const BETWEEN_LOOKS: Duration = Duration::from_millis(500);

/// How long a message must have failed before the doctor says that its partition is read no further: a retry
/// may free the partition soon.
const STANDS_STILL: Duration = Duration::from_secs(60);

/// How many failed messages of a partition the doctor reads.
const LISTED: usize = 10;
/// How many entries it reads at a time.
const PAGE: usize = 128;
/// How many characters of an error it tells.
const ERROR: usize = 120;

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
                        // What the looks before found stands.
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

    /// How many entries wait behind failed messages, if that is all that the partition's owner reads ahead;
    /// `None` if it reads on.
    async fn waiting_behind(
        &self,
        topic: &Topic,
        of: &OwnedPartition,
    ) -> Result<Option<usize>, Error> {
        let at = Partition::numbered(topic, of.partition);
        let mut keys: HashSet<String> = of.redriven_keys().map(str::to_owned).collect();
        let (mut count, mut bytes) = (0, 0);
        let mut after = of.low;
        loop {
            let page = log_pages::after(&*self.store, &at, Some(after), PAGE).await?;
            let Some((last, _)) = page.last() else {
                return Ok(None);
            };
            let last = of.cursor.end_of_done(last.in_partition(0));
            after = last.in_partition(of.partition);
            for (id, fields) in page {
                let id = id.in_partition(0);
                if of.cursor.is_done(id) {
                    continue;
                }
                let pairs = fields.iter().map(|(name, value)| (&name[..], &value[..]));
                let limits = Limits::default().without_bound();
                let envelope = decode_entry(topic, id, pairs, limits).ok();
                let key = envelope.and_then(|one| one.key().map(str::to_owned));
                let has_failed = of.kept.contains(&DeliveryId::new(Lane::Log, id));
                match key {
                    Some(key) if has_failed => drop(keys.insert(key)),
                    None if has_failed => {}
                    Some(key) if keys.contains(&key) => {}
                    // It waits for no failed message.
                    _ => return Ok(None),
                }
                count += 1;
                bytes += log_pages::weight(&fields);
                if count >= MOST_ENTRIES || bytes >= MOST_BYTES {
                    return Ok(Some(count));
                }
            }
        }
    }
}

/// The findings on owned groups.
pub(super) fn judge(all: &[OwnedFacts], at: &Circumstances) -> Vec<Finding> {
    let of_group = |one: &OwnedFacts| [ownerless(one), standby(one), keys(one, at)];
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
    let finding = Finding::new(Severity::Problem, "owners", what)
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

/// Whether keys have waited long for a failed message, or a partition is read no further because of them.
fn keys(facts: &OwnedFacts, at: &Circumstances) -> Option<Finding> {
    if facts.members == 0 {
        // A group without members has a finding of its own.
        return None;
    }
    let limit = at.longest_pending.unwrap_or(LONG);
    let held_for = |one: &OwnedPartition| one.failing_since().map(|since| at.age_of(since));
    let long = facts.partitions.iter();
    let long = long.filter(|one| held_for(one).is_some_and(|time| time >= limit));
    let long: Vec<&OwnedPartition> = long.collect();
    let stands_still =
        |one: &&OwnedPartition| held_for(one).is_none_or(|time| time >= limit.min(STANDS_STILL));
    let is_full = |one: &OwnedPartition| facts.full.iter().find(|(at, _)| *at == one.partition);
    let full = facts.partitions.iter().filter(stands_still);
    let full = full.filter_map(|one| Some((one, is_full(one)?))).next();
    let worst = long.iter().min_by_key(|one| one.failing_since());
    let OwnedFacts { topic, group, .. } = facts;
    let (severity, partition, what, why) = match (full, worst) {
        (Some((one, (number, count))), _) => (
            Severity::Problem,
            one,
            format!(
                "{topic}/{group}: partition {number} is read no further: {} that its owner has read wait for {}",
                counted(*count as u64, "entry", "entries"),
                counted(one.held_back, "failed message", "failed messages"),
            ),
            "an owner reads up to 1,024 entries or 8 MiB ahead; while all of them wait, the other keys of \
             the partition wait, too",
        ),
        (None, Some(one)) => (
            Severity::Warning,
            *one,
            format!(
                "{topic}/{group}: partition {} holds back {}",
                one.partition,
                counted(one.held_back, "key", "keys"),
            ),
            "the later messages of such a key wait until its failed message is handled or is a dead letter",
        ),
        (None, None) => return None,
    };
    let others = long
        .iter()
        .filter(|one| one.partition != partition.partition);
    let others = match others.map(|one| one.held_back).sum() {
        0 => String::new(),
        others => format!(
            "; other partitions hold back {}",
            counted(others, "key", "keys")
        ),
    };
    let oldest = partition
        .oldest
        .iter()
        .min_by_key(|one| one.since.unwrap_or(Timestamp::MAX));
    let oldest = oldest.map_or_else(String::new, |one| format!("; {}", describe(one, at)));
    let finding = Finding::new(severity, "keys", what + &oldest + &others).because(why);
    Some(finding.advise(format!(
        "mend what the error names: `redstart groups show {topic} {group}` lists the messages; a handler that \
         returns `Outcome::dead_letter` for what no retry mends, and a policy with fewer attempts, set the \
         key free sooner; with `letting_pass` the later messages do not wait"
    )))
}

/// A failed message in words.
fn describe(one: &HoldingMessage, at: &Circumstances) -> String {
    let key = match &one.key {
        Some(key) => format!("key {}", escape::excerpt(key, ERROR)),
        None => "a message without a key".to_owned(),
    };
    let (id, attempts) = (one.id.id, u64::from(one.attempts));
    let Some(error) = &one.error else {
        return format!("{key} waits for message {id}, which a handler snoozed");
    };
    let since = one.since.map_or_else(String::new, |since| {
        format!(" for {}", roughly(at.age_of(since)))
    });
    let attempts = counted(attempts, "failed attempt", "failed attempts");
    let error = escape::excerpt(error, ERROR);
    format!("{key} waits{since} for message {id}, after {attempts}: {error}")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use bytes::Bytes;
    use uuid::Uuid;

    use super::*;
    use crate::adapters::memory::MemoryStore;
    use crate::domain::{
        BoxFuture, Codec, ConsumerName, Cursor, EntryId, Envelope, ErrorKind, TopicSettings,
    };
    use crate::store::decorate::{Answer, Decorated, Decorator, Next, Op};
    use crate::store::{
        Attempts, Attendance, LaneStep, Member, NewEntry, Note, OwnersOp, Partitioned, StartFrom,
        Step, Stepped, Store, encode_entry,
    };
    use crate::wire::redelivery::Redelivery;

    const MINUTE: Duration = Duration::from_secs(60);

    /// An owned group on a topic with two partitions.
    struct Two {
        store: Arc<dyn Store>,
        topic: Topic,
        group: Group,
    }

    impl Two {
        async fn new() -> Self {
            let two = Self {
                store: MemoryStore::new().store(None),
                topic: Topic::new("orders").unwrap(),
                group: Group::new("billing").unwrap(),
            };
            let settings = TopicSettings::default().with_partitions(2);
            let made = two.store.topics().ensure_topic(&two.topic, settings);
            made.await.unwrap();
            for number in 0..2 {
                let at = two.member("one", number).at;
                let made = two.store.owners().create(&at, StartFrom::Beginning);
                made.await.unwrap();
            }
            two
        }

        fn member(&self, name: &str, number: u16) -> Member {
            Member {
                at: GroupAt {
                    partition: Partition::numbered(&self.topic, number),
                    group: self.group.clone(),
                },
                consumer: ConsumerName::new(name).unwrap(),
            }
        }

        async fn claim(&self, name: &str, claims: &[u16]) {
            let attendance = Attendance {
                lease: 60 * MINUTE,
                claims: claims.iter().map(|at| (*at, 0)).collect(),
                ..Attendance::default()
            };
            let by = self.member(name, 0);
            self.store.owners().attend(&by, &attendance).await.unwrap();
        }

        /// Appends messages of a key to partition 1.
        async fn append(&self, key: &str, size: usize, count: usize) -> Vec<EntryId> {
            let envelope = Envelope::new("t", &"x".repeat(size)).unwrap().with_key(key);
            let (name, value) = encoded(&envelope);
            let entry = NewEntry {
                id: Uuid::nil(),
                name,
                value,
                slot: None,
            };
            let at = Partition::numbered(&self.topic, 1);
            let appended = self.store.log().append(&at, &vec![entry; count]).await;
            let ids = appended.unwrap().into_iter().map(|one| one.unwrap().id);
            ids.map(|id| id.in_partition(0)).collect()
        }

        /// Lets a message of partition 1 fail with what comes before it settled, and others after it.
        async fn fail(&self, id: EntryId, key: &str, ago: Duration, done: Vec<(EntryId, EntryId)>) {
            let owner = self.member("one", 1);
            self.store.owners().take(&owner, 1).await.unwrap();
            let mut envelope = Envelope::new("t", &1).unwrap().with_key(key);
            (envelope.failed_attempts, envelope.last_error) = (3, Some("declined".to_owned()));
            let (name, value) = encoded(&envelope);
            let mut redelivery = Redelivery {
                fields: vec![(Bytes::from_static(name.as_bytes()), value)],
                history: Default::default(),
                starts_over: false,
            };
            let now = self.store.now().as_millis();
            let since = now - i64::try_from(ago.as_millis()).unwrap();
            redelivery.history.first_failure = Timestamp::from_millis(since).ok();
            let low = id.before().unwrap();
            let step = Step {
                token: 1,
                number: 1,
                lanes: [
                    Some(LaneStep {
                        cursor: Cursor {
                            low,
                            high: id,
                            done,
                        },
                        passed: 0,
                    }),
                    None,
                ],
                notes: vec![Note {
                    delivery: DeliveryId::new(Lane::Log, id),
                    attempts: Attempts::default(),
                    kept: Some((MINUTE, redelivery.encode())),
                }],
                ..Step::default()
            };
            let stepped = self.store.owners().step(&owner, &step).await.unwrap();
            assert_eq!(stepped, Stepped::Done);
        }

        /// The findings on owned groups.
        async fn found(&self) -> Vec<(&'static str, Severity, String)> {
            let report = Doctor::new(Arc::clone(&self.store)).run().await;
            let found = report.findings.into_iter();
            let found = found.filter(|one| ["owners", "keys"].contains(&one.check));
            found
                .inspect(Finding::assert_helpful)
                .map(|one| (one.check, one.severity, one.what))
                .collect()
        }
    }

    fn encoded(envelope: &Envelope) -> (&'static str, Bytes) {
        let (name, value) = encode_entry(envelope, Codec::Json, Limits::default()).unwrap();
        (name, value.into())
    }

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

    #[tokio::test]
    async fn a_key_that_waits_long_for_a_failed_message_is_told() {
        let two = Two::new().await;
        two.claim("one", &[0, 1]).await;
        let ids = two.append("c-7", 1, 1).await;
        two.fail(ids[0], "c-7", 14 * MINUTE, Vec::new()).await;
        assert_eq!(two.found().await, []);

        let two = Two::new().await;
        two.claim("one", &[0, 1]).await;
        let ids = two.append("c-7", 1, 1).await;
        two.fail(ids[0], "c-7", 20 * MINUTE, Vec::new()).await;
        let found = two.found().await;
        let [("keys", Severity::Warning, what)] = &found[..] else {
            panic!("{found:?}");
        };
        let id = ids[0].in_partition(1);
        let told = format!(
            "orders/billing: partition 1 holds back 1 key; key c-7 waits for 20 min for message {id}, \
             after 3 failed attempts: declined"
        );
        assert_eq!(*what, told);
    }

    #[tokio::test]
    async fn a_partition_of_which_everything_read_waits_is_told() {
        let full = async |two: &Two| {
            let found = two.found().await;
            let full = found.into_iter().find(|one| one.1 == Severity::Problem);
            full.map(|(check, _, what)| {
                assert_eq!(check, "keys");
                what
            })
        };
        let two = Two::new().await;
        two.claim("one", &[0, 1]).await;
        let ids = two.append("a", 1, MOST_ENTRIES - 1).await;
        two.fail(ids[0], "a", MINUTE, Vec::new()).await;
        assert_eq!(full(&two).await, None, "one more is read");
        two.append("a", 1, 1).await;
        let what = full(&two).await.unwrap();
        let told = "orders/billing: partition 1 is read no further: 1024 entries that its owner has read \
                    wait for 1 failed message; key a waits for";
        assert!(what.starts_with(told), "{what}");
        two.append("b", 1, 1).await;
        assert!(full(&two).await.is_some(), "it is not read");

        let two = Two::new().await;
        two.claim("one", &[0, 1]).await;
        let mut ids = two.append("a", 1, 500).await;
        ids.extend(two.append("b", 1, 300).await);
        ids.extend(two.append("a", 1, 600).await);
        let others = vec![(ids[500], ids[798])];
        two.fail(ids[0], "a", MINUTE, others).await;
        assert_eq!(full(&two).await, None, "one of another key is ready");

        let two = Two::new().await;
        two.claim("one", &[0, 1]).await;
        let mut ids = two.append("a", 1, 500).await;
        ids.extend(two.append("b", 1, 300).await);
        ids.extend(two.append("a", 1, 600).await);
        let others = vec![(ids[500], ids[799])];
        two.fail(ids[0], "a", MINUTE, others).await;
        assert!(full(&two).await.is_some(), "the others are settled");

        let two = Two::new().await;
        two.claim("one", &[0, 1]).await;
        let ids = two.append("a", 1, MOST_ENTRIES).await;
        two.fail(ids[0], "a", MINUTE / 2, Vec::new()).await;
        assert_eq!(full(&two).await, None, "a retry may free it soon");

        let two = Two::new().await;
        two.claim("one", &[0, 1]).await;
        let ids = two.append("a", 1_000_000, 9).await;
        two.fail(ids[0], "a", MINUTE, Vec::new()).await;
        let what = full(&two).await.unwrap();
        assert!(what.contains("9 entries"), "{what}");
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
        let what: Vec<&str> = found.map(|one| &*one.what).collect();
        let is_found = |sign| what.iter().any(|one| one.contains(sign));
        assert!(
            is_found("partition 1 has had no owner for 0 s"),
            "{report:?}"
        );
        assert!(is_found("orders/billing: not checked: "), "{report:?}");
    }
}
