//! Shutting down: stop reading, let handlers finish, flush, release the rest, report.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::api::SubscriptionReport;
use crate::api::supervise::log;
use crate::domain::{Error, ErrorKind};
use crate::worker::core::Core;
use crate::worker::intake::catch_up::MOST_PENDING;
use crate::worker::tasks::{NOTICE, Tasks, abort, all_ended};
use crate::worker::tracks::Track;

/// How long the last writes together may take once the grace is over.
const LAST_WRITES: Duration = Duration::from_secs(1);

pub(crate) async fn run(core: &Arc<Core>, mut tasks: Tasks, grace: Duration) -> SubscriptionReport {
    let now = Instant::now();
    // A grace beyond thirty years would overflow the clock.
    let deadline = now
        .checked_add(grace)
        .unwrap_or(now + Duration::from_secs(1_000_000_000));
    // One budget for all steps, so that a server that does not answer cannot use it up in each.
    let limit = deadline + LAST_WRITES;
    core.stop.cancel();

    // The last read and the last reclaim may still bring deliveries; only then is the queue
    // complete.
    if !all_ended(&mut tasks.intake, deadline.max(now + NOTICE)).await {
        abort(&mut tasks.intake).await;
    }
    find_only_copies(core, deadline.max(now + NOTICE)).await;
    core.only_copies_known.cancel();
    core.queue.close();
    core.suspects.close();
    if core.owned.is_some() {
        // The last read may have brought some after membership took the others back.
        core.take_back(|_| true);
    }

    let mut crew = core.queue.dismiss();
    let workers = &mut [&mut tasks.workers, &mut crew];
    if !each_ended(workers, deadline).await {
        find_only_copies(core, Instant::now() + NOTICE).await;
        core.in_flight.cancel_all();
        if !each_ended(workers, Instant::now() + NOTICE).await {
            for workers in workers {
                abort(workers).await;
            }
        }
    }
    // The noter gives held-back messages back. Where it cannot, the release below does.
    let until = limit.min(Instant::now() + NOTICE);
    while core.hold_back.messages() > 0 && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // Includes the handlers that returned after the cancellation and gave their delivery back.
    let cancelled = core.in_flight.begun();

    // The lease keeper ends first: an extension under way would undo the release.
    core.halt.cancel();
    // Half of the time that is left: the release needs the other half.
    let now = Instant::now();
    let half = now + limit.saturating_duration_since(now) / 2;
    if !all_ended(&mut tasks.services, half).await {
        abort(&mut tasks.services).await;
    }
    // An owned group needs some of the time to leave.
    let last = match core.owned {
        Some(_) => Instant::now().max(limit - LAST_WRITES / 2),
        None => limit,
    };
    let released = release_unfinished(core, last).await;
    let released = released + core.put_back.load(Ordering::Relaxed);

    // The finished deliveries leave when the settlers have written them.
    let unfinished = core.in_flight.unfinished();
    while core.in_flight.len() > unfinished && Instant::now() < last {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    abort(&mut tasks.settlers).await;
    let mut unsettled = core.in_flight.len() as u64;

    if let Some(owned) = &core.owned {
        // On failure the partitions wait for the end of the lease.
        let _ = timeout_at(limit, owned.leave(limit)).await;
        unsettled += owned.unwritten_acks();
    }
    let (topics, consumer) = (core.store.topics(), Some(&core.member.consumer));
    let pruning = topics.prune_consumers(&core.member.at, Duration::ZERO, consumer);
    // On failure another consumer's janitor removes this one later.
    let _ = timeout_at(limit, pruning).await;
    core.meters.in_flight.set(0.0);

    let report = SubscriptionReport {
        name: core.member.to_string(),
        released: released.saturating_sub(cancelled),
        cancelled,
        unsettled,
    };
    // The report must reach the caller whatever the log does.
    log(|| tracing::info!(?report, "unsubscribed"));
    report
}

/// Waits for all tasks of several sets to end, until a time. Returns whether they did.
async fn each_ended(sets: &mut [&mut JoinSet<()>], until: Instant) -> bool {
    let mut ended = true;
    for tasks in sets {
        ended &= all_ended(tasks, until).await;
    }
    ended
}

/// Asks the store whether it still has a record of each delivery. A delivery without one cannot be
/// released: its worker writes it from memory.
async fn find_only_copies(core: &Core, until: Instant) {
    let _ = timeout_at(until, core.extend_all()).await;
}

/// Releases, uncounted, every delivery that the store assigns to this consumer and no handler has
/// finished, including those of a read or reclaim whose answer was lost. Returns how many. A partition that does
/// not answer until a time keeps its deliveries.
async fn release_unfinished(core: &Core, until: Instant) -> u64 {
    let tracks = core.settling.iter();
    let releases = tracks.map(|track| timeout_at(until, release_track(core, track)));
    let released = join_all(releases).await.into_iter();
    released.flatten().flatten().sum()
}

async fn release_track(core: &Core, track: &Track) -> Result<u64, Error> {
    let pending = match core
        .store
        .deliveries()
        .pending_of(&track.member, MOST_PENDING)
        .await
    {
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        pending => pending?,
    };
    let unfinished = pending
        .into_iter()
        // An owned group names those of all its partitions.
        .filter(|id| track.has(*id) && !core.in_flight.is_finished(*id));
    let released = core.release(unfinished).await?;
    core.in_flight.remove_unfinished(track.partition);
    Ok(released)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::api::{Delivery, Payload, SubscribeOptions};
    use crate::domain::Outcome;
    use crate::store::{Effect, EffectCommit};
    use crate::worker::core::{SettledCount, Settlements};
    use crate::worker::effect_port::EffectWrite;
    use crate::worker::fixture::{Fixture, each, hand_out};
    use crate::worker::handle::pipeline;
    use crate::worker::settle::Settler;
    use crate::worker::settle_effects::EffectCalls;

    /// A subscription that holds messages.
    async fn holding(fixture: &Fixture, count: usize) -> (Arc<Core>, Settlements) {
        let fetched = fixture.fetch(count).await;
        let (core, settlements) = fixture.core(SubscribeOptions::new());
        hand_out(&core, &fetched, false);
        (core, settlements)
    }

    #[tokio::test]
    async fn the_deadline_cancels_handlers_and_their_messages_are_given_back() {
        let fixture = Fixture::new().await;
        let (core, _settlements) = holding(&fixture, 1).await;
        let (sender, mut told) = tokio::sync::mpsc::unbounded_channel();
        let function = move |_: Payload<u32>, delivery: Delivery| {
            let sender = sender.clone();
            async move {
                let _ = sender.send("began");
                delivery.cancelled().await;
                let _ = sender.send("cancelled");
                Outcome::retry("no time left")
            }
        };
        let mut tasks = Tasks::default();
        let handler = each(function);
        tasks
            .workers
            .spawn(pipeline::run(Arc::clone(&core), handler));
        assert_eq!(told.recv().await, Some("began"));
        let report = run(&core, tasks, Duration::ZERO).await;
        assert_eq!(told.recv().await, Some("cancelled"));
        assert_eq!(
            (report.cancelled, report.released, report.unsettled),
            (1, 0, 0)
        );
        let given_back = fixture.given_back().await;
        assert_eq!(
            given_back
                .iter()
                .map(|(_, begun)| *begun)
                .collect::<Vec<_>>(),
            [0]
        );
    }

    #[tokio::test]
    async fn a_shutdown_gives_back_what_no_handler_has_finished() {
        let fixture = Fixture::new().await;
        let (core, _settlements) = holding(&fixture, 3).await;
        let finished = core.queue.next().await.unwrap();
        finished.lease.begin();
        finished.lease.finish();
        let until = Instant::now() + Duration::from_secs(20);
        assert_eq!(release_unfinished(&core, until).await, 2);
        assert_eq!(fixture.given_back().await.len(), 2);
        assert_eq!(fixture.pending().await, [finished.fetched.receipt]);
        assert!(
            core.in_flight.contains(finished.fetched.receipt),
            "the settler has it"
        );
    }

    /// The grace is over and the worker has gone: only the settler has the effects.
    #[tokio::test]
    async fn a_shutdown_waits_for_the_effects_of_handlers_that_have_returned() {
        let fixture = Fixture::new().await;
        let (core, settlements) = holding(&fixture, 1).await;
        let returned = core.queue.next().await.unwrap();
        returned.lease.begin();
        returned.lease.finish();
        let (answer, _) = tokio::sync::oneshot::channel();
        let commit = EffectCommit {
            delivery: returned.fetched.receipt,
            acknowledges: true,
            only_copy: false,
            effects: vec![Effect::Set {
                key: "handled".to_owned(),
                value: Bytes::from_static(b"1"),
                ttl: None,
            }],
        };
        let token = returned.lease.token();
        let write = EffectWrite {
            commit,
            token,
            answer,
        };
        core.effects.writes.send(write).await.unwrap();
        let settler = Settler::new(&core, &core.faults.committing, &SettledCount::default());
        let mut tasks = Tasks::default();
        tasks.settlers.spawn(async move {
            // A call is under way before it.
            tokio::time::sleep(Duration::from_millis(50)).await;
            settler
                .commit_effects(EffectCalls::new(settlements.effects))
                .await;
        });
        let report = run(&core, tasks, Duration::ZERO).await;
        assert_eq!((report.unsettled, report.released), (0, 0));
        let handled = fixture.store.values().get(&["handled"]).await.unwrap();
        assert!(handled[0].is_some() && fixture.pending().await.is_empty());
    }

    #[tokio::test]
    async fn no_extension_comes_after_the_release() {
        let fixture = Fixture::new().await;
        let (core, _settlements) = holding(&fixture, 1).await;
        let ids = fixture.pending().await;
        let mut tasks = Tasks::default();
        let keeper = Arc::clone(&core);
        tasks.services.spawn(async move {
            keeper.halt.cancelled().await;
            // An extension that was under way. A shutdown that does not wait for it gets far meanwhile.
            for _ in 0..1000 {
                tokio::task::yield_now().await;
            }
            let _ = keeper.store.deliveries().extend(&keeper.member, &ids).await;
        });
        let report = run(&core, tasks, Duration::from_secs(20)).await;
        assert_eq!(report.released, 1);
        let calls = fixture.script.calls();
        let of = |name| {
            calls
                .iter()
                .enumerate()
                .filter(move |(_, call)| **call == name)
        };
        // The first one is the shutdown's own.
        let extensions: Vec<_> = of("deliveries.extend").map(|(at, _)| at).collect();
        let (released, _) = of("deliveries.commit").next().unwrap();
        assert!(
            extensions.len() == 2 && extensions[1] < released,
            "{calls:?}"
        );
    }
}
