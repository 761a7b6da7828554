//! The message bus.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::api::{
    Delivery, IntoHandler, RawBatchHandler, RawHandler, SubscribeOptions, Subscription,
    batch_handler,
};
use crate::domain::BoxFuture;
use crate::domain::{EntryId, Envelope, Error, ErrorKind, IntoOutcomes, RetryPolicy, Topic};

/// What became of a message that was published.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Published {
    /// The id of its entry in the topic.
    pub id: EntryId,
    /// Whether the entry was there already, from an earlier call or from an earlier try of this
    /// one, and nothing was added. Always `false` without
    /// [deduplication](PublishOptions::with_deduplication).
    pub duplicate: bool,
}

/// How a message is published.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[must_use]
pub struct PublishOptions {
    /// `None` is what the bus does by default.
    deduplication: Option<Option<Duration>>,
    /// What the message is, where its envelope's id does not tell.
    instance: Option<Uuid>,
}

impl PublishOptions {
    /// What the bus does by default.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds nothing where the topic was given a message with the same envelope id, with
    /// deduplication, less than `window` ago: the publish returns the first entry's id and
    /// `duplicate: true`. By default as the container was
    /// [told](crate::container::ContainerBuilder::with_deduplication).
    ///
    /// Checking and adding are one atomic step on the server, whose clock the window goes by:
    /// from 1 millisecond to 30 days, in whole milliseconds. It is remembered even when the
    /// entry has been settled and removed. Publishers of one topic should use one window: a repeat is
    /// certainly recognised within the shorter of the first publish's and its own.
    ///
    /// And so the bus itself repeats what it cannot tell the fate of: up to 4 times, after 0.1 s,
    /// 0.2 s, 0.4 s and 0.8 s, each spread by half, within the first half of the window. Only when that
    /// is of no use the publish ends in [`OutcomeUnknown`](crate::ErrorKind::OutcomeUnknown).
    /// Choose a window that is longer than the outages to be survived: minutes.
    pub fn with_deduplication(mut self, window: Duration) -> Self {
        self.deduplication = Some(Some(window));
        self
    }

    /// Adds the message whatever was published before, also where the container deduplicates.
    pub fn without_deduplication(mut self) -> Self {
        self.deduplication = Some(None);
        self
    }

    /// As [`with_deduplication`](Self::with_deduplication), but what the topic must not have been given
    /// is this instance of the message, whatever else was published with its envelope's id.
    pub(crate) fn with_instance(mut self, instance: Uuid, window: Duration) -> Self {
        self.instance = Some(instance);
        self.with_deduplication(window)
    }

    /// By what a repeat of a message is recognised.
    pub(crate) fn identity(self, envelope: &Envelope) -> Uuid {
        self.instance.unwrap_or_else(|| envelope.id())
    }

    /// The window, where the bus has this one by default.
    pub(crate) fn window(self, default: Option<Duration>) -> Result<Option<Duration>, Error> {
        let window = self.deduplication.unwrap_or(default);
        match window {
            Some(window)
                if !(Duration::from_millis(1)..=RetryPolicy::MAX_DELAY).contains(&window) =>
            {
                let rule = format!("a deduplication window is 1 ms to 30 days, not {window:?}");
                Err(Error::new(ErrorKind::Invalid, "publish", rule))
            }
            window => Ok(window),
        }
    }
}

/// The object-safe port behind a [`Bus`], for decorators.
///
/// Delivery is at least once: a published message reaches every group until the group settles it,
/// and it can arrive more than once.
pub trait MessageBus: Send + Sync + fmt::Debug {
    /// Publishes a message. See [`Bus::publish`].
    fn publish<'a>(
        &'a self,
        topic: &'a Topic,
        envelope: &'a Envelope,
    ) -> BoxFuture<'a, Result<Published, Error>>;

    /// Publishes a message with options. See [`Bus::publish_with`].
    fn publish_with<'a>(
        &'a self,
        topic: &'a Topic,
        envelope: &'a Envelope,
        options: PublishOptions,
    ) -> BoxFuture<'a, Result<Published, Error>>;

    /// Publishes messages in their order, batched. See [`Bus::publish_all`].
    fn publish_all<'a>(
        &'a self,
        topic: &'a Topic,
        envelopes: &'a [Envelope],
    ) -> BoxFuture<'a, Vec<Result<Published, Error>>>;

    /// Publishes messages with options, in their order. See [`Bus::publish_all_with`].
    fn publish_all_with<'a>(
        &'a self,
        topic: &'a Topic,
        envelopes: &'a [Envelope],
        options: PublishOptions,
    ) -> BoxFuture<'a, Vec<Result<Published, Error>>>;

    /// Subscribes a handler in its object-safe form. See [`Bus::subscribe`].
    fn subscribe_raw<'a>(
        &'a self,
        topic: &'a Topic,
        options: SubscribeOptions,
        handler: Arc<dyn RawHandler>,
    ) -> BoxFuture<'a, Result<Subscription, Error>>;

    /// Subscribes a batch handler in its object-safe form. See [`Bus::subscribe_batch`].
    fn subscribe_batch_raw<'a>(
        &'a self,
        topic: &'a Topic,
        options: SubscribeOptions,
        handler: Arc<dyn RawBatchHandler>,
    ) -> BoxFuture<'a, Result<Subscription, Error>>;
}

/// The message bus. Cheap to clone.
///
/// Delivery is at least once: a published message reaches every group until the group settles it,
/// and it can arrive more than once.
///
/// A `Bus` wraps the object-safe [`MessageBus`]. To add behaviour to every call, implement
/// `MessageBus` around [`port`](Self::port) and build a `Bus` from it.
#[derive(Clone, Debug)]
pub struct Bus {
    port: Arc<dyn MessageBus>,
}

impl From<Arc<dyn MessageBus>> for Bus {
    fn from(port: Arc<dyn MessageBus>) -> Self {
        Self { port }
    }
}

impl Bus {
    /// The object-safe bus behind this one, for decorators.
    #[must_use]
    pub fn port(&self) -> &Arc<dyn MessageBus> {
        &self.port
    }

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
    /// This is told of the one call. Of a repeat, "was not" says nothing of the calls before it.
    ///
    /// # Cancel safety
    ///
    /// The message may have been published when the future is dropped.
    pub async fn publish(&self, topic: &Topic, envelope: &Envelope) -> Result<Published, Error> {
        self.port.publish(topic, envelope).await
    }

    /// Publishes a message with options. See [`publish`](Self::publish).
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish), and [`Invalid`](crate::ErrorKind::Invalid) for an option out
    /// of its bounds.
    ///
    /// # Cancel safety
    ///
    /// As [`publish`](Self::publish).
    ///
    /// # Example
    ///
    /// ```
    /// use std::time::Duration;
    /// use redstart::{Container, Envelope, PublishOptions, Topic};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), redstart::Error> {
    /// let bus = Container::in_memory().await?.bus();
    /// let orders = Topic::new("orders")?;
    /// let envelope = Envelope::new("order.placed", &1250)?;
    /// let once = PublishOptions::new().with_deduplication(Duration::from_secs(600));
    /// let first = bus.publish_with(&orders, &envelope, once).await?;
    /// let again = bus.publish_with(&orders, &envelope, once).await?;
    /// assert!(again.duplicate && again.id == first.id);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn publish_with(
        &self,
        topic: &Topic,
        envelope: &Envelope,
        options: PublishOptions,
    ) -> Result<Published, Error> {
        self.port.publish_with(topic, envelope, options).await
    }

    /// Publishes messages in their order, batched. The result of each, in the same order.
    ///
    /// # Cancel safety
    ///
    /// Any number of them, from the first on, may have been published when the future is dropped.
    pub async fn publish_all(
        &self,
        topic: &Topic,
        envelopes: &[Envelope],
    ) -> Vec<Result<Published, Error>> {
        self.port.publish_all(topic, envelopes).await
    }

    /// Publishes messages in their order, batched, with options. See
    /// [`publish_all`](Self::publish_all).
    ///
    /// With deduplication, after a message that failed those that follow fail as certainly not published,
    /// so that a repeat of the rest keeps the order.
    ///
    /// # Cancel safety
    ///
    /// As [`publish_all`](Self::publish_all).
    pub async fn publish_all_with(
        &self,
        topic: &Topic,
        envelopes: &[Envelope],
        options: PublishOptions,
    ) -> Vec<Result<Published, Error>> {
        self.port.publish_all_with(topic, envelopes, options).await
    }

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
    /// use redstart::{Bus, Delivery, Envelope, Error, Topic};
    ///
    /// # async fn run(bus: &Bus) -> Result<(), Error> {
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
    pub fn subscribe<'a, M, H: IntoHandler<M>>(
        &'a self,
        topic: &'a Topic,
        handler: H,
    ) -> BoxFuture<'a, Result<Subscription, Error>> {
        self.port
            .subscribe_raw(topic, SubscribeOptions::default(), handler.into_handler())
    }

    /// Subscribes a handler with options. See [`subscribe`](Self::subscribe).
    ///
    /// # Errors
    ///
    /// As [`subscribe`](Self::subscribe), and [`Invalid`](crate::ErrorKind::Invalid) for an
    /// option out of its bounds.
    pub fn subscribe_with<'a, M, H: IntoHandler<M>>(
        &'a self,
        topic: &'a Topic,
        options: SubscribeOptions,
        handler: H,
    ) -> BoxFuture<'a, Result<Subscription, Error>> {
        self.port
            .subscribe_raw(topic, options, handler.into_handler())
    }

    /// Subscribes a handler that takes many messages at once, as sinks want them that write in bulk.
    ///
    /// It is called with up to as many messages as [`with_batch`](SubscribeOptions::with_batch) says,
    /// or fewer when it has waited for long enough, in the order in which they came: a quiet topic's
    /// batches are of one. It returns `()` or a `Result` for all of them, or a `Vec` with an outcome
    /// for each, in their order ([`IntoOutcomes`]).
    /// Every message is its own delivery as with [`subscribe`](Self::subscribe): it is settled,
    /// retried and dead-lettered by itself, and its lease is extended while its batch is gathered and
    /// handled. A payload that is no `T` goes to the dead letters, and the others to the handler. A
    /// shutdown gives back what no call has begun with, also where a batch was being gathered, and drops
    /// a call that has not returned by its deadline.
    ///
    /// An error, a panic, or a `Vec` of the wrong length fails every message of the batch: each has lost an
    /// attempt, also those whose neighbour was the reason, and at its last attempt each goes to the dead
    /// letters. Where messages can fail by themselves, return an outcome for each.
    ///
    /// # Errors
    ///
    /// As [`subscribe_with`](Self::subscribe_with).
    ///
    /// # Cancel safety
    ///
    /// As [`subscribe`](Self::subscribe).
    ///
    /// # Example
    ///
    /// ```
    /// use std::time::Duration;
    /// use redstart::{Container, Delivery, Outcome, SubscribeOptions, Topic};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), redstart::Error> {
    /// # let container = Container::in_memory().await?;
    /// # let bus = container.bus();
    /// let clicks = Topic::new("clicks")?;
    /// let options = SubscribeOptions::new()
    ///     .with_batch(500, Duration::from_secs(1))
    ///     .with_concurrency(2);
    /// let subscription = bus
    ///     .subscribe_batch(&clicks, options, |batch: Vec<(String, Delivery)>| async move {
    ///         // One insert for all of them; what its check has found bad is not tried again.
    ///         let outcome = |(page, _): &(String, Delivery)| match page.starts_with('/') {
    ///             true => Outcome::Ack,
    ///             false => Outcome::dead_letter("no path"),
    ///         };
    ///         batch.iter().map(outcome).collect::<Vec<_>>()
    ///     })
    ///     .await?;
    /// # drop(subscription);
    /// # Ok(())
    /// # }
    /// ```
    pub fn subscribe_batch<'a, T, F, Fut>(
        &'a self,
        topic: &'a Topic,
        options: SubscribeOptions,
        handler: F,
    ) -> BoxFuture<'a, Result<Subscription, Error>>
    where
        F: Fn(Vec<(T, Delivery)>) -> Fut + Send + Sync + 'static,
        T: DeserializeOwned + Send + 'static,
        Fut: Future + Send,
        Fut::Output: IntoOutcomes,
    {
        self.port
            .subscribe_batch_raw(topic, options, batch_handler(handler))
    }
}
