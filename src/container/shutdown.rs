//! How a container shuts down, and its report.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;
use tracing::Instrument as _;

use super::{Container, SubscriptionReport, coordinator};
use crate::worker;

/// The time that a coordinator has to stop even after the grace has passed.
const NOTICE: Duration = Duration::from_millis(250);

/// The deliveries that a shutdown left unfinished, by subscription.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ShutdownReport {
    /// One report for each subscription: first those of the coordinators, the last started first,
    /// then the others, the newest first.
    pub subscriptions: Vec<SubscriptionReport>,
    /// One line for each coordinator that panicked or did not stop in time, with its name.
    pub failed_coordinators: Vec<String>,
}

impl ShutdownReport {
    /// Whether every handler that began also finished, every end of a delivery was stored, and every
    /// coordinator stopped.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        let clean = SubscriptionReport::is_clean;
        self.failed_coordinators.is_empty() && self.subscriptions.iter().all(clean)
    }
}

/// One line: whether the shutdown was clean, and if not, where.
impl fmt::Display for ShutdownReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_clean() {
            return f.write_str("clean shutdown");
        }
        let of_subscription = |one: &SubscriptionReport| {
            let (name, cancelled, unsettled) = (&one.name, one.cancelled, one.unsettled);
            format!("{name}: {cancelled} cancelled, {unsettled} unsettled")
        };
        let unclean = self.subscriptions.iter().filter(|one| !one.is_clean());
        let mut parts: Vec<String> = unclean.map(of_subscription).collect();
        parts.extend(self.failed_coordinators.iter().cloned());
        write!(f, "shutdown not clean: {}", parts.join("; "))
    }
}

/// 0 for a clean shutdown, else 1.
impl From<ShutdownReport> for std::process::ExitCode {
    fn from(report: ShutdownReport) -> Self {
        match report.is_clean() {
            true => Self::SUCCESS,
            false => Self::FAILURE,
        }
    }
}

impl Container {
    /// Shuts down and reports the deliveries that it left unfinished.
    ///
    /// 1. From the call on, no handler begins.
    /// 2. All subscriptions end side by side.
    /// 3. The container stops the coordinators in reverse order, each after its subscriptions.
    /// 4. Publishing then fails with [`ErrorKind::Closed`](crate::ErrorKind::Closed). Until here, running handlers
    ///    may publish. The key-value store stays usable.
    ///
    /// `grace` is the time for all steps together; the last writes may take one second more, even if
    /// the server does not answer. [`Subscription::unsubscribe`](crate::Subscription::unsubscribe) explains what
    /// happens to handlers that need longer.
    ///
    /// A handler of this container may call this too. The call then returns an empty report at once,
    /// and the shutdown goes on in the background: it waits for this handler as for every other.
    ///
    /// # Cancel safety
    ///
    /// The shutdown goes on even if the future is dropped.
    pub async fn shutdown(&self, grace: Duration) -> ShutdownReport {
        self.inner.bus.close_subscribing();
        // No subscription may begin anything while another one ends.
        for subscription in self.inner.bus.running() {
            subscription.stop();
        }
        let container = self.clone();
        let ending = async move { container.end(grace).await };
        let ending = tokio::spawn(ending.in_current_span());
        if worker::is_handler_of(self.inner.bus.publishing()) {
            return ShutdownReport::default();
        }
        // The task can only fail with the runtime that it runs on.
        ending.await.unwrap_or_default()
    }

    pub(super) async fn end(&self, grace: Duration) -> ShutdownReport {
        let inner = &self.inner;
        let began = Instant::now();
        let left = || grace.saturating_sub(began.elapsed());
        let running = inner.bus.running();
        let endings: Vec<_> = running
            .into_iter()
            .rev()
            .map(|subscription| {
                let name = subscription.consumer().clone();
                let grace = left();
                let ending = async move { subscription.unsubscribe(grace).await };
                (name, tokio::spawn(ending.in_current_span()))
            })
            .collect();
        let mut report = ShutdownReport::default();
        let mut coordinated = HashSet::new();
        let mut started = inner.started.lock().await;
        while let Some(last) = started.pop() {
            for subscription in last.subscriptions.iter().rev() {
                coordinated.insert(subscription.consumer().clone());
                // It has begun to end: this waits for its report.
                report
                    .subscriptions
                    .push(subscription.unsubscribe(left()).await);
            }
            let failure = coordinator::stop(&*last.coordinator, left().max(NOTICE)).await;
            report.failed_coordinators.extend(failure);
        }
        for (name, ending) in endings {
            if let (Ok(ended), false) = (ending.await, coordinated.contains(&name)) {
                report.subscriptions.push(ended);
            }
        }
        inner.bus.close();
        report
    }
}
