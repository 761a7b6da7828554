//! Runs the pipeline for one delivery.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::Span;

use crate::api::delivery::Delivery;
use crate::api::handler::RawHandler;
use crate::api::lease::Lease;
use crate::api::traces;
use crate::domain::{Effects, Envelope, Outcome, Reason, Verdict};
use crate::store::Attempts;
use crate::worker::core::Core;
use crate::worker::handle::alone::alone;
use crate::worker::handle::begin::{Begun, begin, leave_owned};
use crate::worker::handle::call::call;
use crate::worker::handle::commit::{acknowledge, commit, commit_undecodable, put_back};
use crate::worker::handle::count::{Count, LOST_ERROR, count, record};
use crate::worker::handle::decide::{
    Chance, Rules, decide, decide_early, is_not_understood, wants_another_attempt,
};
use crate::worker::handle::decode::{Entry, decode, decode_again};
use crate::worker::handle::effects::{self, End, MOST_CONFLICTS, pause};
use crate::worker::handle::hold::hold_back;
use crate::worker::handle::in_hand::InHand;
use crate::worker::handle::shadow;
use crate::worker::intake::gate::Turn;
use crate::worker::intake::in_flight::HandOut;
use crate::worker::intake::queue::Queued;

/// Handles deliveries one after the other until the queue is closed.
pub(crate) async fn run(core: Arc<Core>, handler: Arc<dyn RawHandler>) {
    core.queue.note_arrival();
    while let Some(queued) = core.queue.next().await {
        // After a stop nothing begins: the shutdown releases the rest of the queue. A delivery
        // that lost its lease in the queue belongs to another consumer.
        let _slot = core.capacity.slots(1);
        let _in_hand = InHand::one(&core, &queued);
        if core.stop.is_cancelled() {
            give_back(&core, queued).await;
        } else if !queued.lease.is_cancelled() {
            handle(&core, &*handler, queued).await;
        }
    }
}

async fn handle(core: &Core, handler: &dyn RawHandler, queued: Queued) {
    let Some(begun) = prepare(core, queued).await else {
        return;
    };
    match enter(core).await {
        Some(turn) => handle_one(core, handler, (begun, false), turn).await,
        None => begun.leave(core).await,
    }
}

/// Gives a held-back message back to its group, which gets it after a delay.
pub(crate) async fn give_back_message(core: &Core, message: Queued, delay: Duration) {
    if let Some(one) = prepare(core, message).await {
        let (envelope, failed) = (one.delivery.envelope(), one.count.failed);
        put_back(core, &one.lease, one.entry, envelope, failed, delay).await;
    }
}

/// Gives a queued delivery back that the shutdown cannot release: the store has no record of an only
/// copy, and not all that this process knows of a held-back message.
pub(super) async fn give_back(core: &Core, queued: Queued) {
    if let Some(owned) = &core.owned {
        let hand_out = HandOut {
            id: queued.fetched.receipt,
            token: queued.lease.token(),
        };
        // Its partition need not wait for the end of the shutdown.
        return core.put_back(owned, [hand_out].into_iter());
    }
    core.only_copies_known.cancelled().await;
    if (queued.again.is_some() || queued.lease.is_only_copy())
        && let Some(one) = prepare(core, queued).await
    {
        one.leave(core).await;
    }
}

/// Lets an only copy come back at once, uncounted.
async fn reschedule(core: &Core, entry: Entry, lease: &Lease, envelope: &Envelope, count: Count) {
    let verdict = Verdict::Reschedule {
        delay: Duration::ZERO,
        attempts: count.failed,
        error: None,
    };
    commit(core, lease, entry, envelope, verdict).await;
}

/// Enters the gate. `None` when the subscription stops while the gate is closed.
pub(super) async fn enter(core: &Core) -> Option<Turn<'_>> {
    if let Some(turn) = core.gate.try_enter() {
        return Some(turn);
    }
    tokio::select! {
        biased;
        () = core.stop.cancelled() => None,
        turn = core.gate.enter() => Some(turn),
    }
}

/// Begins, calls and ends one delivery. Drops its turn at the gate when the handler has returned: what ends the
/// delivery may wait for the store.
pub(super) async fn handle_one<T>(
    core: &Core,
    handler: &dyn RawHandler,
    (one, is_alone): (Begun, bool),
    turn: T,
) {
    let one = if one.needs_mark(core) {
        match begin(core, vec![one]).await {
            Ok(mut begun) => begun.pop(),
            Err(stopped) => return leave(core, stopped).await,
        }
    } else if one.lease.is_over() {
        None
    } else if core.is_silent(one.entry.id) {
        return leave(core, vec![one]).await;
    } else {
        one.lease.begin();
        Some(one)
    };
    if let Some(begun) = one {
        begun.record_queue_time(core);
        let (outcome, span) = call(core, handler, &begun.delivery).await;
        begun.lease.end_call();
        drop(turn);
        match outcome {
            Outcome::Commit(effects) => {
                commit_one(core, handler, (begun, is_alone), (effects, span)).await;
            }
            outcome => end(core, begun, outcome, span).await,
        }
    }
}

/// Gives deliveries back whose handler does not begin, because the subscription stops or their partition does
/// not answer.
pub(super) async fn leave(core: &Core, deliveries: Vec<Begun>) {
    if let Some(owned) = &core.owned {
        return leave_owned(core, owned, &deliveries);
    }
    for one in deliveries {
        one.leave(core).await;
    }
}

/// Commits what a handler returned. After a conflict the handler runs again at once, with the same
/// attempt, and alone where it was alone.
async fn commit_one(
    core: &Core,
    handler: &dyn RawHandler,
    (begun, is_alone): (Begun, bool),
    (mut effects, mut span): (Effects, Span),
) {
    if let Some(outcome) = begun.rehearse(core, &effects).await {
        return end_as(core, begun, outcome, span).await;
    }
    for conflicts in 1.. {
        let error = match begun.commit(core, &effects, &span).await {
            End::Ended => return traces::end(&span, "ack"),
            End::Instead(outcome) => return end(core, begun, outcome, span).await,
            End::Conflict(error) => error,
        };
        if conflicts > MOST_CONFLICTS || begun.lease.is_cancelled() {
            return end(core, begun, Outcome::retry(error), span).await;
        }
        traces::end(&span, "conflict");
        pause(conflicts).await;
        let turn = async {
            match is_alone {
                true => (None, Some(alone(core, begun.entry.id).await)),
                false => (Some(core.gate.enter().await), None),
            }
        };
        let _turn = tokio::select! {
            biased;
            () = begun.lease.cancelled() => (None, None),
            turn = turn => turn,
        };
        if begun.lease.is_cancelled() {
            return end(core, begun, Outcome::retry(error), span).await;
        }
        let outcome;
        (outcome, span) = call(core, handler, &begun.delivery).await;
        begun.lease.end_call();
        effects = match outcome {
            Outcome::Commit(effects) => effects,
            outcome => return end(core, begun, outcome, span).await,
        };
    }
}

impl Begun {
    /// Checks the effects in a shadow group. Returns how the delivery ends; `None` in other groups.
    async fn rehearse(&self, core: &Core, effects: &Effects) -> Option<Outcome> {
        shadow::rehearse(core, self.delivery.envelope(), effects).await
    }

    async fn commit(&self, core: &Core, effects: &Effects, span: &Span) -> End {
        self.lease.end_call();
        effects::commit(core, self.entry.id, &self.lease, (effects, span)).await
    }

    /// Gives the delivery back where the subscription stops before its handler begins: the shutdown
    /// releases the others.
    pub(super) async fn leave(self, core: &Core) {
        if let Some(owned) = &core.owned {
            return leave_owned(core, owned, std::slice::from_ref(&self));
        }
        core.only_copies_known.cancelled().await;
        if self.lease.is_only_copy() {
            let envelope = self.delivery.envelope();
            reschedule(core, self.entry, &self.lease, envelope, self.count).await;
        } else if self.is_again {
            let (envelope, failed) = (self.delivery.envelope(), self.count.failed);
            put_back(
                core,
                &self.lease,
                self.entry,
                envelope,
                failed,
                Duration::ZERO,
            )
            .await;
        }
    }

    /// Commits what a batch handler returned for this message. After a conflict the message comes
    /// back at once, uncounted.
    pub(super) async fn commit_in_batch(self, core: &Core, effects: Effects, span: &Span) {
        if let Some(outcome) = self.rehearse(core, &effects).await {
            return end_as(core, self, outcome, Span::none()).await;
        }
        match self.commit(core, &effects, span).await {
            End::Ended => {}
            End::Instead(outcome) => end(core, self, outcome, Span::none()).await,
            End::Conflict(_) => {
                let envelope = self.delivery.envelope();
                reschedule(core, self.entry, &self.lease, envelope, self.count).await;
            }
        }
    }
}

/// Decode and count. Commits, and returns `None` for, a delivery that no handler may see.
pub(super) async fn prepare(core: &Core, queued: Queued) -> Option<Begun> {
    let Queued {
        fetched,
        lease,
        again,
    } = queued;
    let before = lease.before();
    let is_again = again.is_some();
    let (mut entry, envelope) = match again {
        Some(again) => decode_again(core.member.topic(), fetched, *again, &core.decoder),
        None => decode(core.member.topic(), fetched, &core.decoder),
    };
    let envelope = match envelope {
        Ok(envelope) => envelope,
        Err(error) => {
            let attempts = count(0, before).attempt();
            if core.options.shadow.is_some() {
                let outcome = Outcome::dead_letter_as(Reason::Undecodable, error.to_string());
                let _ = shadow::settle(core, None, outcome);
                acknowledge(core, &lease, entry.id).await;
                return None;
            }
            commit_undecodable(core, &lease, entry, attempts, &error).await;
            return None;
        }
    };
    // This process has counted and recorded the attempts at a message that it held back.
    let recorded = envelope.failed_attempts();
    let before = if is_again {
        Attempts::default()
    } else {
        before
    };
    let count = count(recorded, before);
    if before.begun > 0 {
        let signed = (core.store.now(), core.member.consumer.as_str());
        record(&mut entry.history, recorded, before, signed);
    }
    // A foreign producer may count attempts of its own, so a log entry gets one attempt at least.
    let last_error = match before.failed {
        0 => envelope.last_error().filter(|_| entry.is_redelivery),
        _ => Some(LOST_ERROR),
    };
    let retry = core.retry(envelope.message_type());
    if let Some(verdict) = decide_early(count, last_error, retry) {
        let verdict = shadow::verdict(core, &envelope, verdict);
        commit(core, &lease, entry, &envelope, verdict).await;
        return None;
    }
    let delivery = Delivery::new(
        envelope,
        Arc::clone(&core.home),
        entry.id,
        entry.history.origin,
        count.attempt(),
        Arc::clone(&lease),
    );
    Some(Begun {
        delivery,
        entry,
        count,
        lease,
        is_again,
    })
}

/// Decide and commit. A cancelled delivery whose handler asks for another attempt stays as it is:
/// the shutdown gives it back, uncounted. In a shadow group the outcome is only reported.
pub(super) async fn end(core: &Core, begun: Begun, outcome: Outcome, span: Span) {
    let comes_back = begun.lease.is_cancelled() && wants_another_attempt(&outcome);
    let outcome = match comes_back {
        true => outcome,
        false => shadow::settle(core, Some(begun.delivery.envelope()), outcome),
    };
    end_as(core, begun, outcome, span).await;
}

async fn end_as(core: &Core, begun: Begun, outcome: Outcome, span: Span) {
    let Begun {
        delivery,
        entry,
        count,
        lease,
        is_again,
    } = begun;
    lease.end_call();
    if lease.is_cancelled() && wants_another_attempt(&outcome) {
        traces::end(&span, "release");
        drop(span);
        let envelope = delivery.envelope();
        if lease.is_only_copy() {
            reschedule(core, entry, &lease, envelope, count).await;
        } else if is_again {
            put_back(core, &lease, entry, envelope, count.failed, Duration::ZERO).await;
        }
        return;
    }
    // Another process may understand it.
    let may_stay = !is_not_understood(&outcome);
    let pressure = match &outcome {
        Outcome::BackOff { error } => {
            tracing::debug!(subscription = %core.member, %error, "a handler backs off");
            core.pressure.note(Instant::now())
        }
        _ => Duration::ZERO,
    };
    let chance = Chance {
        random: fastrand::f64(),
        pressure,
    };
    let rules = Rules {
        retry: core.retry(delivery.envelope().message_type()),
        undecodable_retry: core.options.undecodable_retry,
    };
    let verdict = decide(outcome, count, rules, chance);
    traces::end(&span, traces::outcome_name(&verdict));
    drop(span);
    let envelope = delivery.envelope();
    let rest = match may_stay {
        true => hold_back(core, &lease, entry, envelope, verdict),
        false => Some((entry, verdict)),
    };
    if let Some((entry, verdict)) = rest {
        commit(core, &lease, entry, envelope, verdict).await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::api::Payload;
    use crate::domain::IntoOutcome;
    use crate::store::End as StoredEnd;
    use crate::worker::fixture::{Fixture, all, at_most, current, each, handler, lose};

    #[tokio::test]
    async fn a_delivery_that_was_lost_in_the_queue_does_not_begin() {
        let fixture = Fixture::new().await;
        let (core, _settlements, fetched) = fixture.holding(at_most(5), (3, false)).await;
        lose(&core, fetched[1].receipt);
        let (handler, mut calls) = handler(Outcome::Ack);
        run(core, handler).await;
        assert_eq!(all(&mut calls), [(0, 1), (2, 1)]);
    }

    #[tokio::test]
    async fn an_only_copy_that_waits_for_the_gate_comes_back_after_a_stop() {
        let fixture = Fixture::new().await;
        let (core, mut settlements, fetched) = fixture.holding(at_most(5), (1, false)).await;
        let alone = core.gate.alone().await;
        let (handler, mut calls) = handler(Outcome::Ack);
        let mut running = Box::pin(run(Arc::clone(&core), handler));
        assert!((&mut running).now_or_never().is_none(), "it waits");
        let id = fetched[0].receipt;
        assert!(core.in_flight.keep_only_copy(current(&core, id)));
        core.stop.cancel();
        core.only_copies_known.cancel();
        running.await;
        drop(alone);
        assert_eq!(all(&mut calls), []);
        let write = settlements.writes.try_recv().unwrap();
        assert!(matches!(write.commit.end(), StoredEnd::Reschedule { .. }));
    }

    #[tokio::test]
    async fn a_handler_whose_effects_wait_keeps_nobody_from_running_alone() {
        let fixture = Fixture::new().await;
        let (core, mut settlements, _) = fixture.holding(at_most(5), (1, false)).await;
        let function = |_: Payload<u32>| async {
            let mut effects = Effects::new();
            effects.incr("n", 1);
            effects
        };
        let mut running = Box::pin(run(Arc::clone(&core), each(function)));
        assert!((&mut running).now_or_never().is_none());
        settlements.effects.try_recv().expect("its effects");
        assert!(core.gate.alone().now_or_never().is_some());
    }

    #[tokio::test]
    async fn nothing_begins_after_a_stop() {
        let fixture = Fixture::new().await;
        let (core, _settlements, _) = fixture.holding(at_most(5), (2, false)).await;
        core.stop.cancel();
        core.only_copies_known.cancel();
        let (handler, mut calls) = handler(Outcome::Ack);
        run(Arc::clone(&core), handler).await;
        assert_eq!(all(&mut calls), []);
        assert_eq!(
            core.in_flight.unfinished(),
            2,
            "the shutdown gives them back"
        );
    }

    /// How a delivery ends whose handler was cancelled and returns this.
    async fn after_a_cancellation<T>(value: T) -> &'static str
    where
        T: IntoOutcome + Clone + Send + Sync + 'static,
    {
        let fixture = Fixture::new().await;
        let (core, mut settlements, _) = fixture.holding(at_most(5), (1, false)).await;
        let cancelling = Arc::clone(&core);
        let function = move |_: Payload<u32>| {
            cancelling.in_flight.cancel_all();
            let value = value.clone();
            async { value }
        };
        run(Arc::clone(&core), each(function)).await;
        let (acks, writes) = (settlements.acks.len(), settlements.writes.len());
        assert_eq!(core.in_flight.unfinished(), usize::from(acks + writes == 0));
        match (settlements.acks.try_recv(), settlements.writes.try_recv()) {
            (Ok(_), Err(_)) => "acknowledged",
            (Err(_), Ok(_)) => "written",
            (Err(_), Err(_)) => "given back",
            (Ok(_), Ok(_)) => "both",
        }
    }

    #[tokio::test]
    async fn a_cancelled_handler_ends_its_delivery_only_by_saying_so() {
        assert_eq!(after_a_cancellation(()).await, "given back");
        assert_eq!(
            after_a_cancellation(Outcome::retry("no")).await,
            "given back"
        );
        assert_eq!(
            after_a_cancellation(Outcome::back_off("no")).await,
            "given back"
        );
        assert_eq!(after_a_cancellation(Outcome::Ack).await, "acknowledged");
        assert_eq!(
            after_a_cancellation(Outcome::dead_letter("no")).await,
            "written"
        );
    }
}
