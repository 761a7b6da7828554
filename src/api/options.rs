//! How a subscription works.

use std::time::Duration;

use crate::domain::{DeadLetterRetention, Error, ErrorKind, Group, RetryPolicy};
use crate::store::StartFrom;

/// How a subscription works. Every setting has a default.
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
    pub(crate) handler: Option<String>,
    pub(crate) dead_letter_retention: DeadLetterRetention,
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
            handler: None,
            dead_letter_retention: DeadLetterRetention::forever(),
        }
    }
}

impl SubscribeOptions {
    /// All defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the group; by default the container's service name.
    pub fn with_group(mut self, group: Group) -> Self {
        self.group = Some(group);
        self
    }

    /// Sets where a group starts that does not exist yet; by default at the beginning of
    /// what the topic still holds.
    pub fn with_start(mut self, start: StartFrom) -> Self {
        self.start = start;
        self
    }

    /// Sets how many deliveries are handled at once, 1 to 10,000; by default 16. Of a
    /// [batch handler](crate::Bus::subscribe_batch), how many batches.
    pub fn with_concurrency(mut self, handlers: usize) -> Self {
        self.concurrency = handlers;
        self
    }

    /// Sets what a [batch handler](crate::Bus::subscribe_batch) is called with: up to so
    /// many messages, and fewer when `wait`, at most one minute, has passed since the first of them
    /// came; by default 100 and 100 milliseconds. At most 10,000 messages can be in batches at once:
    /// `messages` times the [concurrency](Self::with_concurrency), which is 16 by default.
    pub fn with_batch(mut self, messages: usize, wait: Duration) -> Self {
        self.batch = (messages, wait);
        self
    }

    /// Sets how many deliveries wait for a free handler, 1 to 10,000. They are held under a
    /// lease like those that are handled, and other processes cannot have them.
    ///
    /// By default as many as the handlers have lately finished in 50 milliseconds: at least
    /// as many as are handled at once, at most 1,024. Where they finish more than 60,000 a second a read
    /// that brings less than 400 is followed by a pause of two milliseconds, in which more come
    /// together; a number set here ends that, too.
    pub fn with_prefetch(mut self, deliveries: usize) -> Self {
        self.prefetch = Some(deliveries);
        self
    }

    /// Sets the lease, 100 milliseconds to one day; by default 30 seconds.
    ///
    /// A lease is extended every third of it for as long as the process lives. It is how long
    /// the deliveries of a process that died wait until others take them over: these look every
    /// quarter of their lease, at least once a second, and every 2 seconds while they hold nothing.
    pub fn with_lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Sets how failures are tried again; by default [`RetryPolicy::default`].
    pub fn with_retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// Sets the handler's name in dead letters and traces; by default its type's name.
    pub fn with_handler_name(mut self, name: impl Into<String>) -> Self {
        self.handler = Some(name.into());
        self
    }

    /// Sets how long the group keeps its dead letters; by default until someone takes them out.
    ///
    /// Where the consumers of a group differ, the strictest wins. Bounds out of range are refused when
    /// subscribing ([`ErrorKind::Invalid`]). The server's user needs the right to `XDEL` and
    /// `HEXISTS` in the group's keys, which the consumer role as shipped has not; without it nothing is removed, and a
    /// warning says so once.
    pub fn with_dead_letter_retention(mut self, retention: DeadLetterRetention) -> Self {
        self.dead_letter_retention = retention;
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
            return bad("a batch must be of 1 message at least, within one minute at most");
        }
        let lease = Duration::from_millis(100)..=Duration::from_secs(24 * 60 * 60);
        if !lease.contains(&self.lease) {
            return bad("the lease must be 100 milliseconds to one day");
        }
        self.dead_letter_retention.check()
    }

    /// As [`check`](Self::check), for batches.
    pub(crate) fn check_batches(&self) -> Result<(), Error> {
        self.check()?;
        if self.batch.0.saturating_mul(self.concurrency) > 10_000 {
            let rule = format!(
                "the batch's messages times the concurrency, {} times {}, must be at most 10,000",
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
    fn what_is_out_of_bounds_names_its_rule() {
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
