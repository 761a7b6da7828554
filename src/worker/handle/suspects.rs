//! Runs suspects, one at a time and alone: messages behind which crashes lie.
//!
//! They wait in a queue of their own, so that they hold no worker while other handlers run.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::api::handler::Work;
use crate::worker::core::Core;
use crate::worker::handle::alone::alone;
use crate::worker::handle::batch::handle_part;
use crate::worker::handle::in_hand::InHand;
use crate::worker::handle::pipeline::{give_back, handle_one, prepare};

/// The longest time that other handlers get between two suspects.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Handles suspects until their queue is closed.
pub(crate) async fn run(core: Arc<Core>, work: Work) {
    while let Some(queued) = core.suspects.next().await {
        let _slot = core.capacity.slots(1);
        let _in_hand = InHand::one(&core, &queued);
        if core.stop.is_cancelled() {
            give_back(&core, queued).await;
            continue;
        }
        if queued.lease.is_cancelled() {
            continue;
        }
        let Some(suspect) = prepare(&core, queued).await else {
            continue;
        };
        if let Some(owned) = &core.owned
            && owned.is_silent(suspect.hand_out().id)
        {
            // It would keep the others waiting.
            core.put_back(owned, [suspect.hand_out()].into_iter());
            continue;
        }
        let alone = tokio::select! {
            biased;
            () = core.stop.cancelled() => {
                suspect.leave(&core).await;
                continue;
            }
            () = suspect.lease().cancelled() => continue,
            alone = alone(&core, suspect.hand_out().id) => alone,
        };
        let began = Instant::now();
        match &work {
            Work::Each(handler) => {
                handle_one(&core, &**handler, (suspect, true), alone).await;
            }
            Work::Batches(handler) => handle_part(&core, &**handler, vec![suspect], alone).await,
        }
        // The others get as much time as the suspect took.
        tokio::select! {
            biased;
            () = core.stop.cancelled() => {}
            () = sleep(began.elapsed().min(LONGEST_PAUSE)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::api::{Payload, SubscribeOptions};
    use crate::domain::{Effects, Outcome};
    use crate::store::{EffectFate, End};
    use crate::worker::core::Settlements;
    use crate::worker::fixture::{Fixture, all, current, each, hand_out, handler};

    /// A subscription with one suspect.
    async fn suspecting(fixture: &Fixture) -> (Arc<Core>, Settlements) {
        let mut fetched = fixture.fetch(1).await;
        fetched[0].attempts.begun = 2;
        let (core, settlements) = fixture.core(SubscribeOptions::new());
        hand_out(&core, &fetched, true);
        core.suspects.close();
        (core, settlements)
    }

    #[tokio::test]
    async fn a_suspect_begins_when_the_endings_of_its_neighbours_are_written() {
        let fixture = Fixture::new().await;
        let (core, _settlements) = suspecting(&fixture).await;
        let neighbour = fixture.fetch(1).await;
        hand_out(&core, &neighbour, false);
        core.queue.next().await.unwrap().lease.finish();
        let (handler, mut calls) = handler(Outcome::Ack);
        let running = tokio::spawn(run(Arc::clone(&core), Work::Each(handler)));
        Fixture::until("the gate to close", async || {
            core.gate.try_enter().is_none()
        })
        .await;
        assert_eq!(all(&mut calls).len(), 0);
        core.in_flight
            .remove([current(&core, neighbour[0].receipt)]);
        running.await.unwrap();
        assert_eq!(all(&mut calls).len(), 1);
    }

    #[tokio::test]
    async fn a_suspect_begins_when_nothing_runs_and_nothing_begins_beside_it() {
        let fixture = Fixture::new().await;
        let (core, _settlements) = suspecting(&fixture).await;
        let turn = core.gate.try_enter().unwrap();
        let (sender, mut beside) = tokio::sync::mpsc::unbounded_channel();
        let inside = Arc::clone(&core);
        let function = move |_: Payload<u32>| {
            let _ = sender.send(inside.gate.try_enter().is_some());
            async {}
        };
        let work = Work::Each(each(function));
        let running = tokio::spawn(run(Arc::clone(&core), work));
        Fixture::until("the gate to close", async || {
            core.gate.try_enter().is_none()
        })
        .await;
        assert_eq!(all(&mut beside), [true; 0], "another handler runs");
        drop(turn);
        running.await.unwrap();
        assert_eq!(all(&mut beside), [false]);
        assert!(core.gate.try_enter().is_some());
    }

    #[tokio::test]
    async fn a_suspect_runs_alone_again_after_a_conflict() {
        let fixture = Fixture::new().await;
        let (core, mut settlements) = suspecting(&fixture).await;
        let (sender, mut beside) = tokio::sync::mpsc::unbounded_channel();
        let inside = Arc::clone(&core);
        let function = move |_: Payload<u32>| {
            let _ = sender.send(inside.gate.try_enter().is_some());
            async {
                let mut effects = Effects::new();
                effects.incr("n", 1);
                effects
            }
        };
        let work = Work::Each(each(function));
        let running = tokio::spawn(run(Arc::clone(&core), work));
        for fate in [EffectFate::Differs(0), EffectFate::Lost] {
            let write = settlements.effects.recv().await.unwrap();
            write.answer.send(Ok(fate)).unwrap();
        }
        running.await.unwrap();
        assert_eq!(all(&mut beside), [false, false]);
    }

    #[tokio::test]
    async fn a_suspect_that_is_lost_after_a_conflict_waits_for_no_neighbour() {
        let fixture = Fixture::new().await;
        let (core, mut settlements) = suspecting(&fixture).await;
        let id = fixture.pending().await[0];
        let function = |_: Payload<u32>| async {
            let mut effects = Effects::new();
            effects.incr("n", 1);
            effects
        };
        let work = Work::Each(each(function));
        let running = tokio::spawn(run(Arc::clone(&core), work));
        let write = settlements.effects.recv().await.unwrap();
        let turn = core.gate.try_enter().unwrap();
        write.answer.send(Ok(EffectFate::Differs(0))).unwrap();
        Fixture::until("the gate to close", async || {
            core.gate.try_enter().is_none()
        })
        .await;
        core.in_flight.lose([current(&core, id)]);
        let ended = tokio::time::timeout(Duration::from_secs(30), running).await;
        ended.expect("it waits no longer").unwrap();
        drop(turn);
        assert!(core.gate.try_enter().is_some());
    }

    #[tokio::test]
    async fn no_suspect_begins_after_a_stop() {
        let fixture = Fixture::new().await;
        let (core, _settlements) = suspecting(&fixture).await;
        core.stop.cancel();
        core.only_copies_known.cancel();
        let (handler, mut calls) = handler(Outcome::Ack);
        run(core, Work::Each(handler)).await;
        assert_eq!(all(&mut calls), []);
    }

    #[tokio::test]
    async fn a_suspect_that_is_an_only_copy_comes_back_after_a_stop() {
        for waits in [false, true] {
            let fixture = Fixture::new().await;
            let (core, mut settlements) = suspecting(&fixture).await;
            let id = fixture.pending().await[0];
            let turn = core.gate.try_enter().unwrap();
            let (handler, mut calls) = handler(Outcome::Ack);
            let mut running = Box::pin(run(Arc::clone(&core), Work::Each(handler)));
            if waits {
                assert!((&mut running).now_or_never().is_none(), "it waits");
            }
            assert!(core.in_flight.keep_only_copy(current(&core, id)));
            core.stop.cancel();
            core.only_copies_known.cancel();
            running.await;
            drop(turn);
            assert_eq!(all(&mut calls), []);
            let write = settlements.writes.try_recv().unwrap();
            assert!(matches!(write.commit.end(), End::Reschedule { .. }));
        }
    }
}
