//! How long calls are repeated, and how long they wait in between.

use std::time::Duration;

use tokio::time::sleep;

/// How long a call is repeated.
pub(in crate::adapters::redis::net) const CALL_LIMIT: Duration = Duration::from_secs(5);
/// How long a publish is repeated.
pub(in crate::adapters::redis::net) const PUBLISH_LIMIT: Duration = Duration::from_secs(10);

const SHORTEST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Pauses that grow.
#[derive(Debug, Default)]
pub(in crate::adapters::redis::net) struct Pause {
    count: u32,
}

impl Pause {
    pub(in crate::adapters::redis::net) async fn next(&mut self) {
        let longest = SHORTEST_PAUSE.saturating_mul(1 << self.count.min(8));
        self.count += 1;
        // Many callers wait for the same server.
        let share = 0.5 + fastrand::f64() / 2.0;
        sleep(longest.min(LONGEST_PAUSE).mul_f64(share)).await;
    }
}
