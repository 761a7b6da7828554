//! Commit effects: from the effects that a handler returned to the end of its delivery.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::Span;

use crate::api::lease::Lease;
use crate::bus::{Admission, Prepared, committed, refused};
use crate::domain::{Effects, Error, ErrorKind, Outcome};
use crate::store::{DeliveryId, Effect, EffectCommit, EffectFate, Refusal};
use crate::worker::core::Core;
use crate::worker::intake::in_flight::HandOut;

/// How long a delivery waits under its lease for a topic that is full.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// How long it waits before it asks again.
const WAIT: Duration = Duration::from_millis(100);
/// How often a handler runs again because of a conflict before its attempt counts as failed.
pub(super) const MOST_CONFLICTS: u32 = 10;
/// The pauses before the runs after a conflict take about this long together.
const CONFLICT_TIME: Duration = Duration::from_millis(100);

/// What became of a handler's effects.
pub(super) enum End {
    /// The delivery has ended, or another consumer has it.
    Ended,
    /// Nothing was written: a value was changed since the handler read it.
    Conflict(Error),
    /// Nothing was written: the delivery ends this way instead.
    Instead(Outcome),
}

/// Asks the backlogs, and waits while one of them is full. The delivery stays under its lease, so a
/// full topic slows down the subscriptions before it and costs no attempt.
async fn admit(core: &Core, lease: &Lease, prepared: &Prepared) -> Result<Admission, Error> {
    let began = Instant::now();
    loop {
        let error = match core.effects.publishing.admit_all(prepared).await {
            Ok(admission) => return Ok(admission),
            Err(error) => error,
        };
        let passes = matches!(
            error.kind(),
            ErrorKind::BacklogFull | ErrorKind::Unavailable
        );
        if !passes || began.elapsed() >= LONGEST_WAIT || lease.is_cancelled() {
            return Err(error);
        }
        core.queue.pass_on();
        tokio::select! {
            biased;
            () = core.stop.cancelled() => return Err(error),
            () = lease.cancelled() => return Err(error),
            () = sleep(WAIT) => {}
        }
    }
}

/// Commits the effects of a delivery whose handler has returned.
pub(super) async fn commit(
    core: &Core,
    id: DeliveryId,
    lease: &Lease,
    (effects, span): (&Effects, &Span),
) -> End {
    if effects.is_empty() && effects.check().is_ok() {
        return End::Instead(Outcome::Ack);
    }
    let publishing = &core.effects.publishing;
    // The messages belong to the trace of the attempt.
    let prepared = match span.in_scope(|| publishing.prepare(effects)) {
        Ok(prepared) => prepared,
        Err(error) => return End::Instead(Outcome::of_error(&error)),
    };
    let admission = match admit(core, lease, &prepared).await {
        Ok(admission) => admission,
        Err(error) => {
            publishing.fail(&prepared, &error);
            return End::Instead(Outcome::of_error(&error));
        }
    };
    lease.finish();
    core.queue.pass_on();
    let commit = EffectCommit {
        delivery: id,
        acknowledges: true,
        only_copy: lease.is_only_copy(),
        effects: prepared.effects().to_vec(),
    };
    let answer = core.effects.commit(commit, lease.token()).await;
    let (end, done) = match answer {
        Ok(fate) => {
            let end = end_of(&fate, prepared.effects());
            (end, committed(prepared.effects(), fate))
        }
        Err(error) => (End::Instead(Outcome::of_error(&error)), Err(error)),
    };
    publishing.finish(&prepared, admission, &done);
    match end {
        End::Ended => core.pressure.clear(),
        _ => resume(core, id, lease),
    }
    end
}

/// Lets the delivery go on. Where its lease was lost meanwhile, this process may have got the entry
/// again and not taken it, because it was still here: the fetcher looks for such entries.
fn resume(core: &Core, id: DeliveryId, lease: &Lease) {
    lease.resume();
    if lease.is_lost() {
        let token = lease.token();
        core.in_flight.remove([HandOut { id, token }]);
        core.tracks.of(id).unseen.note();
    }
}

/// What an answer of the store means for the delivery.
fn end_of(fate: &EffectFate, effects: &[Effect]) -> End {
    match fate {
        EffectFate::Differs(_) => End::Conflict(refused(effects, fate)),
        // No further attempt can succeed.
        EffectFate::Refused(_, Refusal::WrongType) => {
            End::Instead(Outcome::dead_letter(refused(effects, fate)))
        }
        EffectFate::Refused(..) => End::Instead(Outcome::retry(refused(effects, fate))),
        _ => End::Ended,
    }
}

/// Waits before a handler runs again after a number of conflicts.
pub(super) async fn pause(conflicts: u32) {
    let longest = CONFLICT_TIME * 2 * conflicts / (MOST_CONFLICTS * (MOST_CONFLICTS + 1) / 2);
    sleep(longest.mul_f64(fastrand::f64())).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::fixture::{Fixture, at_most, current};

    #[tokio::test]
    async fn a_conflict_frees_a_delivery_that_another_consumer_had_meanwhile() {
        let fixture = Fixture::new().await;
        let (core, mut settlements, fetched) = fixture.holding(at_most(5), (1, false)).await;
        let id = fetched[0].receipt;
        let lease = core.queue.next().await.unwrap().lease;
        let mut effects = Effects::new();
        effects.incr("n", 1);
        let span = Span::none();
        let answering = async {
            let write = settlements.effects.recv().await.unwrap();
            // Another consumer claims it and gives it back, and this one claims it again.
            core.in_flight.lose([current(&core, id)]);
            assert_eq!(core.accept(fetched.clone(), true, Instant::now()), 0);
            write.answer.send(Ok(EffectFate::Differs(0))).unwrap();
        };
        let committing = commit(&core, id, &lease, (&effects, &span));
        let (end, ()) = tokio::join!(committing, answering);
        assert!(matches!(end, End::Conflict(_)));
        assert!(!core.in_flight.contains(id), "nothing extends its lease");
        assert!(
            core.tracks.first().unseen.may_exist(),
            "the fetcher gives it back"
        );
    }
}
