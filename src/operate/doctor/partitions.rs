//! Findings on the partitions of a topic.

use crate::operate::doctor::finding::{Finding, Severity};
use crate::operate::doctor::groups::backlog_of;
use crate::store::TopicStatus;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Topic, TopicSettings};

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
