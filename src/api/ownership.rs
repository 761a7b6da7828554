//! Owned groups as users see them: the setting of a subscription, and the fence of a delivery.

use std::fmt;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::domain::{Error, ErrorKind};

/// How a subscription owns partitions: see
/// [`with_ownership`](super::SubscribeOptions::with_ownership).
#[derive(Clone, Debug, Eq, PartialEq)]
#[must_use]
pub struct Ownership {
    pub(crate) lease: Duration,
    pub(crate) lets_pass: bool,
    pub(crate) handover: Duration,
}

impl Default for Ownership {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(5),
            lets_pass: false,
            handover: Duration::from_secs(30),
        }
    }
}

impl Ownership {
    /// The defaults: a lease of 5 seconds, and a failed message holds back its key.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets for how long a process owns its partitions without a sign of life, 500 milliseconds to one
    /// minute; by default 5 seconds. After a crash, its partitions wait for the end of this lease.
    /// A process renews it every fifth of this time.
    pub fn with_lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Sets how long a partition that another process is to get waits for its running handlers; by
    /// default 30 seconds, and more than 0. After this time this process cancels the handlers, as after a
    /// lost lease, and each of their messages has had one attempt.
    pub fn with_handover(mut self, handover: Duration) -> Self {
        self.handover = handover;
        self
    }

    /// Lets the later messages of a key pass a message that failed. It comes back through the store,
    /// after its delay and behind them.
    pub fn letting_pass(mut self) -> Self {
        self.lets_pass = true;
        self
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.handover.is_zero() {
            let rule = "the time for a handover must be more than 0";
            return Err(Error::new(ErrorKind::Invalid, "subscribe", rule));
        }
        let lease = Duration::from_millis(500)..=Duration::from_secs(60);
        if lease.contains(&self.lease) {
            return Ok(());
        }
        let rule = "the lease of an owned group must be 500 milliseconds to one minute";
        Err(Error::new(ErrorKind::Invalid, "subscribe", rule))
    }
}

/// What tells the writes of a partition's owner from those of an earlier one.
///
/// Each new owner of a partition has a greater token. A token is at least the time of the store's clock in
/// microseconds. Keep the greatest token that has written beside your own data, one for each topic, group
/// and partition, and refuse a write with a smaller one: a process that was suspended and comes back can
/// then change nothing.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub struct Fence {
    /// The number of the message's partition.
    pub partition: u16,
    /// The token of its owner.
    pub token: u64,
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.partition, self.token)
    }
}

/// The time in which a process owns a partition under one token.
///
/// It ends early enough that no other process can own the partition yet. Once it has ended it does not
/// begin again: the process takes the partition again, under another token.
#[derive(Debug)]
pub(crate) struct Tenure {
    fence: Fence,
    /// `None` once it has ended.
    until: Mutex<Option<Instant>>,
    ended: Notify,
}

impl Tenure {
    pub(crate) fn new(fence: Fence, until: Instant) -> Self {
        Self {
            fence,
            until: Mutex::new(Some(until)),
            ended: Notify::new(),
        }
    }

    pub(crate) fn fence(&self) -> Fence {
        self.fence
    }

    /// When it ends without a renewal; `None` once it has ended.
    pub(crate) fn until(&self) -> Option<Instant> {
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        if until.is_some_and(|until| Instant::now() >= until) {
            *until = None;
        }
        *until
    }

    pub(crate) fn is_over(&self) -> bool {
        self.until().is_none()
    }

    /// Renews it. Returns false where it has ended.
    pub(crate) fn renew(&self, to: Instant) -> bool {
        if self.is_over() {
            return false;
        }
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        *until = until.map(|until| until.max(to));
        until.is_some()
    }

    pub(crate) fn end(&self) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenure_that_has_ended_is_not_renewed() {
        let (now, hour) = (Instant::now(), Duration::from_secs(3600));
        let fence = Fence {
            partition: 3,
            token: 7,
        };
        let tenure = Tenure::new(fence, now + hour);
        assert!(tenure.renew(now), "an earlier end changes nothing");
        assert_eq!(tenure.until(), Some(now + hour));
        assert!(tenure.renew(now + 2 * hour));
        assert_eq!(tenure.until(), Some(now + 2 * hour));
        tenure.end();
        assert!(tenure.is_over() && !tenure.renew(now + 3 * hour));
        let late = Tenure::new(fence, now);
        assert!(late.is_over() && !late.renew(now + hour) && late.is_over());
    }

    #[test]
    fn a_lease_out_of_bounds_is_refused() {
        for (millis, fits) in [(499, false), (500, true), (60_000, true), (60_001, false)] {
            let options = Ownership::new().with_lease(Duration::from_millis(millis));
            assert_eq!(options.check().is_ok(), fits, "{millis}");
        }
        let options = Ownership::new().with_handover(Duration::ZERO);
        assert_eq!(options.check().unwrap_err().kind(), ErrorKind::Invalid);
    }
}
