//! Adapters that are broken on purpose: the suite must see it.

// The checks of histories use the rest.
#[allow(dead_code)]
#[path = "support/broken.rs"]
mod broken;
mod support;

use std::sync::Arc;
use std::time::Duration;

use redstart::store::Store;
use redstart::testing::conformance::{self, Subject};
use redstart::{Container, memory::MemoryStore};

use broken::{Broken, Flaw};
use support::group;

#[derive(Clone)]
struct Suspect {
    broken: Arc<dyn Store>,
    patience: Duration,
}

impl Suspect {
    fn new(flaw: Flaw, patience: Duration) -> Self {
        Self {
            broken: Broken::store(MemoryStore::new().store(None), flaw),
            patience,
        }
    }
}

impl Subject for Suspect {
    async fn container(&self, service: &str) -> Container {
        Container::builder()
            .with_store(Arc::clone(&self.broken))
            .with_service(group(service))
            .connect()
            .await
            .unwrap()
    }

    fn patience(&self) -> Duration {
        self.patience
    }
}

/// Runs checks against an adapter with a flaw, each of which must fail, and against a sound one,
/// where each must pass.
macro_rules! catches {
    ($($name:ident: $flaw:ident by $($concern:ident::$check:ident),+;)*) => {
        $(
            #[tokio::test]
            async fn $name() {
                $({
                    let sound = Suspect::new(Flaw::Sound, support::PATIENCE);
                    conformance::$concern::$check(&sound).await;
                    let suspect = Suspect::new(Flaw::$flaw, Duration::from_millis(700));
                    let tasks = tokio::task::LocalSet::new();
                    let check = tasks.spawn_local(async move {
                        let check = conformance::$concern::$check(&suspect);
                        // A check that never ends has not passed either.
                        tokio::time::timeout(Duration::from_secs(20), check)
                            .await
                            .expect("the check hangs");
                    });
                    let failure = tasks.run_until(check).await.expect_err(concat!(
                        stringify!($check), " does not see ", stringify!($flaw)
                    ));
                    assert!(failure.is_panic());
                })+
            }
        )*
    };
}

catches! {
    settling_before_the_handler_has_run: SettlesOnFetch by
        settle::nothing_is_settled_before_its_handler_returns,
        settle::an_unsettled_message_is_redelivered,
        leases::an_expired_lease_is_taken_over_and_counted,
        shutdown::an_unstarted_message_is_released_uncounted;
    bringing_a_retry_to_all_groups: RetriesToAll by
        retries::a_retry_comes_back_to_its_group_alone,
        retries::a_due_retry_returns_through_the_redelivery_stream;
    leases_that_never_end: LeasesNeverEnd by
        leases::an_expired_lease_is_taken_over_and_counted,
        settle::an_unsettled_message_is_redelivered;
    trimming_without_a_floor: TrimsWithoutFloor by
        retention::nothing_unsettled_is_removed,
        retention::entries_wait_for_the_first_group;
    counting_what_was_given_back: CountsReleases by
        leases::a_released_message_is_claimable_at_once_and_uncounted,
        shutdown::an_unstarted_message_is_released_uncounted;
    settling_for_whoever_asks: AsksNoOwner by
        settle::a_stale_settlement_is_rejected;
    forgetting_what_was_appended: ForgetsIds by
        deduplication::a_duplicate_adds_nothing,
        deduplication::the_bus_reports_a_duplicate;
    looking_before_appending: LooksBeforeItAppends by
        deduplication::of_concurrent_duplicates_one_is_added,
        deduplication::after_its_window_a_message_is_not_a_duplicate;
    remembering_only_what_is_held: RemembersWhatItHolds by
        deduplication::a_window_outlives_its_entry;
    removing_groups_that_are_needed: RemovesWithoutProof by
        groups::a_group_in_use_is_not_removed;
    bringing_back_what_was_cancelled: CancelsNothing by
        retries::scheduled_retries_can_be_cancelled;
}
