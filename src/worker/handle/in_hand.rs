//! The deliveries that a worker has in hand go back to the store when the worker panics.
//!
//! A panic of a handler is caught closer to it. What reaches this is a panic in a log line, a meter
//! or the store's adapter. Without it the lease keeper would keep a delivery for ever that nobody
//! handles.

use crate::worker::core::Core;
use crate::worker::intake::in_flight::HandOut;
use crate::worker::intake::queue::Queued;

/// Removes its deliveries from the in-flight table when it is dropped by a panic. The fetcher then
/// releases them, because the store assigns them to this consumer and nothing here knows them.
pub(super) struct InHand<'a, T: AsRef<[HandOut]>> {
    core: &'a Core,
    hand_outs: T,
}

impl<'a> InHand<'a, [HandOut; 1]> {
    pub(super) fn one(core: &'a Core, queued: &Queued) -> Self {
        let hand_outs = [hand_out(queued)];
        Self { core, hand_outs }
    }
}

impl<'a> InHand<'a, Vec<HandOut>> {
    pub(super) fn all(core: &'a Core, batch: &[Queued]) -> Self {
        let hand_outs = batch.iter().map(hand_out).collect();
        Self { core, hand_outs }
    }
}

fn hand_out(queued: &Queued) -> HandOut {
    HandOut {
        id: queued.fetched.receipt,
        token: queued.lease.token(),
    }
}

impl<T: AsRef<[HandOut]>> Drop for InHand<'_, T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let hand_outs = self.hand_outs.as_ref();
            self.core.in_flight.remove(hand_outs.iter().copied());
            for hand_out in hand_outs {
                self.core.tracks.of(hand_out.id).unseen.note();
            }
        }
    }
}
