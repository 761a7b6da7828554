//! Measures the slots, the messages that are held back and the age of the oldest delivery, once a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::worker::hold_back::waiting::HoldBack;
use crate::worker::intake::in_flight::InFlight;
use crate::worker::meters::Meters;
use crate::worker::stir::Stir;

const TICK: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub(crate) struct Gauges {
    pub(crate) meters: Arc<Meters>,
    pub(crate) in_flight: Arc<InFlight>,
    pub(crate) hold_back: Arc<HoldBack>,
    /// How many calls of handlers run.
    pub(crate) busy: Arc<AtomicUsize>,
    pub(crate) slots: usize,
    pub(crate) stir: Arc<Stir>,
}

impl Gauges {
    /// Measures until the subscription halts.
    pub(crate) async fn run(self, halt: CancellationToken) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = halt.cancelled() => break,
                _ = ticks.tick() => {}
            }
            let moment = self.stir.now();
            self.meters.held_back.set(self.hold_back.messages() as f64);
            let oldest = self.in_flight.progress(Instant::now()).oldest;
            let busy = self.busy.load(Ordering::Relaxed);
            self.set(self.slots, busy, oldest);
            if busy == 0 && self.in_flight.len() == 0 {
                // The values stay until a delivery comes in.
                tokio::select! {
                    biased;
                    () = halt.cancelled() => break,
                    () = self.stir.accepted_since(moment) => {}
                }
            }
        }
        self.meters.held_back.set(0.0);
        self.set(0, 0, Duration::ZERO);
    }

    fn set(&self, slots: usize, busy: usize, oldest: Duration) {
        self.meters.slots.set(slots as f64);
        self.meters.busy_slots.set(busy as f64);
        self.meters.oldest_in_flight.set(oldest.as_secs_f64());
    }
}
