//! The settings of a route.

use std::time::Duration;

use crate::domain::RetryPolicy;

/// The settings of one route, where they differ from those of its subscription.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct RouteOptions {
    pub(super) name: Option<String>,
    pub(super) timeout: Option<Duration>,
    pub(super) retry: Option<RetryPolicy>,
}

impl RouteOptions {
    /// The settings of the subscription.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the handler's name in dead letters; by default the name of the subscription's handler, if it
    /// was given one, or else the name of the function or the struct, or `topic/group` for a closure.
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets the retry policy; by default the
    /// [subscription's](crate::SubscribeOptions::with_retry).
    pub fn with_retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = Some(policy);
        self
    }

    /// Sets the time limit of an attempt, at least one millisecond; by default the
    /// [subscription's](crate::SubscribeOptions::with_handler_timeout).
    pub fn with_timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }
}
