//! The handle of a running subscription.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::domain::{BoxFuture, ConsumerName, Group, Topic};
use crate::store::Member;

/// A running subscription, as its handle sees it.
pub(crate) trait Running: Send + Sync {
    fn member(&self) -> &Member;
    fn problem(&self) -> Option<String>;
    fn stop(&self);
    fn end(self: Arc<Self>, grace: Duration) -> BoxFuture<'static, SubscriptionReport>;
}

/// A running subscription.
///
/// Dropping the handle leaves the subscription running until its container is shut down;
/// [`unsubscribe`](Self::unsubscribe) ends it. Cheap to clone.
#[derive(Clone)]
#[must_use = "dropping the handle leaves the subscription running"]
pub struct Subscription {
    running: Arc<dyn Running>,
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("topic", self.topic())
            .field("group", self.group())
            .field("consumer", self.consumer())
            .finish_non_exhaustive()
    }
}

/// What a subscription left when it ended.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct SubscriptionReport {
    /// `topic/group`.
    pub name: String,
    /// Deliveries that were given back because no handler had begun them: uncounted, and
    /// claimable at once.
    pub released: u64,
    /// Handlers that were cancelled at the grace. Their deliveries were given back too.
    pub cancelled: u64,
    /// Deliveries that could not be settled or given back; they come back when their lease
    /// ends, and those that were handled are handled again.
    pub unsettled: u64,
}

impl SubscriptionReport {
    /// Whether every delivery that was begun was also finished and settled.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.cancelled == 0 && self.unsettled == 0
    }
}

impl Subscription {
    pub(crate) fn new(running: Arc<dyn Running>) -> Self {
        Self { running }
    }

    /// The topic.
    #[must_use]
    pub fn topic(&self) -> &Topic {
        self.running.member().topic()
    }

    /// The group.
    #[must_use]
    pub fn group(&self) -> &Group {
        self.running.member().group()
    }

    /// This consumer's name within the group.
    #[must_use]
    pub fn consumer(&self) -> &ConsumerName {
        &self.running.member().consumer
    }

    /// Why it does not work at the moment, if it does not: reading, settling or acknowledging fails.
    /// Each is tried again until it works.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        self.running.problem()
    }

    /// Begins nothing new from now on; [`unsubscribe`](Self::unsubscribe) does the rest.
    pub(crate) fn stop(&self) {
        self.running.stop();
    }

    /// Ends the subscription and reports what it left.
    ///
    /// Reading stops; what no handler has begun is given back, uncounted; running handlers may
    /// finish until `grace` has passed; then their [`Delivery`](crate::Delivery) is cancelled
    /// and, a quarter of a second later, their future dropped. Settlements are written. The group and its
    /// messages stay. Calling it again returns the same report. A handler must not wait for the
    /// end of its own subscription: it would wait for itself until the grace.
    ///
    /// # Cancel safety
    ///
    /// The subscription ends even when the future is dropped.
    pub async fn unsubscribe(&self, grace: Duration) -> SubscriptionReport {
        // From this moment on, also when another call waits for its turn.
        self.running.stop();
        let name = self.running.member().to_string();
        let ending = tokio::spawn(Arc::clone(&self.running).end(grace));
        // The task can only fail with the runtime that it runs on.
        ending.await.unwrap_or_else(|_| SubscriptionReport {
            name,
            ..SubscriptionReport::default()
        })
    }
}
