//! The work through Redstart's public interface.

mod consume;
mod dead;
mod failing;
mod kv;
mod publish;

use std::time::Duration;

use redstart::{Container, Topic};

pub(crate) use consume::{
    both, consume, consume_batches, counting, counting_as, latencies, latencies_in, wait_for,
};
pub(crate) use dead::{add_dead_letters, oldest, removing_overdue, sweep};
pub(crate) use failing::{consume_failing, fail_all, park, redrive};
pub(crate) use kv::kv;
pub(crate) use publish::{publish, publish_all, publish_tasks};

/// Waits until nothing of the topic is left to do.
pub(crate) async fn drained(container: &Container, topic: &Topic, dead: u64) {
    loop {
        let groups = container.topics().groups(topic).await.expect("the topic");
        let group = &groups[0];
        if group.lag + group.in_flight + group.scheduled == 0 {
            assert_eq!(group.dead, dead, "a fast run that loses one is a failure");
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

pub(crate) async fn finish(container: Container) {
    let report = container.shutdown(Duration::from_secs(30)).await;
    assert!(report.is_clean(), "{report:?}");
}
