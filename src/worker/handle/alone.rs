//! The right of a suspect to run alone.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::store::DeliveryId;
use crate::worker::core::Core;
use crate::worker::intake::gate::Alone;

/// The longest time that a suspect waits for endings, which is longer than settling backs off. A
/// server whose memory is full may refuse some of them for much longer.
const LONGEST_WAIT: Duration = Duration::from_secs(6);

/// Closes the gate, and waits until no other handler runs and the endings of its neighbours are written.
pub(super) async fn alone(core: &Core, suspect: DeliveryId) -> Alone<'_> {
    let alone = core.gate.alone().await;
    endings_written(core, suspect).await;
    alone
}

/// Waits until the store has the endings of all other deliveries whose handlers have returned. A process that ends
/// before would take them along, and its neighbours' finished work would count as a crash. Partitions that do not
/// answer keep nobody waiting.
async fn endings_written(core: &Core, suspect: DeliveryId) {
    let until = Instant::now() + LONGEST_WAIT;
    let waits = || {
        core.in_flight
            .ending()
            .iter()
            .any(|id| *id != suspect && !core.is_silent(*id))
    };
    while waits() && Instant::now() < until {
        sleep(Duration::from_millis(1)).await;
    }
}
