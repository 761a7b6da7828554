//! Findings on the keys of owned groups: keys that wait long for a failed message, and partitions that are
//! read no further because of such keys.

use std::collections::HashSet;
use std::time::Duration;

use crate::domain::{Error, Timestamp, Topic};
use crate::operate::dead_letters::counted;
use crate::operate::doctor::Doctor;
use crate::operate::doctor::finding::{Finding, Severity, roughly};
use crate::operate::doctor::owned::OwnedFacts;
use crate::operate::doctor::progress::{Circumstances, LONG};
use crate::operate::escape;
use crate::operate::log_pages;
use crate::operate::owned::{HoldingMessage, OwnedPartition};
use crate::store::{DeliveryId, Lane, Limits, Partition, decode_entry};
use crate::worker::ownership::{MOST_BYTES, MOST_ENTRIES};

/// How long a message must have failed before the doctor says that its partition is read no further: a retry
/// may free the partition soon.
const STANDS_STILL: Duration = Duration::from_secs(60);
/// How many entries it reads at a time.
const PAGE: usize = 128;
/// How many characters of an error it tells.
const ERROR: usize = 120;

impl Doctor {
    /// How many entries wait behind failed messages, if that is all that the partition's owner reads ahead;
    /// `None` if it reads on.
    pub(super) async fn waiting_behind(
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

/// Whether keys have waited long for a failed message, or a partition is read no further because of them.
pub(super) fn judge(facts: &OwnedFacts, at: &Circumstances) -> Option<Finding> {
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
    use super::*;
    use crate::operate::doctor::owned::fixture::{MINUTE, Two};

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
}
