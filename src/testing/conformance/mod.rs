//! The conformance suite: what every adapter must do, as named checks.
//!
//! Written against the ports alone. An adapter's author says in a [`Subject`] how containers
//! on it are made, and [`conformance!`](crate::conformance) makes a test of each check. Each
//! sentence of a port's documentation that a check stands for is quoted by it.
//!
//! # Example
//!
//! ```
//! use redstart::testing::conformance::Subject;
//! use redstart::{Container, Group, memory::MemoryStore};
//!
//! struct Memory(MemoryStore);
//!
//! impl Subject for Memory {
//!     async fn container(&self, service: &str) -> Container {
//!         Container::builder()
//!             .with_memory(self.0.clone())
//!             .with_service(Group::new(service).unwrap())
//!             .connect()
//!             .await
//!             .unwrap()
//!     }
//! }
//!
//! async fn memory() -> Memory {
//!     Memory(MemoryStore::new())
//! }
//!
//! redstart::conformance!(memory);
//! # fn main() {}
//! ```

use std::future::Future;
use std::time::Duration;

use crate::container::Container;

pub mod cas;
pub mod dead_letter_counts;
pub mod dead_letters;
pub mod deduplication;
pub mod groups;
pub mod health;
pub mod kv;
pub mod leases;
pub mod once;
pub mod operators;
pub mod ordering;
pub mod payloads;
pub mod publish;
pub mod redrive;
pub mod retention;
pub mod retries;
pub mod settle;
pub mod shutdown;
pub mod subscribe;
mod support;

/// An adapter under test: one empty store, and containers on it.
pub trait Subject: Send + Sync {
    /// A container of a service. All containers of one subject share its store, as the
    /// processes of a system share a server.
    fn container(&self, service: &str) -> impl Future<Output = Container> + Send;

    /// How long to wait for what must happen; by default 60 seconds. Never a measure of
    /// anything: raise it for a slow store, lower it to see a broken one fail soon.
    fn patience(&self) -> Duration {
        Duration::from_secs(60)
    }
}

/// Makes a test of every check of the conformance suite.
///
/// Takes the name of an async function without arguments that is in scope and returns a fresh
/// [`Subject`](crate::testing::conformance::Subject), with an empty store, for each test. The
/// tests need `tokio` with its features `macros`, `rt` and `time` among the dev-dependencies.
#[macro_export]
macro_rules! conformance {
    ($factory:ident) => {
        $crate::conformance_checks!($factory, publish:
            a_working_store_answers_a_ping,
            entries_keep_their_order,
            entries_keep_every_byte,
            a_log_can_be_looked_through_in_pages,
            a_topics_settings_are_fixed_when_it_is_created,
            topics_are_listed_by_name,
            a_message_arrives_as_it_was_published,
            concurrent_publishers_lose_nothing,
            a_closed_publisher_says_so,
            a_group_can_begin_with_what_comes_next,
        );
        $crate::conformance_checks!($factory, deduplication:
            a_repeat_adds_nothing,
            of_concurrent_repeats_one_adds,
            a_window_outlives_its_entry,
            after_its_window_a_message_is_new,
            windows_of_any_length_stand_beside_each_other,
            topics_know_their_own_messages,
            the_bus_tells_a_repeat,
        );
        $crate::conformance_checks!($factory, subscribe:
            a_new_subscriber_gets_old_messages,
            of_concurrent_subscribes_one_wins,
            continues_after_close,
            a_second_container_goes_on,
            continues_after_errors,
            a_poison_entry_does_not_stop_the_reader,
            concurrency_and_prefetch_are_bounds,
            creating_a_group_again_changes_nothing,
            a_fetch_takes_no_more_than_it_was_asked_for,
            a_fetch_without_entries_ends_empty,
            a_fetch_that_waits_is_woken,
            many_readers_that_wait_miss_nothing,
            a_fetch_that_waits_can_be_interrupted,
            without_its_group_a_reader_says_so,
            a_bad_handler_disturbs_no_other,
        );
        $crate::conformance_checks!($factory, groups:
            consumers_share_and_every_group_sees_everything,
            no_entry_is_given_to_two_members,
            a_status_tells_where_every_message_is,
            groups_are_listed_by_name,
            only_consumers_that_hold_nothing_are_forgotten,
            a_member_can_ask_what_it_holds,
            a_groups_consumers_are_listed_by_name,
            a_group_is_removed_with_all_that_is_its_own,
            a_group_that_is_needed_is_not_removed,
        );
        $crate::conformance_checks!($factory, settle:
            what_is_acknowledged_does_not_come_again,
            a_late_acknowledgement_counts,
            a_stale_settlement_is_rejected,
            settling_again_writes_nothing_again,
            what_was_never_fetched_cannot_be_settled,
            large_batches_are_settled,
            nothing_is_settled_before_its_handler_returns,
            what_nobody_settles_comes_again,
            groups_settle_for_themselves,
        );
        $crate::conformance_checks!($factory, leases:
            an_expired_lease_is_taken_over_and_counted,
            a_living_lease_is_not_taken_over,
            an_extended_lease_begins_anew,
            what_is_given_back_is_claimable_at_once_and_uncounted,
            reclaiming_comes_to_the_end_and_begins_again,
            the_redo_lane_has_leases_too,
            a_crash_counts_as_an_attempt,
            a_message_that_kills_is_buried,
            what_waits_locally_keeps_its_lease,
            a_lost_lease_cancels_the_delivery,
            only_one_of_two_takes_over,
            a_long_handler_keeps_its_lease,
        );
        $crate::conformance_checks!($factory, retries:
            a_failure_is_sent_again_until_it_is_exhausted,
            a_panic_is_a_failure,
            a_snooze_does_not_count_and_a_rejection_is_final,
            a_retry_comes_back_to_its_group_alone,
            what_is_due_comes_back_through_the_redo_lane,
            what_is_not_due_stays,
            the_earliest_is_promoted_first,
            a_retry_waits_in_the_store,
            a_retry_without_a_delay_does_not_wait,
            what_waits_is_listed_in_the_order_of_its_time,
            a_page_of_what_waits_ends_somewhere,
            what_waits_can_be_brought_back_now,
            what_waits_can_be_cancelled,
        );
        $crate::conformance_checks!($factory, dead_letter_counts:
            causes_are_counted,
            types_tenants_and_hours_are_counted,
            counts_follow_what_is_taken_from_anywhere,
            counts_are_the_same_where_heads_are_known,
            counts_are_right_beside_takers,
            each_of_many_causes_is_counted,
        );
        $crate::conformance_checks!($factory, dead_letters:
            a_record_is_kept_as_it_was_given,
            heads_are_found_in_pages,
            records_are_found_by_id,
            taking_out_is_for_good,
            each_is_taken_once,
            what_was_exported_is_put_in_once,
            the_journal_tells_what_was_done,
            a_dead_letter_tells_its_story,
        );
        $crate::conformance_checks!($factory, redrive:
            a_redriven_message_begins_anew_in_its_group,
            a_sweep_takes_what_matches,
            a_sweep_of_a_time_looks_at_nothing_else,
            a_sweep_ends_although_everything_dies_again,
            a_sweep_stops_when_too_many_die_again,
            two_sweeps_share_the_work,
            a_sweep_that_was_cut_off_can_be_resumed,
            a_resumed_sweep_knows_what_it_took_before,
            what_cannot_be_decoded_moves_only_when_it_is_named,
            dead_letters_can_go_to_another_topic,
            ids_that_are_not_there_are_told,
        );
        $crate::conformance_checks!($factory, operators:
            a_list_shows_what_matches,
            editing_is_off_by_default,
            an_export_can_be_imported_once,
        );
        $crate::conformance_checks!($factory, retention:
            what_every_group_has_settled_is_removed,
            nothing_unsettled_is_removed,
            entries_wait_for_the_first_group,
            the_backlog_is_the_slowest_groups,
            retention_by_length_keeps_the_newest,
            retention_by_age_keeps_the_young,
            the_redo_lane_keeps_what_is_unsettled,
            a_full_backlog_refuses_until_groups_catch_up,
            overdue_dead_letters_are_removed,
            what_is_redriven_is_not_removed_as_overdue,
        );
        $crate::conformance_checks!($factory, ordering:
            a_single_handler_sees_the_order_of_publishing,
            the_order_outlives_a_subscription,
            fetches_follow_the_log,
            the_redo_lane_keeps_its_order,
        );
        $crate::conformance_checks!($factory, shutdown:
            running_handlers_finish_and_are_settled,
            what_was_not_begun_is_given_back_uncounted,
            an_idle_subscription_ends_at_once,
            nothing_is_lost_while_subscriptions_come_and_go,
            a_closed_subscriber_says_so,
        );
        $crate::conformance_checks!($factory, payloads:
            accepted_payloads_survive_retry_and_redrive_in_messagepack,
            accepted_payloads_survive_retry_and_redrive_in_json,
            unreadable_payloads_are_refused,
        );
        $crate::conformance_checks!($factory, kv:
            values_are_stored_read_and_removed,
            values_keep_every_byte_and_the_last_one_wins,
            values_expire,
            inserting_never_replaces,
            integers_are_added_and_other_values_are_refused,
            a_128_bit_integer_is_an_integer,
            concurrent_additions_lose_nothing,
            the_rule_for_keys_holds_everywhere,
            containers_share_values,
        );
        $crate::conformance_checks!($factory, once:
            every_state_of_once,
            any_older_value_counts_as_done,
            a_claim_is_its_owners,
            a_claim_ends_with_its_lease,
            completion_is_fenced,
            concurrent_callers_run_once,
        );
        $crate::conformance_checks!($factory, cas:
            a_value_is_replaced_only_where_it_is_as_expected,
            a_swap_sets_the_time_to_live,
            equal_values_are_equal,
            forms_of_other_programs_are_equal,
            another_number_is_never_equal,
            concurrent_updates_lose_nothing,
        );
        $crate::conformance_checks!($factory, health:
            a_working_container_is_well,
            failure_times_go_by_the_backends_clock,
            a_server_tells_of_itself,
        );
    };
}

/// One concern of [`conformance!`]. Not for use by itself.
#[doc(hidden)]
#[macro_export]
macro_rules! conformance_checks {
    ($factory:ident, $concern:ident: $($check:ident),* $(,)?) => {
        mod $concern {
            $(
                #[::tokio::test]
                async fn $check() {
                    let subject = super::$factory().await;
                    $crate::testing::conformance::$concern::$check(&subject).await;
                }
            )*
        }
    };
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    const LIST: &str = include_str!("mod.rs");
    const CHECKS: [(&str, &str); 19] = [
        ("publish", include_str!("publish.rs")),
        ("deduplication", include_str!("deduplication.rs")),
        ("subscribe", include_str!("subscribe.rs")),
        ("groups", include_str!("groups.rs")),
        ("settle", include_str!("settle.rs")),
        ("leases", include_str!("leases.rs")),
        ("retries", include_str!("retries.rs")),
        ("dead_letter_counts", include_str!("dead_letter_counts.rs")),
        ("dead_letters", include_str!("dead_letters.rs")),
        ("redrive", include_str!("redrive.rs")),
        ("operators", include_str!("operators.rs")),
        ("retention", include_str!("retention.rs")),
        ("ordering", include_str!("ordering.rs")),
        ("shutdown", include_str!("shutdown.rs")),
        ("payloads", include_str!("payloads.rs")),
        ("kv", include_str!("kv.rs")),
        ("once", include_str!("once.rs")),
        ("cas", include_str!("cas.rs")),
        ("health", include_str!("health.rs")),
    ];
    const PORTS: [&str; 9] = [
        include_str!("../../store/mod.rs"),
        include_str!("../../store/topics.rs"),
        include_str!("../../store/log.rs"),
        include_str!("../../store/deliveries.rs"),
        include_str!("../../store/schedule.rs"),
        include_str!("../../store/dead_letters.rs"),
        include_str!("../../store/inspect.rs"),
        include_str!("../../api/kv.rs"),
        include_str!("../../store/commit.rs"),
    ];

    /// The words of a text's documentation, in one line.
    fn documentation(text: &str) -> String {
        let lines = text.lines().map(str::trim_start);
        let words: Vec<&str> = lines
            .filter_map(|line| line.strip_prefix("///"))
            .flat_map(str::split_whitespace)
            .collect();
        words.join(" ")
    }

    /// What the checks quote, each quotation in one line.
    fn quotations() -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        let mut open = false;
        for (_, text) in CHECKS {
            for line in text.lines() {
                let Some(quoted) = line.strip_prefix("/// > ") else {
                    open = false;
                    continue;
                };
                match all.last_mut().filter(|last| open && !last.ends_with('.')) {
                    Some(last) => *last = format!("{last} {quoted}"),
                    None => all.push(quoted.to_owned()),
                }
                open = true;
            }
        }
        all
    }

    #[test]
    fn every_check_is_in_the_list() {
        for (concern, text) in CHECKS {
            let head = "pub async fn ";
            let names = text.lines().filter_map(|line| line.strip_prefix(head));
            let defined: BTreeSet<&str> = names.filter_map(|line| line.split('<').next()).collect();
            let start = LIST.find(&format!("$factory, {concern}:")).unwrap();
            let list = &LIST[start..][..LIST[start..].find(");").unwrap()];
            let listed: BTreeSet<&str> = list
                .lines()
                .skip(1)
                .map(|line| line.trim().trim_end_matches(','))
                .filter(|line| !line.is_empty())
                .collect();
            assert_eq!(defined, listed, "{concern}");
        }
    }

    #[test]
    fn what_is_quoted_is_what_the_ports_say() {
        let ports = PORTS.map(documentation).join(" ");
        for quotation in quotations() {
            assert!(ports.contains(&quotation), "no port says: {quotation}");
        }
    }

    #[test]
    fn what_the_ports_promise_is_quoted() {
        let quoted = quotations().join(" ");
        // What a promise is not: what another module does, or an introduction.
        let others = [
            "adapter's name",
            "What the store offers",
            "Completes when the clock",
            "Where time only passes",
            "Opens a reader",
            "A connection that broke",
            "An error of",
            "Errors are those of",
            "After an unknown one",
            "After any other error",
            "Cancel safety",
            "Not cancel safe",
            "Use [`Interrupt`]",
        ];
        let role = "\n    }\n";
        for (text, first, last) in [
            (PORTS[0], "pub trait Store", "    /// Topics and groups"),
            (PORTS[1], "pub trait Topics", role),
            (PORTS[2], "pub trait Log", role),
            (PORTS[3], "pub trait Deliveries", role),
            (PORTS[3], "pub trait Reader", "\n}"),
            (PORTS[3], "pub trait Interrupt", "\n}"),
            (PORTS[4], "pub trait Schedule", role),
            (PORTS[5], "pub trait DeadLetters", role),
            (PORTS[6], "pub trait Inspect", role),
            (PORTS[7], "pub trait KvStore:", "\n}"),
        ] {
            let start = text.find(first).unwrap();
            let body = &text[start..][..text[start..].find(last).unwrap()];
            for sentence in documentation(body).split_inclusive(". ") {
                let sentence = sentence.trim();
                let known = others.iter().any(|other| sentence.contains(other));
                assert!(
                    known || quoted.contains(sentence),
                    "nothing checks: {sentence}"
                );
            }
        }
    }
}
