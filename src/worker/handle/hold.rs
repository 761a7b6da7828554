//! Hold back: keeps a failed delivery here for its next attempt.

use crate::api::lease::Lease;
use crate::domain::{Envelope, Verdict};
use crate::store::{Attempts, Begin, Fetched, Kind};
use crate::worker::core::Core;
use crate::worker::handle::commit::record_failure;
use crate::worker::handle::decode::Entry;
use crate::worker::hold_back::again::{Again, compact, weight};
use crate::worker::hold_back::waiting::Note;
use crate::worker::intake::in_flight::HandOut;
use crate::worker::intake::queue::Queued;

/// Keeps a failed delivery for its next attempt, if that comes soon and there is space. Otherwise
/// returns what it was given.
pub(super) fn hold_back(
    core: &Core,
    lease: &Lease,
    mut entry: Entry,
    envelope: &Envelope,
    verdict: Verdict,
) -> Option<(Entry, Verdict)> {
    let Verdict::Reschedule {
        delay,
        attempts,
        error: Some(error),
    } = &verdict
    else {
        return Some((entry, verdict));
    };
    let (delay, attempts) = (*delay, *attempts);
    let may_stay = !lease.is_only_copy() && !lease.is_cancelled() && !core.stop.is_cancelled();
    let bytes = weight(&entry.fields, &entry.history, error);
    let space = may_stay
        .then(|| core.hold_back.take(delay, bytes))
        .flatten();
    let Some(space) = space else {
        return Some((entry, verdict));
    };
    record_failure(core, &mut entry.history, attempts, error);
    core.meters.retried.increment(1);
    let before = lease.before();
    let failed = Attempts {
        begun: before.begun.saturating_add(1),
        failed: before.failed.saturating_add(1),
    };
    let hand_out = HandOut {
        id: entry.id,
        token: lease.token(),
    };
    // `None`: another consumer has the message.
    let next = core.in_flight.keep(hand_out, failed)?;
    // Counting the next attempt now saves its mark. A process that dies while the message waits must
    // not use up the last attempt, so that one is marked when it begins.
    let retry = core.retry(envelope.message_type());
    let counts_next = !core.marks_attempts && attempts.saturating_add(1) < retry.max_attempts();
    let again = Again {
        history: entry.history,
        failed: attempts,
        error: error.clone(),
        queued: None,
        _space: space,
    };
    let fetched = Fetched {
        source: 0,
        receipt: entry.id,
        fields: compact(&entry.fields),
        attempts: failed,
        kind: Kind::Fresh,
    };
    core.hold_back.note(Note {
        begin: Begin {
            delivery: entry.id,
            attempts: Attempts {
                begun: failed.begun.saturating_add(u32::from(counts_next)),
                ..failed
            },
        },
        counts_next,
        due: core.hold_back.due_after(delay),
        message: Queued {
            fetched,
            lease: next,
            again: Some(Box::new(again)),
        },
    });
    None
}
