//! The conformance suite: what every adapter must do, as named checks.
//!
//! The checks use the ports alone. The author of an adapter implements [`Subject`], which connects
//! containers to the adapter; [`conformance!`](crate::conformance) turns each check into a test.
//! Each check quotes the sentences of the ports' documentation that it tests.
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

pub mod attempts;
pub mod capabilities;
pub mod cas;
#[doc(hidden)]
pub mod claims;
pub mod commit_unknown;
pub mod dead_letter_counts;
pub mod dead_letters;
pub mod deduplication;
pub mod durability;
pub mod effects;
pub mod foreign;
pub mod groups;
pub mod handler_effects;
pub mod health;
pub mod hold_back;
pub mod kv;
pub mod leases;
pub mod listing;
pub mod once;
pub mod once_completion;
pub mod operators;
pub mod ordering;
pub mod owned;
pub mod partitions;
pub mod payloads;
pub mod publish;
#[cfg(test)]
mod quotations;
pub mod redrive;
pub mod retention;
pub mod retries;
pub mod schedules;
pub mod settle;
pub mod shutdown;
mod steady;
pub mod subscribe;
mod support;

pub use self::owned::effects as owned_effects;

/// An adapter under test: one empty store, and containers on it.
pub trait Subject: Send + Sync {
    /// A container of a service. All containers of one subject share its store, as the
    /// processes of a system share a server.
    fn container(&self, service: &str) -> impl Future<Output = Container> + Send;

    /// How long a check waits for a condition; by default 60 seconds. Not a measure of speed: raise
    /// it for a slow store, lower it to see a broken store fail sooner.
    fn patience(&self) -> Duration {
        Duration::from_secs(60)
    }
}

/// Turns every check of the conformance suite into a test; with names of modules, such as
/// `conformance!(memory: effects, kv)`, the checks of these.
///
/// Takes the name of an async function without arguments that is in scope and returns a fresh
/// [`Subject`](crate::testing::conformance::Subject), with an empty store, for each test. The
/// tests need `tokio` with its features `macros`, `rt` and `time` among the dev-dependencies.
#[macro_export]
macro_rules! conformance {
    ($factory:ident) => {
        $crate::conformance!($factory:
            publish, durability, deduplication, subscribe, foreign, groups, settle, leases,
            attempts, retries, schedules, hold_back, dead_letter_counts, dead_letters,
            redrive, operators, retention, ordering, partitions, owned, owned_effects, shutdown, payloads, kv, listing,
            once,
            once_completion, cas, effects, handler_effects, commit_unknown, capabilities,
            health
        );
    };
    ($factory:ident: $($concern:ident),* $(,)?) => {
        $($crate::conformance_concern!($concern, $factory);)*
    };
}

/// The checks of one concern of [`conformance!`]. Use [`conformance!`] instead.
#[doc(hidden)]
#[macro_export]
macro_rules! conformance_concern {
    (publish, $factory:ident) => {
        $crate::conformance_checks!($factory, publish:
            a_working_store_answers_a_ping,
            entries_keep_their_order,
            entries_keep_every_byte,
            a_log_can_be_read_in_pages,
            a_topics_settings_are_fixed_when_it_is_created,
            a_topics_settings_can_change,
            a_topic_without_groups_is_removed,
            topics_are_listed_by_name,
            a_message_arrives_as_it_was_published,
            concurrent_publishers_lose_nothing,
            a_closed_publisher_returns_an_error,
            a_group_can_start_at_the_end,
        );
    };
    (durability, $factory:ident) => {
        $crate::conformance_checks!($factory, durability if append_once:
            a_level_is_given_or_refused_before_anything_is_appended,
            a_message_for_later_has_a_level,
            durable_messages_keep_their_order_and_repeats_are_known,
        );
    };
    (deduplication, $factory:ident) => {
        $crate::conformance_checks!($factory, deduplication if append_once:
            a_duplicate_adds_nothing,
            of_concurrent_duplicates_one_is_added,
            a_window_outlives_its_entry,
            after_its_window_a_message_is_not_a_duplicate,
            deduplication_windows_of_different_lengths_coexist,
            topics_know_their_own_messages,
            the_bus_reports_a_duplicate,
        );
    };
    (subscribe, $factory:ident) => {
        $crate::conformance_checks!($factory, subscribe:
            a_new_subscriber_gets_old_messages,
            of_concurrent_subscribes_one_wins,
            continues_after_close,
            a_second_container_continues,
            continues_after_errors,
            a_poison_entry_does_not_stop_the_reader,
            concurrency_and_prefetch_are_bounds,
            slow_handlers_leave_waiting_messages_to_others,
            creating_a_group_again_changes_nothing,
            a_fetch_keeps_to_its_limit,
            a_fetch_without_entries_ends_empty,
            a_blocked_fetch_is_woken,
            many_blocked_readers_miss_nothing,
            a_blocked_fetch_can_be_interrupted,
            without_its_group_a_reader_returns_an_error,
            a_failing_handler_does_not_disturb_other_handlers,
        );
    };
    (foreign, $factory:ident) => {
        $crate::conformance_checks!($factory, foreign:
            a_foreign_entry_is_retried_with_its_id,
            a_dead_foreign_entry_can_be_redriven_without_its_reader,
            a_bad_reader_costs_its_own_entry_only,
            every_group_sees_one_id_of_a_foreign_entry,
        );
    };
    (groups, $factory:ident) => {
        $crate::conformance_checks!($factory, groups:
            consumers_share_and_every_group_sees_everything,
            no_entry_is_given_to_two_members,
            a_status_accounts_for_every_message,
            groups_are_listed_by_name,
            progress_tells_how_far_a_group_has_come,
            only_consumers_without_pending_entries_are_pruned,
            a_member_lists_its_pending_entries,
            consumers_of_a_group_are_listed_by_name,
            a_group_is_removed_with_all_of_its_data,
            a_group_in_use_is_not_removed,
            a_reset_group_goes_on_elsewhere,
            a_group_with_live_consumers_is_not_reset,
        );
    };
    (settle, $factory:ident) => {
        $crate::conformance_checks!($factory, settle:
            an_acknowledged_message_is_not_redelivered,
            a_late_acknowledgement_counts,
            a_stale_settlement_is_rejected,
            a_second_settlement_writes_nothing,
            an_entry_that_was_not_fetched_cannot_be_settled,
            an_only_copy_is_written_where_nobody_holds_it,
            large_batches_are_settled,
            a_large_stale_settlement_is_rejected,
            nothing_is_settled_before_its_handler_returns,
            an_unsettled_message_is_redelivered,
            groups_settle_independently,
        );
    };
    (leases, $factory:ident) => {
        $crate::conformance_checks!($factory, leases:
            an_expired_lease_is_taken_over_and_counted,
            a_running_lease_is_not_taken_over,
            an_extended_lease_runs_in_full,
            a_released_message_is_claimable_at_once_and_uncounted,
            reclaiming_reaches_the_end_and_starts_over,
            the_redelivery_stream_has_leases,
            a_crash_counts_as_an_attempt,
            a_message_that_crashes_its_consumers_is_dead_lettered,
            a_prefetched_message_keeps_its_lease,
            a_lost_lease_cancels_the_delivery,
            the_lease_belongs_to_the_group,
            a_short_lease_respects_a_long_one,
            only_one_of_two_takes_over,
            a_long_handler_keeps_its_lease,
        );
    };
    (attempts, $factory:ident) => {
        $crate::conformance_checks!($factory, attempts:
            claims_count_nothing_and_marks_do,
            a_message_that_never_began_has_its_attempts_left,
            a_suspect_runs_alone,
            a_panic_whose_payload_panics_costs_no_worker,
            a_payload_that_panics_costs_its_own_message,
            one_bad_message_does_not_take_its_batch_along,
            a_cancelled_handler_acknowledges_only_by_saying_so,
            a_snooze_of_months_is_kept,
            back_pressure_uses_up_no_attempt,
            a_message_published_on_begins_at_its_first_attempt,
            a_lowered_maximum_holds_at_once,
            an_undecodable_payload_waits_for_another_version,
        );
    };
    (retries, $factory:ident) => {
        $crate::conformance_checks!($factory, retries:
            a_failed_message_is_redelivered_until_it_is_exhausted,
            a_panic_is_a_failure,
            a_snooze_does_not_count_and_a_rejection_is_final,
            a_retry_comes_back_to_its_group_alone,
            a_due_retry_returns_through_the_redelivery_stream,
            a_retry_that_is_not_due_stays,
            the_earliest_is_promoted_first,
            a_retry_waits_in_the_store,
            a_retry_without_a_delay_does_not_wait,
            scheduled_retries_are_listed_by_due_time,
            a_page_of_scheduled_retries_ends_somewhere,
            scheduled_retries_can_run_now,
            scheduled_retries_can_be_cancelled,
        );
    };
    (schedules, $factory:ident) => {
        $crate::conformance_checks!($factory, schedules if later:
            an_id_names_one_message,
            messages_for_later_are_bounded,
            due_messages_go_to_the_log_in_their_order,
            a_group_promotes_the_messages_of_its_topic,
            messages_for_later_are_listed_in_pages,
            a_cancelled_message_never_comes,
            a_rescheduled_message_comes_at_its_new_time,
            a_message_that_is_due_soon_rings,
            a_scheduled_message_arrives_when_it_is_due,
            a_container_brings_what_it_scheduled,
            the_callers_id_replaces_or_keeps,
            bad_schedules_are_refused,
            effects_schedule_and_cancel,
            a_handler_schedules_with_its_acknowledgement,
        );
    };
    (hold_back, $factory:ident) => {
        $crate::conformance_checks!($factory, hold_back:
            noted_failures_are_counted_and_told_from_crashes,
            a_message_that_failed_waits_with_its_consumer,
            a_message_waits_for_its_whole_delay,
            longer_delays_wait_in_the_store,
            a_subscription_holds_back_a_bounded_number,
            a_shutdown_returns_waiting_messages,
            a_dead_consumers_failures_are_counted,
            a_lost_message_is_not_tried_again_here,
        );
    };
    (dead_letter_counts, $factory:ident) => {
        $crate::conformance_checks!($factory, dead_letter_counts:
            causes_are_counted,
            types_tenants_and_hours_are_counted,
            counts_follow_every_way_of_moving,
            counts_are_the_same_where_summaries_are_known,
            counts_are_right_while_dead_letters_move,
            each_of_many_causes_is_counted,
            of_very_many_causes_the_most_frequent_are_named,
        );
    };
    (dead_letters, $factory:ident) => {
        $crate::conformance_checks!($factory, dead_letters:
            a_record_is_stored_unchanged,
            summaries_are_found_in_pages,
            summaries_are_found_newest_first,
            records_are_found_by_id,
            records_are_weighed_by_id,
            a_purge_is_final,
            each_dead_letter_is_moved_once,
            an_exported_dead_letter_is_imported_once,
            notes_are_kept_by_name,
            the_journal_lists_the_operations,
            a_group_that_does_not_exist_gets_no_journal_and_no_notes,
            a_dead_letter_carries_its_history,
        );
    };
    (redrive, $factory:ident) => {
        $crate::conformance_checks!($factory, redrive:
            a_redriven_message_starts_over_in_its_group,
            a_sweep_moves_the_matching_dead_letters,
            a_plan_moves_what_its_preview_showed,
            causes_and_operations_have_notes,
            a_sweep_of_a_time_range_reads_only_that_range,
            a_sweep_ends_when_every_message_dies_again,
            a_sweep_stops_when_too_many_die_again,
            two_sweeps_share_the_work,
            an_interrupted_sweep_can_be_resumed,
            a_resumed_sweep_skips_what_it_moved_before,
            undecodable_dead_letters_move_only_by_id,
            dead_letters_can_go_to_another_topic,
            undecodable_dead_letters_stay_where_others_are_published,
            missing_ids_are_reported,
        );
    };
    (operators, $factory:ident) => {
        $crate::conformance_checks!($factory, operators:
            a_list_shows_the_matching_dead_letters,
            editing_is_off_by_default,
            an_export_can_be_imported_once,
        );
    };
    (retention, $factory:ident) => {
        $crate::conformance_checks!($factory, retention:
            entries_that_every_group_settled_are_removed,
            nothing_unsettled_is_removed,
            entries_wait_for_the_first_group,
            the_backlog_is_what_the_topic_keeps,
            the_consumers_of_a_topic_share_the_trimming,
            pending_and_snoozed_messages_fill_the_backlog,
            retention_by_length_keeps_the_newest,
            retention_by_age_keeps_young_entries,
            the_redelivery_stream_keeps_unsettled_entries,
            a_full_backlog_refuses_until_groups_catch_up,
            overdue_dead_letters_are_removed,
            a_redriven_dead_letter_is_not_removed_as_overdue,
        );
    };
    (ordering, $factory:ident) => {
        $crate::conformance_checks!($factory, ordering:
            a_single_handler_sees_the_order_of_publishing,
            the_order_outlives_a_subscription,
            fetches_follow_the_log,
            the_redelivery_stream_keeps_its_order,
        );
    };
    (partitions, $factory:ident) => {
        $crate::conformance_checks!($factory, partitions:
            the_number_of_partitions_is_fixed,
            messages_of_one_key_stay_together,
            a_key_keeps_its_order,
            a_topic_is_read_as_one_log,
            deliveries_return_to_their_partition,
            trimming_reaches_every_partition,
            dead_letters_stay_in_their_partition,
            a_place_lies_between_partitions,
            messages_for_later_follow_their_key,
            an_id_names_a_message_in_each_partition,
            messages_for_later_are_bounded_by_partition,
            limits_hold_for_all_partitions_together,
            a_group_is_removed_from_all_partitions,
            effects_go_to_the_partition_of_their_key,
        );
    };
    (owned, $factory:ident) => {
        $crate::conformance_checks!($factory, owned if ownership:
            a_group_is_owned_or_shared_for_ever,
            a_partition_has_one_owner_and_growing_tokens,
            tokens_grow_over_a_removed_group,
            a_member_that_is_about_to_leave_keeps_what_it_has_not_given_up,
            a_member_that_leaves_owns_nothing,
            only_the_last_owner_moves_the_cursor,
            endings_and_notes_belong_to_the_owner,
            entries_are_read_in_their_order_and_kept_until_settled,
            a_long_lag_is_exact,
            a_reset_moves_the_cursor_of_an_owned_group,
            a_group_with_members_stays,
            progress_is_read_beside_the_owner,
            the_status_counts_the_members_of_an_owned_group,
            a_change_of_owners_rings,
            the_messages_of_a_key_are_handled_in_their_order,
            a_failed_message_holds_back_its_key,
            a_failed_message_lets_its_key_pass,
            partitions_move_with_joins_and_departures,
            a_partition_is_given_up_when_its_handlers_have_returned,
            a_handover_waits_for_handlers_up_to_its_time,
            a_shutdown_gives_each_partition_up_when_it_is_idle,
            a_former_owner_settles_nothing,
        );
    };
    (owned_effects, $factory:ident) => {
        $crate::conformance_checks!($factory, owned_effects if owned_effects:
            only_the_owner_commits_effects,
            effects_end_a_delivery_once,
            handlers_of_an_owned_group_return_effects,
            a_former_owner_commits_no_effects,
        );
    };
    (shutdown, $factory:ident) => {
        $crate::conformance_checks!($factory, shutdown:
            running_handlers_finish_and_are_settled,
            an_unstarted_message_is_released_uncounted,
            an_idle_subscription_ends_at_once,
            nothing_is_lost_while_subscriptions_come_and_go,
            a_closed_subscriber_returns_an_error,
        );
    };
    (payloads, $factory:ident) => {
        $crate::conformance_checks!($factory, payloads:
            accepted_payloads_survive_retry_and_redrive_in_messagepack,
            accepted_payloads_survive_retry_and_redrive_in_json,
            unreadable_payloads_are_refused,
        );
    };
    (kv, $factory:ident) => {
        $crate::conformance_checks!($factory, kv if values:
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
    };
    (listing, $factory:ident) => {
        $crate::conformance_checks!($factory, listing if values:
            keys_are_listed_by_their_prefix,
            a_listing_has_every_key_that_stays,
            a_cursor_of_other_origin_is_refused,
            a_value_shows_its_beginning_its_length_and_its_time,
        );
    };
    (once, $factory:ident) => {
        $crate::conformance_checks!($factory, once if values:
            every_state_of_once,
            true_counts_as_done_and_another_value_is_refused,
            only_the_owner_settles_a_claim,
            a_claim_ends_with_its_lease,
            completion_is_fenced,
            concurrent_callers_run_once,
        );
    };
    (once_completion, $factory:ident) => {
        $crate::conformance_checks!($factory, once_completion if values:
            bad_times_are_refused_before_the_function_runs,
            an_unreadable_result_is_left_out,
            a_failed_completion_is_repeated,
            a_completion_ends_with_its_claim,
            a_run_can_set_its_lease,
            a_result_of_another_type_says_so,
            a_begun_claim_outlives_its_lease,
            a_run_that_may_not_repeat_is_refused_after_a_crash,
            a_function_whose_claim_expired_before_it_did_not_run,
        );
    };
    (cas, $factory:ident) => {
        $crate::conformance_checks!($factory, cas if values:
            a_value_is_replaced_only_if_it_is_as_expected,
            a_swap_sets_the_time_to_live,
            equal_values_are_equal,
            forms_of_other_programs_are_equal,
            a_value_is_deleted_only_if_it_is_as_expected,
            another_number_is_never_equal,
            concurrent_updates_lose_nothing,
        );
    };
    (effects, $factory:ident) => {
        $crate::conformance_checks!($factory, effects if effects:
            effects_are_written_with_their_acknowledgement,
            a_refused_effect_leaves_nothing,
            commits_of_a_call_follow_each_other,
            only_the_holder_commits,
            a_checkpoint_keeps_the_delivery,
            effects_with_a_mark_happen_once,
            effects_recognise_a_repeated_message,
            effects_add_exactly,
            bad_effects_are_refused_before_they_are_sent,
            a_redelivery_has_effects,
            effects_need_no_delivery,
            a_rehearsal_writes_nothing,
        );
    };
    (handler_effects, $factory:ident) => {
        $crate::conformance_checks!($factory, handler_effects if effects:
            every_kind_of_handler_returns_effects,
            a_failed_attempt_writes_no_effects,
            a_conflict_runs_the_handler_again_with_the_same_attempt,
            a_lasting_conflict_is_a_failed_attempt,
            concurrent_replacements_lose_nothing,
            one_handler_sees_what_the_last_message_wrote,
            a_full_topic_slows_down_the_one_before,
            a_checkpoint_is_written_before_the_end,
            a_lost_lease_drops_the_effects,
            a_shutdown_writes_returned_effects,
            a_shadow_group_writes_nothing,
        );
    };
    (commit_unknown, $factory:ident) => {
        $crate::conformance_checks!($factory, commit_unknown if effects:
            a_repeated_call_gets_the_same_answer,
            an_earlier_call_writes_nothing,
            each_member_has_its_own_numbers,
            calls_without_a_delivery_have_sessions,
            a_removed_consumer_leaves_no_numbers,
        );
    };
    (capabilities, $factory:ident) => {
        $crate::conformance_checks!($factory, capabilities:
            a_bell_rings_for_entries_and_retries,
            a_claim_counts_what_the_group_holds,
            a_dropped_operation_does_nothing,
            a_reader_reads_all_of_its_sources,
        );
    };
    (health, $factory:ident) => {
        $crate::conformance_checks!($factory, health:
            a_working_container_is_healthy,
            failure_times_use_the_stores_clock,
            a_server_reports_its_state,
            a_partition_lies_on_one_of_the_servers,
            the_migrations_of_a_working_store_are_applied,
            the_placement_stays_as_it_was_set_up,
        );
    };
}

/// One concern of [`conformance!`]. Use [`conformance!`] instead.
#[doc(hidden)]
#[macro_export]
macro_rules! conformance_checks {
    ($factory:ident, $concern:ident if $capability:ident: $($check:ident),* $(,)?) => {
        mod $concern {
            $(
                #[::tokio::test]
                async fn $check() {
                    let subject = super::$factory().await;
                    if $crate::testing::conformance::claims::$capability(&subject).await {
                        $crate::testing::conformance::$concern::$check(&subject).await;
                    }
                }
            )*
        }
    };
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
