//! Runs suspects, one at a time and alone: messages behind which crashes lie.
//!
//! They wait in a queue of their own, so that they hold no worker while other handlers run.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::api::handler::Work;
use crate::worker::core::Core;
use crate::worker::handle::batch::handle_part;
use crate::worker::handle::in_hand::InHand;
use crate::worker::handle::pipeline::{handle_one, prepare};

/// The longest time that other handlers get between two suspects.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Handles suspects until their queue is closed.
pub(crate) async fn run(core: Arc<Core>, work: Work) {
    while let Some(queued) = core.suspects.next().await {
        let _slot = core.capacity.slots(1);
        let _in_hand = InHand::one(&core, &queued);
        if core.stop.is_cancelled() || queued.lease.is_cancelled() {
            continue;
        }
        let Some(suspect) = prepare(&core, queued).await else {
            continue;
        };
        let alone = tokio::select! {
            biased;
            () = core.stop.cancelled() => continue,
            () = suspect.lease().cancelled() => continue,
            alone = core.gate.alone() => alone,
        };
        let began = Instant::now();
        match &work {
            Work::Each(handler) => handle_one(&core, &**handler, suspect).await,
            Work::Batches(handler) => handle_part(&core, &**handler, vec![suspect]).await,
        }
        drop(alone);
        // The others get as much time as the suspect took.
        tokio::select! {
            biased;
            () = core.stop.cancelled() => {}
            () = sleep(began.elapsed().min(LONGEST_PAUSE)) => {}
        }
    }
}
