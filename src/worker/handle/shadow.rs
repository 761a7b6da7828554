//! Shadow groups: from what a handler returned to a report and an acknowledgement.

use crate::api::{Rehearsal, Rehearsed};
use crate::domain::{Effects, Envelope, Error, ErrorKind, Outcome, Verdict};
use crate::worker::core::Core;

/// Reports the end of a message of a shadow group, and returns the outcome in its place: an
/// acknowledgement, except under back-pressure. In another group the outcome stays as it is.
pub(super) fn settle(core: &Core, envelope: Option<&Envelope>, outcome: Outcome) -> Outcome {
    if core.options.shadow.is_none() || matches!(outcome, Outcome::BackOff { .. }) {
        return outcome;
    }
    report(core, envelope, outcome, None);
    Outcome::Ack
}

/// The same for a message that no handler may see any more.
pub(super) fn verdict(core: &Core, envelope: &Envelope, verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::DeadLetter { reason, error, .. } if core.options.shadow.is_some() => {
            let outcome = Outcome::DeadLetter { reason, error };
            report(core, Some(envelope), outcome, None);
            Verdict::Ack
        }
        verdict => verdict,
    }
}

/// Checks the effects of a message and reports the result. Returns how the delivery ends; `None`
/// where the group writes its effects.
pub(super) async fn rehearse(
    core: &Core,
    envelope: &Envelope,
    effects: &Effects,
) -> Option<Outcome> {
    core.options.shadow.as_ref()?;
    let result = core.effects.publishing.rehearse(effects).await;
    if let Err(error) = &result
        && is_passing(error)
    {
        return Some(Outcome::of_error(error));
    }
    let outcome = Outcome::Commit(effects.clone());
    report(core, Some(envelope), outcome, Some(result));
    Some(Outcome::Ack)
}

/// Whether the store did not answer, so that the result is unknown.
fn is_passing(error: &Error) -> bool {
    error.is_outcome_unknown() || error.kind() == ErrorKind::Unavailable
}

fn report(
    core: &Core,
    envelope: Option<&Envelope>,
    outcome: Outcome,
    effects: Option<Result<Rehearsal, Error>>,
) {
    let Some(shadow) = &core.options.shadow else {
        return;
    };
    shadow.report(&Rehearsed {
        topic: core.member.topic().clone(),
        group: core.member.group().clone(),
        envelope: envelope.cloned(),
        outcome,
        effects,
    });
}
