//! The demo's messages, and which of them fail.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How many attempts a message has: enough for a planned failure and crashes on the way to success.
pub(super) const MAX_ATTEMPTS: u32 = 4;
/// How many deliveries a worker handles at once.
pub(super) const CONCURRENCY: u64 = 8;
/// How long a dead worker's deliveries wait for another worker.
pub(super) const LEASE: Duration = Duration::from_secs(2);
/// How many messages fail at every attempt.
const HOPELESS: u64 = 3;
/// One message in this many fails once.
const STUMBLING: u64 = 50;

/// A message of the demo.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(super) struct Message {
    pub(super) n: u64,
    pub(super) fails: Fails,
}

impl redstart::Message for Message {
    const TYPE: &'static str = "demo.message";
}

/// How often a message fails.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Fails {
    Never,
    Once,
    Always,
}

/// All messages, with the failing ones spread evenly.
pub(super) fn messages(total: u64) -> impl Iterator<Item = Message> {
    let apart = (total / HOPELESS).max(1);
    (0..total).map(move |n| {
        let fails = if n % apart == apart / 2 && n / apart < HOPELESS {
            Fails::Always
        } else if n % STUMBLING == 0 {
            Fails::Once
        } else {
            Fails::Never
        };
        Message { n, fails }
    })
}

/// How long a handler takes for one message: long enough in total that the kill comes during the
/// work.
pub(super) fn work(total: u64, workers: u64) -> Duration {
    let all = Duration::from_millis(400);
    let each = all.as_micros() as u64 * workers * CONCURRENCY / total.max(1);
    Duration::from_micros(each.clamp(2_000, 50_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_fail_always_and_one_in_fifty_once() {
        for total in [10, 11, 60, 2000, 100_001] {
            let all: Vec<Message> = messages(total).collect();
            let count = |what| all.iter().filter(|message| message.fails == what).count() as u64;
            assert_eq!(all.len() as u64, total);
            assert_eq!(count(Fails::Always), 3, "{total}");
            assert!(
                count(Fails::Once).abs_diff(total.div_ceil(50)) <= 3,
                "{total}"
            );
            assert!(count(Fails::Once) > 0, "{total}");
        }
    }

    #[test]
    fn few_messages_take_longer_each() {
        assert_eq!(work(20, 3), Duration::from_millis(50));
        assert_eq!(work(1_000_000, 3), Duration::from_millis(2));
    }
}
