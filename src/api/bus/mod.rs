//! The message bus.

mod later;

use std::fmt;
use std::future::ready;
use std::sync::Arc;

use serde::Serialize;

use crate::api::handler::{Message, RawBatchHandler, RawHandler, Work, message};
use crate::api::publish::{PublishOptions, Published};
use crate::api::{IntoRouter, SubscribeOptions, Subscription};
use crate::domain::BoxFuture;
use crate::domain::{
    Envelope, Error, ScheduleId, ScheduleOptions, Scheduled, Timestamp, Topic, When,
};
use crate::store::Partition;

/// The object-safe port behind a [`Bus`], for decorators.
///
/// Delivery is at least once: every group gets each published message until it settles the message,
/// possibly more than once.
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

    /// Schedules messages for later, all for the same time. See [`Bus::publish_later`].
    fn publish_later<'a>(
        &'a self,
        topic: &'a Topic,
        envelopes: &'a [Envelope],
        due: When,
        options: &'a ScheduleOptions,
    ) -> BoxFuture<'a, Vec<Result<Scheduled, Error>>>;

    /// Cancels a message for later. See [`Bus::cancel`].
    fn cancel<'a>(
        &'a self,
        topic: &'a Topic,
        id: &'a ScheduleId,
    ) -> BoxFuture<'a, Result<bool, Error>>;

    /// Changes when the messages for later with an id are due, in a topic or in one of its partitions.
    /// Returns the new time of each. See [`Bus::reschedule`].
    fn reschedule<'a>(
        &'a self,
        at: &'a Partition,
        id: &'a ScheduleId,
        due: When,
    ) -> BoxFuture<'a, Result<Vec<Timestamp>, Error>>;

    /// The options with which a subscription starts: operators' settings win over code. A decorator
    /// passes this call on; by default the options stay as they are.
    fn configured(&self, topic: &Topic, options: SubscribeOptions) -> SubscribeOptions {
        let _ = topic;
        options
    }

    /// Subscribes a handler in its object-safe form. See [`Bus::subscribe`].
    fn subscribe_raw<'a>(
        &'a self,
        topic: &'a Topic,
        options: SubscribeOptions,
        handler: Arc<dyn RawHandler>,
    ) -> BoxFuture<'a, Result<Subscription, Error>>;

    /// Subscribes a batch handler in its object-safe form. See
    /// [`Router::on_batch`](crate::Router::on_batch).
    fn subscribe_batch_raw<'a>(
        &'a self,
        topic: &'a Topic,
        options: SubscribeOptions,
        handler: Arc<dyn RawBatchHandler>,
    ) -> BoxFuture<'a, Result<Subscription, Error>>;
}

/// The message bus. Cheap to clone.
///
/// Delivery is at least once: every group gets each published message until it settles the message,
/// possibly more than once.
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
    /// | Kind | What it means | Published? |
    /// |---|---|---|
    /// | [`OutcomeUnknown`](crate::ErrorKind::OutcomeUnknown) | the connection failed after the request was sent | maybe |
    /// | [`BacklogFull`](crate::ErrorKind::BacklogFull) | the topic's backlog limit is reached | no |
    /// | [`TooLarge`](crate::ErrorKind::TooLarge), [`Encode`](crate::ErrorKind::Encode) | the message breaks the rule that the error names | no |
    /// | [`Unavailable`](crate::ErrorKind::Unavailable) | the server could not be reached or is not ready | no |
    /// | [`Refused`](crate::ErrorKind::Refused) | the server refused: missing permission, memory full | no |
    /// | [`Invalid`](crate::ErrorKind::Invalid) | a [publish hook](crate::middleware::PublishHook) refused the message | no |
    /// | [`Closed`](crate::ErrorKind::Closed) | the container was shut down | no |
    ///
    /// The error describes this call only: an earlier attempt may have succeeded.
    ///
    /// # Cancel safety
    ///
    /// After the future is dropped the message may or may not have been published.
    pub async fn publish(&self, topic: &Topic, envelope: &Envelope) -> Result<Published, Error> {
        self.port.publish(topic, envelope).await
    }

    /// Publishes a message with options. See [`publish`](Self::publish).
    ///
    /// # Errors
    ///
    /// As for [`publish`](Self::publish), and [`Invalid`](crate::ErrorKind::Invalid) for an option out
    /// of bounds.
    ///
    /// # Cancel safety
    ///
    /// As for [`publish`](Self::publish).
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

    /// Publishes messages in their order, batched. Returns one result for each message, in the same
    /// order, with the errors of [`publish`](Self::publish).
    ///
    /// # Cancel safety
    ///
    /// After the future is dropped any number of messages, from the first on, may have been published.
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
    /// With deduplication, the messages after a failed one fail as certainly not published, so that
    /// publishing the rest again keeps the order.
    ///
    /// # Cancel safety
    ///
    /// As for [`publish_all`](Self::publish_all).
    pub async fn publish_all_with(
        &self,
        topic: &Topic,
        envelopes: &[Envelope],
        options: PublishOptions,
    ) -> Vec<Result<Published, Error>> {
        self.port.publish_all_with(topic, envelopes, options).await
    }

    /// Publishes a message under its [type](Message::TYPE), with its [key](Message::key). When this
    /// returns `Ok`, the store has it.
    ///
    /// To set a tenant, a header or an id, make an [`Envelope`] and [`publish`](Self::publish) it.
    ///
    /// # Errors
    ///
    /// As for [`publish`](Self::publish).
    ///
    /// # Cancel safety
    ///
    /// As for [`publish`](Self::publish).
    ///
    /// # Example
    ///
    /// ```
    /// use redstart::{Container, Message, Topic};
    /// use serde::Serialize;
    ///
    /// const ORDERS: Topic = Topic::from_static("orders");
    ///
    /// #[derive(Serialize)]
    /// struct Placed {
    ///     id: u32,
    /// }
    ///
    /// impl Message for Placed {
    ///     const TYPE: &'static str = "order.placed";
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), redstart::Error> {
    /// let bus = Container::in_memory().await?.bus();
    /// bus.send(&ORDERS, &Placed { id: 7 }).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn send<'a, T: Message + Serialize>(
        &'a self,
        topic: &'a Topic,
        message: &T,
    ) -> BoxFuture<'a, Result<Published, Error>> {
        let envelope = message::envelope(message);
        Box::pin(async move { self.publish(topic, &envelope?).await })
    }

    /// Publishes a message under its type with options. See [`send`](Self::send).
    ///
    /// Each call makes an envelope with an id of its own. To repeat a publish and have the repeat
    /// recognised, publish the same [`Envelope`] again with [`publish_with`](Self::publish_with).
    ///
    /// # Errors
    ///
    /// As for [`publish_with`](Self::publish_with).
    ///
    /// # Cancel safety
    ///
    /// As for [`publish`](Self::publish).
    pub fn send_with<'a, T: Message + Serialize>(
        &'a self,
        topic: &'a Topic,
        message: &T,
        options: PublishOptions,
    ) -> BoxFuture<'a, Result<Published, Error>> {
        let envelope = message::envelope(message);
        Box::pin(async move { self.publish_with(topic, &envelope?, options).await })
    }

    /// Publishes messages of one type in their order, batched. Returns one result for each message, in
    /// the same order. A message that cannot be encoded fails alone.
    ///
    /// # Cancel safety
    ///
    /// As for [`publish_all`](Self::publish_all).
    pub fn send_all<'a, T: Message + Serialize>(
        &'a self,
        topic: &'a Topic,
        messages: &[T],
    ) -> BoxFuture<'a, Vec<Result<Published, Error>>> {
        let mut refused = Vec::new();
        let mut envelopes = Vec::with_capacity(messages.len());
        for (at, message) in messages.iter().enumerate() {
            match message::envelope(message) {
                Ok(envelope) => envelopes.push(envelope),
                Err(error) => refused.push((at, error)),
            }
        }
        Box::pin(async move {
            let mut results = self.publish_all(topic, &envelopes).await;
            // In ascending order, so each place is that among all messages.
            for (at, error) in refused {
                results.insert(at, Err(error));
            }
            results
        })
    }

    /// Subscribes a handler to a topic, in the group named after the service.
    ///
    /// A handler is an async function, a [`Handler`](crate::Handler), or a [`Router`](crate::Router) of
    /// several. A function that takes a [`Message`] handles the messages of its type; every other
    /// message of the topic goes to the dead letters as
    /// [`Unhandled`](crate::dead_letters::Reason::Unhandled). A function that takes
    /// [`Payload`](crate::extract::Payload), or no payload, handles every message.
    ///
    /// Returns when the group exists and reading has begun. A new group starts at the first entry that
    /// the topic holds, so it gets the messages that were published before.
    ///
    /// # Errors
    ///
    /// [`AlreadySubscribed`](crate::ErrorKind::AlreadySubscribed) if this container already has a
    /// subscription to the topic under the same group; of concurrent calls exactly one wins. Use two
    /// groups ([`SubscribeOptions::with_group`]) for two handlers that must both get every message,
    /// and [`SubscribeOptions::with_concurrency`] for more handlers in one group. Also
    /// [`Closed`](crate::ErrorKind::Closed) and the kinds of the connection.
    ///
    /// # Cancel safety
    ///
    /// After the future is dropped the group may exist; no message has been read.
    ///
    /// # Example
    ///
    /// ```no_run
    /// use redstart::{Bus, Delivery, Error, Message, Topic};
    /// use serde::{Deserialize, Serialize};
    ///
    /// const ORDERS: Topic = Topic::from_static("orders");
    ///
    /// #[derive(Serialize, Deserialize)]
    /// struct Placed {
    ///     cents: u64,
    /// }
    ///
    /// impl Message for Placed {
    ///     const TYPE: &'static str = "order.placed";
    /// }
    ///
    /// async fn bill(order: Placed, delivery: Delivery) {
    ///     println!("{} for {}", order.cents, delivery.envelope().id());
    /// }
    ///
    /// # async fn run(bus: &Bus) -> Result<(), Error> {
    /// bus.subscribe(&ORDERS, bill).await?;
    /// bus.send(&ORDERS, &Placed { cents: 1250 }).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn subscribe<'a, Marker, H: IntoRouter<Marker>>(
        &'a self,
        topic: &'a Topic,
        handler: H,
    ) -> BoxFuture<'a, Result<Subscription, Error>> {
        self.subscribe_with(topic, SubscribeOptions::default(), handler)
    }

    /// Subscribes a handler with options. See [`subscribe`](Self::subscribe).
    ///
    /// # Errors
    ///
    /// As for [`subscribe`](Self::subscribe), and [`Invalid`](crate::ErrorKind::Invalid) for an
    /// option out of bounds.
    pub fn subscribe_with<'a, Marker, H: IntoRouter<Marker>>(
        &'a self,
        topic: &'a Topic,
        options: SubscribeOptions,
        handler: H,
    ) -> BoxFuture<'a, Result<Subscription, Error>> {
        let options = self.port.configured(topic, options);
        match handler.into_work(options.handler_timeout) {
            Ok(Work::Each(handler)) => self.port.subscribe_raw(topic, options, handler),
            Ok(Work::Batches(handler)) => self.port.subscribe_batch_raw(topic, options, handler),
            Err(error) => Box::pin(ready(Err(error.on(topic.as_str())))),
        }
    }
}

/// For deliveries that tests build by hand.
#[cfg(feature = "testing")]
impl crate::api::publish::PublishPort for Bus {
    fn publish_all_with<'a>(
        &'a self,
        topic: &'a Topic,
        envelopes: &'a [Envelope],
        options: PublishOptions,
    ) -> BoxFuture<'a, Vec<Result<Published, Error>>> {
        self.port.publish_all_with(topic, envelopes, options)
    }
}
