//! The metrics of a subscription. The table in `src/docs/metrics.md` explains each.

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use crate::domain::Reason;
use crate::store::Member;

/// Handles, resolved once: looking a metric up by its labels costs more than counting.
pub(crate) struct Meters {
    topic: String,
    group: String,
    /// Messages for later that the promoter published.
    pub(crate) published: Counter,
    pub(crate) delivered: Counter,
    pub(crate) acknowledged: Counter,
    pub(crate) retried: Counter,
    pub(crate) snoozed: Counter,
    pub(crate) dead_lettered: Counter,
    pub(crate) reclaimed: Counter,
    pub(crate) committed: Counter,
    pub(crate) commits_lost: Counter,
    pub(crate) commit_conflicts: Counter,
    pub(crate) lost_entries: Counter,
    pub(crate) leases_lost: Counter,
    pub(crate) recreated: Counter,
    pub(crate) reconnects: Counter,
    pub(crate) in_flight: Gauge,
    pub(crate) held_back: Gauge,
    pub(crate) oldest_in_flight: Gauge,
    pub(crate) slots: Gauge,
    pub(crate) busy_slots: Gauge,
    pub(crate) dead_letters_trimmed: Counter,
    pub(crate) handler_duration: Histogram,
    pub(crate) queue_time: Histogram,
    pub(crate) settle_batch: Histogram,
}

impl Meters {
    pub(crate) fn new(member: &Member) -> Self {
        let (topic, group) = (member.topic().to_string(), member.group().to_string());
        macro_rules! meter {
            ($kind:ident $name:literal $(, $label:literal => $value:expr)*) => {
                $kind!($name, "topic" => topic.clone(), "group" => group.clone() $(, $label => $value)*)
            };
        }
        Self {
            published: counter!("redstart_published_total", "topic" => topic.clone()),
            delivered: meter!(counter "redstart_delivered_total"),
            acknowledged: meter!(counter "redstart_settled_total", "outcome" => "ack"),
            retried: meter!(counter "redstart_settled_total", "outcome" => "retry"),
            snoozed: meter!(counter "redstart_settled_total", "outcome" => "snooze"),
            dead_lettered: meter!(counter "redstart_settled_total", "outcome" => "dead-letter"),
            committed: meter!(counter "redstart_commits_total"),
            commits_lost: meter!(counter "redstart_commits_lost_total"),
            commit_conflicts: meter!(counter "redstart_commit_conflicts_total"),
            reclaimed: meter!(counter "redstart_reclaimed_total"),
            lost_entries: meter!(counter "redstart_lost_entries_total"),
            leases_lost: meter!(counter "redstart_leases_lost_total"),
            recreated: meter!(counter "redstart_groups_recreated_total"),
            reconnects: meter!(counter "redstart_reconnects_total", "connection" => "redstart:sub"),
            in_flight: meter!(gauge "redstart_in_flight"),
            held_back: meter!(gauge "redstart_held_back"),
            oldest_in_flight: meter!(gauge "redstart_oldest_in_flight_seconds"),
            slots: meter!(gauge "redstart_slots"),
            busy_slots: meter!(gauge "redstart_busy_slots"),
            dead_letters_trimmed: meter!(counter "redstart_dead_letters_trimmed_total"),
            handler_duration: meter!(histogram "redstart_handler_duration_seconds"),
            queue_time: meter!(histogram "redstart_queue_seconds"),
            settle_batch: meter!(histogram "redstart_settle_batch_size"),
            topic,
            group,
        }
    }

    /// Counts a dead letter. They are rare enough to look up the counter of the reason.
    pub(crate) fn count_dead_letter(&self, reason: Reason) {
        self.dead_lettered.increment(1);
        let (topic, group) = (self.topic.clone(), self.group.clone());
        counter!("redstart_dead_letters_total", "topic" => topic, "group" => group, "reason" => reason.as_str())
            .increment(1);
    }
}
