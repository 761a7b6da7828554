//! What a subscription counts. The table in `src/docs/metrics.md` explains each.

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use crate::backend::Member;
use crate::domain::Reason;

/// Handles, made once: looking a metric up by its labels costs more than counting.
pub(super) struct Meters {
    topic: String,
    group: String,
    pub(super) delivered: Counter,
    pub(super) acknowledged: Counter,
    pub(super) retried: Counter,
    pub(super) snoozed: Counter,
    pub(super) dead_lettered: Counter,
    pub(super) reclaimed: Counter,
    pub(super) missing: Counter,
    pub(super) lease_lost: Counter,
    pub(super) recreated: Counter,
    pub(super) reconnects: Counter,
    pub(super) in_flight: Gauge,
    pub(super) lag: Gauge,
    pub(super) scheduled: Gauge,
    pub(super) dead: Gauge,
    pub(super) dead_removed: Counter,
    pub(super) handler_seconds: Histogram,
    pub(super) settle_batch: Histogram,
}

impl Meters {
    pub(super) fn new(member: &Member) -> Self {
        let (topic, group) = (member.topic.to_string(), member.group.to_string());
        macro_rules! meter {
            ($kind:ident $name:literal $(, $label:literal => $value:expr)*) => {
                $kind!($name, "topic" => topic.clone(), "group" => group.clone() $(, $label => $value)*)
            };
        }
        Self {
            delivered: meter!(counter "redstart_delivered_total"),
            acknowledged: meter!(counter "redstart_settled_total", "outcome" => "ack"),
            retried: meter!(counter "redstart_settled_total", "outcome" => "retry"),
            snoozed: meter!(counter "redstart_settled_total", "outcome" => "snooze"),
            dead_lettered: meter!(counter "redstart_settled_total", "outcome" => "dead-letter"),
            reclaimed: meter!(counter "redstart_reclaimed_total"),
            missing: meter!(counter "redstart_missing_total"),
            lease_lost: meter!(counter "redstart_lease_lost_total"),
            recreated: meter!(counter "redstart_groups_recreated_total"),
            reconnects: meter!(counter "redstart_reconnects_total", "connection" => "redstart:sub"),
            in_flight: meter!(gauge "redstart_in_flight"),
            lag: meter!(gauge "redstart_lag"),
            scheduled: meter!(gauge "redstart_scheduled"),
            dead: meter!(gauge "redstart_dead_letters"),
            dead_removed: meter!(counter "redstart_dead_letters_overdue_total"),
            handler_seconds: meter!(histogram "redstart_handler_seconds"),
            settle_batch: meter!(histogram "redstart_settle_batch_size"),
            topic,
            group,
        }
    }

    /// Counts a burial; rare enough to look the reason's counter up.
    pub(super) fn buried(&self, reason: Reason) {
        let (topic, group) = (self.topic.clone(), self.group.clone());
        counter!("redstart_dead_letters_total", "topic" => topic, "group" => group, "reason" => reason.as_str())
            .increment(1);
    }
}
