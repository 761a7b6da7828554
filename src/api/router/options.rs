//! The settings of a route.

use std::time::Duration;

/// The settings of one route, where they differ from those of its subscription.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct RouteOptions {
    pub(super) timeout: Option<Duration>,
}

impl RouteOptions {
    /// The settings of the subscription.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the time limit of an attempt, at least one millisecond; by default the
    /// [subscription's](crate::SubscribeOptions::with_handler_timeout).
    pub fn with_timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }
}
