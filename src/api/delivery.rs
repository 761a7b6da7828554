//! One delivery of an envelope to a consumer.

use std::fmt;
use std::sync::Arc;

use crate::api::Committed;
use crate::api::lease::Lease;
use crate::api::ownership::{Fence, Tenure};
use crate::api::publish::PublishPort;
use crate::domain::{BoxFuture, Effects, EntryId, Envelope, Error, ErrorKind, Group, Topic};
use crate::store::{DeliveryId, Holder, Member, Store};

/// One delivery of an envelope to a consumer. Cheap to clone.
///
/// The value that the handler returns settles the delivery; dropping a `Delivery` does nothing.
#[derive(Clone)]
pub struct Delivery {
    inner: Arc<Inner>,
}

struct Inner {
    envelope: Envelope,
    home: Arc<Home>,
    receipt: DeliveryId,
    origin: EntryId,
    attempt: u32,
    lease: Arc<Lease>,
}

/// The subscription that deliveries come from.
pub(crate) struct Home {
    pub(crate) member: Arc<Member>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) publishing: Arc<dyn PublishPort>,
    pub(crate) effects: Arc<dyn Checkpoint>,
}

/// Commits the effects of a delivery that goes on.
pub(crate) trait Checkpoint: Send + Sync {
    fn checkpoint<'a>(
        &'a self,
        id: DeliveryId,
        lease: &'a Lease,
        effects: &'a Effects,
    ) -> BoxFuture<'a, Result<Committed, Error>>;
}

impl Delivery {
    pub(crate) fn new(
        envelope: Envelope,
        home: Arc<Home>,
        receipt: DeliveryId,
        origin: EntryId,
        attempt: u32,
        lease: Arc<Lease>,
    ) -> Self {
        let inner = Inner {
            envelope,
            home,
            receipt,
            origin,
            attempt,
            lease,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// The message with its metadata.
    #[must_use]
    pub fn envelope(&self) -> &Envelope {
        &self.inner.envelope
    }

    /// The same delivery with another envelope, for middleware that decrypts or rewrites messages: the
    /// middleware after it and the handler see this envelope, and its type finds the handler.
    ///
    /// The store keeps the message as it was published: retries, dead letters and redrives bring the
    /// original envelope back. The name and the retry policy of a route go by the original type.
    #[must_use]
    pub fn with_envelope(self, envelope: Envelope) -> Self {
        let inner = Inner {
            envelope,
            home: Arc::clone(&self.inner.home),
            lease: Arc::clone(&self.inner.lease),
            ..*self.inner
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    pub(crate) fn home(&self) -> &Home {
        &self.inner.home
    }

    /// The topic that the message was published to.
    #[must_use]
    pub fn topic(&self) -> &Topic {
        self.inner.home.member.topic()
    }

    /// The group that the message is delivered to.
    #[must_use]
    pub fn group(&self) -> &Group {
        self.inner.home.member.group()
    }

    /// The id of the message's first entry, in the topic's log; the same at every attempt.
    #[must_use]
    pub fn entry_id(&self) -> EntryId {
        self.inner.origin
    }

    /// The number of this attempt, from 1. Failures and crashes count; a shutdown and a snooze do not.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.inner.attempt
    }

    /// In an owned group, what tells the writes of this process from those of an earlier owner of the
    /// message's partition. `None` in a shared group.
    ///
    /// Write it with your own data, and refuse a write whose token is smaller than the stored one.
    #[must_use]
    pub fn fence(&self) -> Option<Fence> {
        self.inner.lease.tenure().map(Tenure::fence)
    }

    /// Whether the result will be discarded: the lease is lost, or the grace of a shutdown is over.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.inner.lease.is_cancelled()
    }

    /// Notes that the handler was dropped at its time limit.
    pub(crate) fn note_timeout(&self) {
        self.inner.lease.note_timeout();
    }

    pub(crate) fn has_timed_out(&self) -> bool {
        self.inner.lease.has_timed_out()
    }

    /// Completes when [`is_cancelled`](Self::is_cancelled) becomes true.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn cancelled(&self) {
        self.inner.lease.cancelled().await;
    }

    /// Writes effects now, in one step, all or none, and keeps the delivery: for a handler that takes
    /// long and must not repeat its first steps.
    ///
    /// The store writes them only while this consumer holds the message. When the message is
    /// delivered again, the handler runs from its beginning: let it read how far it came, such as
    /// with a key that the checkpoint writes.
    ///
    /// If the connection fails, the call repeats the commit until the store answers.
    ///
    /// # Errors
    ///
    /// Those of [`Container::commit`](crate::Container::commit), and [`ErrorKind::LeaseLost`] if
    /// another consumer holds the message; nothing was written then.
    ///
    /// # Cancel safety
    ///
    /// After the future is dropped the effects may or may not be written, all or none.
    pub async fn checkpoint(&self, effects: Effects) -> Result<Committed, Error> {
        let inner = &self.inner;
        let port = &inner.home.effects;
        port.checkpoint(inner.receipt, &inner.lease, &effects).await
    }

    /// Restarts the lease now. The subscription does this every third of the lease; call it before
    /// the handler blocks its thread.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LeaseLost`] if another consumer holds the message, and the kinds of the
    /// connection.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future may leave the lease extended.
    pub async fn extend_lease(&self) -> Result<(), Error> {
        let inner = &self.inner;
        if inner.lease.is_only_copy() {
            return Ok(());
        }
        let holders = inner
            .home
            .store
            .deliveries()
            .extend(&inner.home.member, &[inner.receipt])
            .await?;
        match holders.first() {
            Some(Holder::Member) => return Ok(()),
            // Nobody else can have the message.
            Some(Holder::Trimmed) => {
                inner.lease.keep_only_copy();
                return Ok(());
            }
            _ => {}
        }
        let rule = "another consumer holds the message";
        Err(Error::new(ErrorKind::LeaseLost, "extend lease", rule)
            .on(inner.home.member.to_string()))
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("topic", self.topic())
            .field("group", self.group())
            .field("entry", &self.inner.origin)
            .field("attempt", &self.inner.attempt)
            .field("envelope", &self.inner.envelope.id())
            .finish_non_exhaustive()
    }
}
