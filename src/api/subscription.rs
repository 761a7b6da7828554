//! The handle of a running subscription.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::domain::{BoxFuture, ConsumerName, Group, Topic};
use crate::store::Member;

/// The running subscription behind a handle.
pub(crate) trait Running: Send + Sync {
    fn member(&self) -> &Member;
    fn problem(&self) -> Option<String>;
    /// Whether its runtime has ended, so that it never does anything again.
    fn is_dead(&self) -> bool;
    fn stop(&self);
    fn end(self: Arc<Self>, grace: Duration) -> BoxFuture<'static, SubscriptionReport>;
}

/// The handle of a running subscription. Cheap to clone.
///
/// Dropping the handle leaves the subscription running until its container shuts down.
/// [`unsubscribe`](Self::unsubscribe) ends it.
#[derive(Clone)]
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

/// The deliveries that a subscription left when it ended.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct SubscriptionReport {
    /// `topic/group`.
    pub name: String,
    /// Deliveries that were released because no handler had begun them. No attempt counts, and other
    /// consumers can take them at once.
    pub released: u64,
    /// Handlers that were still running after the grace, were cancelled, and did not end their
    /// delivery. Their deliveries were released too. No attempt counts.
    pub cancelled: u64,
    /// Deliveries that could neither be settled nor released. They return when their lease ends;
    /// those that a handler has finished are handled again.
    pub unsettled: u64,
}

impl SubscriptionReport {
    /// Whether every delivery that a handler began was also finished and settled.
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

    /// Names the parts that fail at the moment, with their errors: reading, extending leases,
    /// bringing retries back, settling, acknowledging, and background tasks that died. `None` while
    /// all of them work. The subscription retries each of them until it works.
    ///
    /// It also says when a handler hangs or is too slow: when one has run for more than half of its
    /// [time limit](crate::SubscribeOptions::with_handler_timeout) and for more than ten minutes, or for
    /// 30 minutes without a time limit.
    ///
    /// A subscription ends with the runtime on which it was made. Then this says so, and the
    /// container accepts a new subscription in its place.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        self.running.problem()
    }

    /// Whether the runtime that drove it has ended.
    pub(crate) fn is_dead(&self) -> bool {
        self.running.is_dead()
    }

    /// Stops beginning deliveries; [`unsubscribe`](Self::unsubscribe) does the rest.
    pub(crate) fn stop(&self) {
        self.running.stop();
    }

    /// Ends the subscription and reports what it left.
    ///
    /// 1. Reading stops.
    /// 2. Running handlers may finish until `grace` has passed. Then their
    ///    [`Delivery`](crate::Delivery) is cancelled, and a quarter of a second later their future
    ///    is dropped.
    /// 3. Deliveries that no handler has begun or finished are released; no attempt counts.
    /// 4. Pending settlements are written.
    ///
    /// Steps 3 and 4 may take the rest of the grace, and together at most one second more, even
    /// if the server does not answer.
    ///
    /// The group and its messages stay. Calling it again returns the same report. A handler that
    /// waits for the end of its own subscription waits for itself, until the grace is over.
    ///
    /// # Cancel safety
    ///
    /// The subscription ends even if the future is dropped.
    pub async fn unsubscribe(&self, grace: Duration) -> SubscriptionReport {
        // At once, even if another call is already ending it.
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
