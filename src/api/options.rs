//! The settings of a subscription.

use std::time::Duration;

use crate::api::ownership::Ownership;
use crate::api::rehearsal::{Rehearsed, Shadow};
use crate::domain::{DeadLetterRetention, Error, ErrorKind, Group, RetryPolicy};
use crate::store::{Reading, StartFrom};

/// The settings of a subscription. Every setting has a default.
#[derive(Clone, Debug)]
#[must_use]
pub struct SubscribeOptions {
    pub(crate) group: Option<Group>,
    pub(crate) start: StartFrom,
    pub(crate) concurrency: usize,
    pub(crate) prefetch: Option<usize>,
    pub(crate) batch: (usize, Duration),
    pub(crate) lease: Duration,
    pub(crate) retry: RetryPolicy,
    pub(crate) hold_back: Duration,
    pub(crate) handler_timeout: Option<Duration>,
    pub(crate) handler: Option<String>,
    pub(crate) undecodable_retry: bool,
    pub(crate) dead_letter_retention: DeadLetterRetention,
    pub(crate) reading: Reading,
    /// Set for an owned group.
    pub(crate) ownership: Option<Ownership>,
    /// Set for a shadow group.
    pub(crate) shadow: Option<Shadow>,
}

impl Default for SubscribeOptions {
    fn default() -> Self {
        Self {
            group: None,
            start: StartFrom::Beginning,
            concurrency: 16,
            prefetch: None,
            batch: (100, Duration::from_millis(100)),
            lease: Duration::from_secs(30),
            retry: RetryPolicy::default(),
            hold_back: Duration::from_secs(3),
            handler_timeout: Some(Duration::from_secs(30 * 60)),
            handler: None,
            undecodable_retry: false,
            dead_letter_retention: DeadLetterRetention::forever(),
            reading: Reading::Automatic,
            ownership: None,
            shadow: None,
        }
    }
}

impl SubscribeOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the group; by default the container's service name.
    pub fn with_group(mut self, group: Group) -> Self {
        self.group = Some(group);
        self
    }

    /// Sets where a new group starts; by default at the first entry that the topic holds. An existing
    /// group keeps its position.
    pub fn with_start(mut self, start: StartFrom) -> Self {
        self.start = start;
        self
    }

    /// Sets how many deliveries are handled at once, 1 to 10,000; by default 16. For a
    /// [batch handler](crate::Router::on_batch) it counts batches.
    pub fn with_concurrency(mut self, handlers: usize) -> Self {
        self.concurrency = handlers;
        self
    }

    /// Sets the size of a batch for a [batch handler](crate::Router::on_batch): at most
    /// `messages`, gathered for at most `wait` after the first one. `wait` is at most one minute.
    /// By default 100 messages and 100 milliseconds.
    ///
    /// `messages` times the [concurrency](Self::with_concurrency) is at most 10,000.
    pub fn with_batch(mut self, messages: usize, wait: Duration) -> Self {
        self.batch = (messages, wait);
        self
    }

    /// Sets how many deliveries may wait in this process for a free handler, 1 to 10,000. They are
    /// under a lease, so other processes cannot take them.
    ///
    /// By default the prefetch adapts to the number of deliveries that the handlers finish in 50
    /// milliseconds: at least the concurrency, at most 1,024. Time without a delivery to handle does
    /// not count. While all subscriptions of the container together finish 40,000 deliveries a second
    /// or more, the subscription also pauses for 2 milliseconds after a read that brings fewer than
    /// 400, so that more come together. Deliveries that wait for 5 seconds behind slow handlers go
    /// back to the group, uncounted, so that another process can have them; then the subscription
    /// reads nothing ahead until its handlers finish within a second again. A number set here
    /// disables all three.
    pub fn with_prefetch(mut self, deliveries: usize) -> Self {
        self.prefetch = Some(deliveries);
        self
    }

    /// Sets the lease, 100 milliseconds to one day; by default 30 seconds. The group has one lease:
    /// where its consumers ask for different ones, the longest holds until no consumer that asked
    /// for it is left.
    ///
    /// The subscription extends its leases every third of this time. After a crash, the deliveries of
    /// the process wait until their lease expires; then other consumers reclaim them. Consumers look
    /// for expired leases every quarter of the lease, at least once a second, or every 2 seconds while
    /// they hold no delivery.
    pub fn with_lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Sets the retry policy; by default [`RetryPolicy::default`].
    pub fn with_retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// Sets up to which delay a failed message waits in this process, at most one minute; by default
    /// 3 seconds. Zero sends every retry through the store.
    ///
    /// Such a message stays in flight: the subscription notes the failure in the store, extends the
    /// lease, and runs the handler again when the delay has passed. That costs the server about half
    /// as much as a retry that the store schedules. In return another process cannot take the
    /// retry, and the topic keeps the entry as long as for a slow handler. A shutdown gives the
    /// message back to the group with the rest of its delay. If the process dies, another one
    /// continues when the lease has expired; it knows the number of attempts and not their errors.
    ///
    /// At most 1,024 messages and 8 MiB of a subscription wait so. Beyond that, and for longer delays,
    /// snoozes and messages that this version does not understand, the store schedules the retry.
    pub fn with_hold_back(mut self, longest: Duration) -> Self {
        self.hold_back = longest;
        self
    }

    /// Sets the time limit of an attempt, at least one millisecond; by default 30 minutes.
    /// [`RouteOptions::with_timeout`](crate::handler::RouteOptions::with_timeout) sets another one for
    /// a type of message.
    ///
    /// When the limit has passed, the handler's future is dropped. The attempt fails with the error
    /// `timed out after …` and is retried by the retry policy; its slot is free for other messages.
    /// Without a limit, a handler that waits for ever holds its slot for ever, because the
    /// subscription extends its lease. The limit of a batch handler is for the whole call.
    ///
    /// A future can be dropped only where it awaits: code that blocks its thread runs on.
    pub fn with_handler_timeout(mut self, limit: Duration) -> Self {
        self.handler_timeout = Some(limit);
        self
    }

    /// Sets that an attempt may take any time.
    pub fn without_handler_timeout(mut self) -> Self {
        self.handler_timeout = None;
        self
    }

    /// Sets whether a message that this version does not understand is tried again by the retry
    /// policy: its payload does not decode, or the router has no handler for its type. By default it
    /// goes to the dead letters at its first attempt.
    ///
    /// For rolling deployments: a process of the newer version may understand the message. After the
    /// last attempt it goes to the dead letters as `undecodable` or `unhandled`. An entry whose
    /// envelope does not decode is never tried again.
    pub fn with_undecodable_retry(mut self, retry: bool) -> Self {
        self.undecodable_retry = retry;
        self
    }

    /// Sets the handler's name in dead letters; by default the name of the function or the struct,
    /// or `topic/group` for a closure.
    pub fn with_handler_name(mut self, name: impl Into<String>) -> Self {
        self.handler = Some(name.into());
        self
    }

    /// Sets how long the group keeps its dead letters; by default until an operator moves them out.
    ///
    /// If the consumers of a group differ, the strictest setting wins. Subscribing refuses a limit
    /// out of bounds with [`ErrorKind::Invalid`]. The server's user needs the rights to `XDEL` and
    /// `HEXISTS` on the group's keys, which the shipped consumer role lacks; without them nothing is
    /// removed, and one warning reports it.
    pub fn with_dead_letter_retention(mut self, retention: DeadLetterRetention) -> Self {
        self.dead_letter_retention = retention;
        self
    }

    /// Sets which connection the subscription reads on; by default [`Reading::Automatic`].
    ///
    /// On a connection of its own a message arrives soonest, and the server hands it to one process of
    /// the group only. On the shared connection thousands of subscriptions cost no more connections,
    /// and nothing while no message comes; all processes of the group learn of a message and one gets
    /// it. Where the server does not let the user listen for changes, every subscription reads on a
    /// connection of its own. The memory store has no connections.
    pub fn with_reading(mut self, reading: Reading) -> Self {
        self.reading = reading;
        self
    }

    /// Makes the group an owned group: each partition of the topic has one process at a time, which
    /// handles the messages of a key one after the other, in the order in which they were published.
    ///
    /// Messages of different keys, and those without a key, run at once up to the
    /// [concurrency](Self::with_concurrency). A message that failed waits for its next attempt and holds
    /// back the later messages of its key, unless [`Ownership::letting_pass`] is set; so does a snoozed
    /// one. A process that joins gets its share of the partitions when their handlers have returned. When
    /// a process leaves, its partitions have new owners at once; after a crash, when its lease has ended.
    /// A topic with one partition has one owner, and the other processes stand by.
    ///
    /// The store refuses everything that a former owner writes, [`Effects`](crate::Effects) included;
    /// [`Delivery::fence`](crate::Delivery::fence) gives the same protection to your own data. A group is
    /// owned or shared for ever. The guide [owned groups](crate::docs::owned_groups) has the details.
    ///
    /// Subscribing fails with [`ErrorKind::Refused`] if the group exists and is shared.
    pub fn with_ownership(mut self, ownership: Ownership) -> Self {
        self.ownership = Some(ownership);
        self
    }

    /// Makes the group a shadow group: its handlers run on live traffic, and nothing comes of it.
    ///
    /// **Calls inside a handler cannot be prevented**: [`Bus::publish`](crate::Bus::publish),
    /// [`Publisher`](crate::extract::Publisher), the methods of [`Kv`](crate::Kv) and requests to other
    /// systems do what they always do. Give a shadow group a handler that returns
    /// [`Effects`](crate::Effects) and calls nothing else that writes.
    ///
    /// The store checks the effects that a handler returns, or passes to
    /// [`checkpoint`](crate::Delivery::checkpoint), and writes none of them. A conflict does not run
    /// the handler again. Every message is acknowledged, whatever the handler returns: a failure is
    /// neither tried again nor a dead letter. Only a message that meets back-pressure or a shutdown
    /// comes back. The metric `redstart_rehearsed_total` counts the results;
    /// [`with_rehearsal_observer`](Self::with_rehearsal_observer) sees each of them.
    ///
    /// Give it a [group](Self::with_group) of its own: in the group of real handlers it would take
    /// messages away from them.
    pub fn with_rehearsal(mut self) -> Self {
        self.shadow.get_or_insert_default();
        self
    }

    /// As [`with_rehearsal`](Self::with_rehearsal), and calls a function with the result of each
    /// message. It runs on the worker's task and must not block it.
    pub fn with_rehearsal_observer(
        mut self,
        observe: impl Fn(&Rehearsed) + Send + Sync + 'static,
    ) -> Self {
        self.shadow = Some(Shadow::observed(observe));
        self
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        let bad = |rule: &str| Err(Error::new(ErrorKind::Invalid, "subscribe", rule));
        let count = 1..=10_000;
        if !count.contains(&self.concurrency) {
            return bad("the concurrency must be 1 to 10,000");
        }
        if self
            .prefetch
            .is_some_and(|prefetch| !count.contains(&prefetch))
        {
            return bad("the prefetch must be 1 to 10,000");
        }
        let (messages, wait) = self.batch;
        if messages == 0 || wait > Duration::from_secs(60) {
            return bad("a batch must have at least 1 message and wait at most one minute");
        }
        let lease = Duration::from_millis(100)..=Duration::from_secs(24 * 60 * 60);
        if !lease.contains(&self.lease) {
            return bad("the lease must be 100 milliseconds to one day");
        }
        if self.hold_back > Duration::from_secs(60) {
            return bad("messages may be held back for at most one minute");
        }
        let limit = self.handler_timeout;
        if limit.is_some_and(|limit| limit < Duration::from_millis(1)) {
            return bad("the timeout of a handler must be at least 1 millisecond");
        }
        if let Some(ownership) = &self.ownership {
            ownership.check()?;
        }
        self.dead_letter_retention.check()
    }

    /// Like [`check`](Self::check), for batches.
    pub(crate) fn check_batches(&self) -> Result<(), Error> {
        self.check()?;
        if self.batch.0.saturating_mul(self.concurrency) > 10_000 {
            let rule = format!(
                "a batch's messages times the concurrency, {} times {}, must be at most 10,000",
                self.batch.0, self.concurrency
            );
            return Err(Error::new(ErrorKind::Invalid, "subscribe", rule));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_out_of_bounds_names_its_rule() {
        assert!(SubscribeOptions::new().check().is_ok());
        for (bad, rule) in [
            (SubscribeOptions::new().with_concurrency(0), "concurrency"),
            (SubscribeOptions::new().with_prefetch(0), "prefetch"),
            (SubscribeOptions::new().with_prefetch(10_001), "prefetch"),
            (SubscribeOptions::new().with_lease(Duration::ZERO), "lease"),
            (
                SubscribeOptions::new().with_batch(0, Duration::ZERO),
                "batch",
            ),
            (
                SubscribeOptions::new().with_batch(1, Duration::MAX),
                "batch",
            ),
            (SubscribeOptions::new().with_lease(Duration::MAX), "lease"),
            (
                SubscribeOptions::new().with_handler_timeout(Duration::ZERO),
                "timeout",
            ),
            (
                SubscribeOptions::new().with_hold_back(Duration::from_secs(61)),
                "held back",
            ),
            (
                SubscribeOptions::new()
                    .with_dead_letter_retention(DeadLetterRetention::forever().with_max_count(0)),
                "count",
            ),
        ] {
            let error = bad.check().unwrap_err();
            assert!(error.to_string().contains(rule), "{error}");
        }
        let batches = SubscribeOptions::new().with_batch(1000, Duration::ZERO);
        let error = batches.clone().check_batches().unwrap_err();
        assert!(error.to_string().contains("concurrency"), "{error}");
        assert!(batches.with_concurrency(10).check_batches().is_ok());
    }
}
