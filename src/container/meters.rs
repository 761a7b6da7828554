//! Descriptions of all metrics, and the buckets of the histograms.
//!
//! The metrics go through the [`metrics`](https://docs.rs/metrics) facade, and the page
//! [metrics and traces](crate::docs::metrics) explains each. [`connect`](crate::container::ContainerBuilder::connect)
//! describes them to the recorder that is installed then; an exporter shows the descriptions as `# HELP`.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Bounds for times, in seconds: from a fast handler to a message that waits for a minute.
const TIMES: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];

/// Bounds for counts of deliveries. One call settles 500 at most.
const COUNTS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0];

/// The histograms, each with the upper bounds of its buckets: seconds for names that end in
/// `_seconds`, else counts.
///
/// The facade cannot tell a recorder about buckets, so an exporter needs them from here; without, most
/// exporters send quantiles, which cannot be added up over processes. The page
/// [metrics and traces](crate::docs::metrics) shows how to pass them on.
pub const BUCKETS: &[(&str, &[f64])] = &[
    ("redstart_queue_seconds", TIMES),
    ("redstart_handler_duration_seconds", TIMES),
    ("redstart_settle_batch_size", COUNTS),
];

const COUNTERS: &[(&str, &str)] = &[
    (
        "redstart_published_total",
        "Messages that the server has accepted.",
    ),
    (
        "redstart_scheduled_total",
        "Messages for later that the server has accepted; they are published when they are due.",
    ),
    (
        "redstart_publish_failed_total",
        "Messages that were not published or scheduled, or whose outcome is unknown.",
    ),
    (
        "redstart_publish_duplicates_total",
        "Messages that a publish with deduplication recognised as published.",
    ),
    (
        "redstart_publish_retries_total",
        "Repeats of publishes with deduplication whose outcome was unknown.",
    ),
    (
        "redstart_delivered_total",
        "Deliveries passed to the workers, repeated ones included.",
    ),
    (
        "redstart_settled_total",
        "Deliveries that ended, by outcome.",
    ),
    (
        "redstart_commits_total",
        "Commits of effects that were written.",
    ),
    (
        "redstart_commits_lost_total",
        "Commits of effects that were dropped, because another consumer had the message.",
    ),
    (
        "redstart_commit_conflicts_total",
        "Commits of effects that were refused, because a value had changed.",
    ),
    (
        "redstart_rehearsed_total",
        "Messages that shadow groups rehearsed, by result.",
    ),
    (
        "redstart_dead_letters_total",
        "New dead letters, by reason.",
    ),
    (
        "redstart_dead_letters_redriven_total",
        "Dead letters redriven.",
    ),
    (
        "redstart_dead_letters_purged_total",
        "Dead letters removed.",
    ),
    (
        "redstart_dead_letters_trimmed_total",
        "Dead letters that retention removed.",
    ),
    (
        "redstart_dead_letters_edited_total",
        "Dead letters redriven as edited messages; also counted as redriven.",
    ),
    (
        "redstart_dead_letters_imported_total",
        "Dead letters imported.",
    ),
    ("redstart_sweeps_total", "Sweeps that ended."),
    (
        "redstart_retries_run_now_total",
        "Retries that an operator ran before their time.",
    ),
    (
        "redstart_retries_cancelled_total",
        "Retries that an operator removed.",
    ),
    (
        "redstart_groups_removed_total",
        "Groups that an operator removed.",
    ),
    (
        "redstart_handler_timeouts_total",
        "Attempts that ended at their time limit.",
    ),
    (
        "redstart_reclaimed_total",
        "Deliveries taken over after a lease had expired.",
    ),
    (
        "redstart_leases_lost_total",
        "Deliveries whose lease passed to another consumer.",
    ),
    (
        "redstart_lost_entries_total",
        "Unsettled entries that something other than Redstart removed.",
    ),
    (
        "redstart_groups_recreated_total",
        "Missing groups that were created again.",
    ),
    ("redstart_reconnects_total", "Reconnects, by connection."),
];

const GAUGES: &[(&str, Unit, &str)] = &[
    (
        "redstart_in_flight",
        Unit::Count,
        "Deliveries that this consumer holds.",
    ),
    (
        "redstart_held_back",
        Unit::Count,
        "Deliveries that have failed and wait in this process for their next attempt.",
    ),
    (
        "redstart_oldest_in_flight_seconds",
        Unit::Seconds,
        "Time since the oldest of them was handed out; 0 without one.",
    ),
    (
        "redstart_slots",
        Unit::Count,
        "Handlers that may run at once in this process.",
    ),
    (
        "redstart_busy_slots",
        Unit::Count,
        "Handlers that run; a batch counts once.",
    ),
];

const HISTOGRAMS: &[(&str, Unit, &str)] = &[
    (
        "redstart_queue_seconds",
        Unit::Seconds,
        "Time from the publish of a message to the first call of its handler.",
    ),
    (
        "redstart_handler_duration_seconds",
        Unit::Seconds,
        "Duration of a handler's call, also for a batch.",
    ),
    (
        "redstart_settle_batch_size",
        Unit::Count,
        "Deliveries that one call settled.",
    ),
];

/// Describes all metrics to the installed recorder.
pub(super) fn describe() {
    for (name, text) in COUNTERS {
        describe_counter!(*name, Unit::Count, *text);
    }
    for (name, unit, text) in GAUGES {
        describe_gauge!(*name, *unit, *text);
    }
    for (name, unit, text) in HISTOGRAMS {
        describe_histogram!(*name, *unit, *text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_histogram_has_buckets_that_rise() {
        let named: Vec<&str> = HISTOGRAMS.iter().map(|(name, ..)| *name).collect();
        let with_buckets: Vec<&str> = BUCKETS.iter().map(|(name, _)| *name).collect();
        assert_eq!(named, with_buckets);
        for (name, bounds) in BUCKETS {
            assert!(bounds.is_sorted_by(|one, next| one < next), "{name}");
        }
    }
}
