//! Topics with several partitions: a selection of the conformance suite, whose topics all have four.

mod support;

use std::sync::Arc;

use redstart::ports::BoxFuture;
use redstart::store::decorate::{Answer, Decorated, Decorator, Next, Op};
use redstart::store::{InspectAnswer, LogAnswer, LogOp, NewEntry, Store, TopicsAnswer, TopicsOp};
use redstart::{Container, Error};

use support::group;

const FOUR: u16 = 4;

/// Creates every topic with four partitions. The checks compare a status with the settings that they asked
/// for, so it says one.
#[derive(Debug)]
struct FourEach;

impl Decorator for FourEach {
    fn call<'a>(&'a self, op: Op<'a>, mut next: Next<'a>) -> BoxFuture<'a, Result<Answer, Error>> {
        Box::pin(async move {
            let op = match op {
                Op::Topics(TopicsOp::EnsureTopic { topic, settings }) => {
                    let settings = settings.with_partitions(FOUR);
                    Op::Topics(TopicsOp::EnsureTopic { topic, settings })
                }
                // A call without keys would lie in one partition.
                Op::Log(LogOp::Append { at, entries }) => {
                    let spread = (0..).zip(entries).map(|(place, entry)| NewEntry {
                        slot: entry.slot.or(Some(place)),
                        ..entry.clone()
                    });
                    let spread: Vec<NewEntry> = spread.collect();
                    let appended = next.store.log().append(at, &spread).await?;
                    return Ok(Answer::Log(LogAnswer::Append(appended)));
                }
                op => op,
            };
            Ok(match next.run(op).await? {
                Answer::Topics(TopicsAnswer::EnsureTopic(held)) => {
                    assert_eq!(held.partitions(), FOUR);
                    Answer::Topics(TopicsAnswer::EnsureTopic(held))
                }
                Answer::Inspect(InspectAnswer::Status(Some(mut status))) => {
                    status.settings = status.settings.with_partitions(1);
                    Answer::Inspect(InspectAnswer::Status(Some(status)))
                }
                answer => answer,
            })
        })
    }
}

async fn on(store: Arc<dyn Store>, service: &str) -> Container {
    Container::builder()
        .with_store(Arc::new(Decorated::new(Arc::new(FourEach), store)))
        .with_service(group(service))
        .connect()
        .await
        .unwrap()
}

/// What does not suppose one order of all messages, and no place of one message beside another.
macro_rules! over_four {
    ($factory:ident) => {
        redstart::conformance_checks!($factory, deduplication if append_once:
            of_concurrent_duplicates_one_is_added,
            the_bus_reports_a_duplicate,
        );
        redstart::conformance_checks!($factory, subscribe:
            a_new_subscriber_gets_old_messages,
            continues_after_close,
            continues_after_errors,
            a_blocked_fetch_is_woken,
            a_blocked_fetch_can_be_interrupted,
            without_its_group_a_reader_returns_an_error,
        );
        redstart::conformance_checks!($factory, groups:
            consumers_share_and_every_group_sees_everything,
            no_entry_is_given_to_two_members,
            a_status_accounts_for_every_message,
            a_member_lists_its_pending_entries,
            a_group_is_removed_with_all_of_its_data,
            a_group_in_use_is_not_removed,
        );
        redstart::conformance_checks!($factory, settle:
            an_acknowledged_message_is_not_redelivered,
            a_stale_settlement_is_rejected,
            large_batches_are_settled,
            an_unsettled_message_is_redelivered,
            groups_settle_independently,
        );
        redstart::conformance_checks!($factory, leases:
            an_expired_lease_is_taken_over_and_counted,
            reclaiming_reaches_the_end_and_starts_over,
            a_crash_counts_as_an_attempt,
            a_lost_lease_cancels_the_delivery,
        );
        redstart::conformance_checks!($factory, retries:
            a_failed_message_is_redelivered_until_it_is_exhausted,
            a_retry_comes_back_to_its_group_alone,
            scheduled_retries_are_listed_by_due_time,
            a_page_of_scheduled_retries_ends_somewhere,
            scheduled_retries_can_run_now,
            scheduled_retries_can_be_cancelled,
        );
        redstart::conformance_checks!($factory, hold_back:
            a_message_that_failed_waits_with_its_consumer,
            a_dead_consumers_failures_are_counted,
        );
        redstart::conformance_checks!($factory, dead_letter_counts:
            causes_are_counted,
            types_tenants_and_hours_are_counted,
            counts_follow_every_way_of_moving,
        );
        redstart::conformance_checks!($factory, dead_letters:
            records_are_found_by_id,
            a_purge_is_final,
            each_dead_letter_is_moved_once,
        );
        redstart::conformance_checks!($factory, redrive:
            a_sweep_moves_the_matching_dead_letters,
            two_sweeps_share_the_work,
            an_interrupted_sweep_can_be_resumed,
            a_resumed_sweep_skips_what_it_moved_before,
            missing_ids_are_reported,
        );
        redstart::conformance_checks!($factory, schedules if later:
            messages_for_later_are_listed_in_pages,
            a_cancelled_message_never_comes,
            a_rescheduled_message_comes_at_its_new_time,
            a_scheduled_message_arrives_when_it_is_due,
        );
        redstart::conformance_checks!($factory, handler_effects if effects:
            every_kind_of_handler_returns_effects,
            a_checkpoint_is_written_before_the_end,
        );
        redstart::conformance_checks!($factory, shutdown:
            running_handlers_finish_and_are_settled,
            nothing_is_lost_while_subscriptions_come_and_go,
        );
    };
}

mod memory {
    use redstart::Container;
    use redstart::memory::MemoryStore;
    use redstart::testing::conformance::Subject;

    struct Memory(MemoryStore);

    impl Subject for Memory {
        async fn container(&self, service: &str) -> Container {
            super::on(self.0.store(None), service).await
        }
    }

    async fn memory() -> Memory {
        Memory(MemoryStore::new())
    }

    over_four!(memory);
}

mod redis {
    use redstart::Container;
    use redstart::testing::conformance::Subject;

    use crate::support::{Server, builder};

    struct Four(Server);

    impl Subject for Four {
        async fn container(&self, service: &str) -> Container {
            let container = builder(&self.0).connect().await.unwrap();
            super::on(container.store(), service).await
        }
    }

    async fn redis() -> Four {
        Four(Server::start())
    }

    over_four!(redis);
}

/// Partitions of a topic lie on several nodes of a cluster, and one subscription reads them all.
mod cluster {
    use std::collections::BTreeSet;

    use redstart::extract::Payload;
    use redstart::topics::{Retention, TopicSettings};
    use redstart::{Envelope, Outcome, SubscribeOptions, store::Reading};
    use tokio::sync::mpsc;

    use crate::support::{cluster::Cluster, group, some, topic};

    #[tokio::test]
    async fn one_subscription_reads_partitions_on_several_nodes() {
        let cluster = Cluster::start(3, 0);
        let namespace = cluster.namespace();
        let builder = cluster.builder(&namespace);
        let container = builder.with_service(group("billing")).connect().await;
        let container = container.unwrap();
        let orders = topic("orders");
        // The messages stay after they are settled.
        let settings = TopicSettings::default().with_partitions(8);
        let settings = settings.with_retention(Retention::Count(1_000));
        container.topics().create(&orders, settings).await.unwrap();
        // One group reads on the shared connections, the other on one for each slot.
        let bus = container.bus();
        let mut groups = Vec::new();
        for (name, reading) in [("shared", Reading::Automatic), ("own", Reading::Own)] {
            let (sender, received) = mpsc::unbounded_channel();
            let handler = move |Payload(n): Payload<u32>| {
                let _ = sender.send(n);
                std::future::ready(Outcome::Ack)
            };
            let options = SubscribeOptions::new().with_group(group(name));
            let options = options.with_reading(reading);
            let subscription = bus.subscribe_with(&orders, options, handler).await;
            groups.push((subscription.unwrap(), received));
        }
        let message = |n: u32| Envelope::new("n", &n).unwrap().with_key(n.to_string());
        let all: Vec<Envelope> = (0..200).map(message).collect();
        let mut used = BTreeSet::new();
        for done in bus.publish_all(&orders, &all).await {
            used.insert(done.unwrap().id.partition());
        }
        assert_eq!(used, (0..8).collect());
        for (_, received) in &mut groups {
            let mut seen = some(received, 200).await;
            seen.sort_unstable();
            assert_eq!(seen, (0..200).collect::<Vec<_>>());
        }
        let clients = cluster.nodes.iter().map(|node| {
            let clients: String = node.command(&["CLIENT", "LIST"]);
            clients.matches("name=redstart:sub:").count()
        });
        assert_eq!(clients.sum::<usize>(), 8, "one for each slot of one group");
        let report = container.shutdown(std::time::Duration::from_secs(20)).await;
        assert!(report.is_clean(), "{report:?}");
        let tags = (0..8).map(|number| match number {
            0 => format!("{{{namespace}:orders}}:log"),
            _ => format!("{{{namespace}:orders/{number}}}:log"),
        });
        let owner = |key: String| {
            let (slot, length) = (cluster.slot(&key), ["XLEN", key.as_str()]);
            let owner = cluster.owner(0, slot);
            assert!(cluster.nodes[owner].command::<u64>(&length) > 0, "{key}");
            owner
        };
        assert_eq!(tags.map(owner).collect::<BTreeSet<_>>().len(), 3);
    }
}
