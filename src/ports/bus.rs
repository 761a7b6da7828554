//! The message bus.

use std::fmt;
use std::sync::Arc;

use super::BoxFuture;
use crate::consumer::{IntoHandler, RawHandler, SubscribeOptions, Subscription};
use crate::domain::{EntryId, Envelope, Error, Topic};

/// What became of a message that was published.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Published {
    /// The id of its entry in the topic.
    pub id: EntryId,
    /// Whether the entry was there already. Always `false` until deduplication is built.
    pub duplicate: bool,
}

impl Published {
    pub(crate) fn new(id: EntryId) -> Self {
        Self {
            id,
            duplicate: false,
        }
    }
}

/// A durable message bus; [`MessageBusExt`] adds what is generic.
///
/// Delivery is at least once: a message that was published comes to every group until the group has
/// settled it, and it may come more than once.
pub trait MessageBus: Send + Sync + fmt::Debug {
    /// Publishes a message. When this returns `Ok`, the store has it.
    ///
    /// # Errors
    ///
    /// | Kind | What it means |
    /// |---|---|
    /// | [`OutcomeUnknown`](crate::ErrorKind::OutcomeUnknown) | it may have been published |
    /// | [`BacklogFull`](crate::ErrorKind::BacklogFull) | it was not: the topic's backlog limit is reached |
    /// | [`TooLarge`](crate::ErrorKind::TooLarge), [`Encode`](crate::ErrorKind::Encode) | it was not: the message breaks a rule |
    /// | [`Unavailable`](crate::ErrorKind::Unavailable), [`Refused`](crate::ErrorKind::Refused) | it was not: the server cannot or does not want to |
    ///
    /// # Cancel safety
    ///
    /// The message may have been published when the future is dropped.
    fn publish<'a>(
        &'a self,
        topic: &'a Topic,
        envelope: &'a Envelope,
    ) -> BoxFuture<'a, Result<Published, Error>>;

    /// Publishes messages in their order, batched. The result of each, in the same order.
    ///
    /// # Cancel safety
    ///
    /// Any number of them, from the first on, may have been published when the future is dropped.
    fn publish_all<'a>(
        &'a self,
        topic: &'a Topic,
        envelopes: &'a [Envelope],
    ) -> BoxFuture<'a, Vec<Result<Published, Error>>>;

    /// Subscribes a handler in its object-safe form. See [`MessageBusExt::subscribe`].
    fn subscribe_raw<'a>(
        &'a self,
        topic: &'a Topic,
        options: SubscribeOptions,
        handler: Arc<dyn RawHandler>,
    ) -> BoxFuture<'a, Result<Subscription, Error>>;
}

/// What is generic about a [`MessageBus`].
pub trait MessageBusExt: MessageBus {
    /// Subscribes a handler to a topic, in the group named after the service.
    ///
    /// Returns when the group exists and reading has begun. A group that is new starts at the
    /// beginning of what the topic holds, so nothing that was published before is missed.
    ///
    /// # Errors
    ///
    /// [`AlreadySubscribed`](crate::ErrorKind::AlreadySubscribed) when this container has a
    /// subscription to the topic under the same group: of concurrent calls exactly one wins.
    /// Two handlers that must both see every message are two groups
    /// ([`SubscribeOptions::with_group`]); more handlers for one group is
    /// [`SubscribeOptions::with_concurrency`].
    ///
    /// # Cancel safety
    ///
    /// The group may have been created when the future is dropped; nothing is read.
    ///
    /// # Example
    ///
    /// ```no_run
    /// use redstart::{Delivery, Envelope, Error, MessageBus, Topic, prelude::*};
    ///
    /// # async fn run(bus: &dyn MessageBus) -> Result<(), Error> {
    /// let orders = Topic::new("orders")?;
    /// let subscription = bus
    ///     .subscribe(&orders, |cents: u64, delivery: Delivery| async move {
    ///         println!("{cents} for {}", delivery.envelope().id());
    ///     })
    ///     .await?;
    /// bus.publish(&orders, &Envelope::new("order.placed", &1250)?).await?;
    /// # drop(subscription);
    /// # Ok(())
    /// # }
    /// ```
    fn subscribe<'a, M, H: IntoHandler<M>>(
        &'a self,
        topic: &'a Topic,
        handler: H,
    ) -> BoxFuture<'a, Result<Subscription, Error>> {
        self.subscribe_raw(topic, SubscribeOptions::default(), handler.into_handler())
    }

    /// Subscribes a handler with options. See [`subscribe`](Self::subscribe).
    ///
    /// # Errors
    ///
    /// As [`subscribe`](Self::subscribe), and [`Invalid`](crate::ErrorKind::Invalid) for an
    /// option out of its bounds.
    fn subscribe_with<'a, M, H: IntoHandler<M>>(
        &'a self,
        topic: &'a Topic,
        options: SubscribeOptions,
        handler: H,
    ) -> BoxFuture<'a, Result<Subscription, Error>> {
        self.subscribe_raw(topic, options, handler.into_handler())
    }
}

impl<B: MessageBus + ?Sized> MessageBusExt for B {}
