//! Publishing from a handler, with the metadata of the delivery that caused it.

use std::future::ready;
use std::slice;
use std::sync::Arc;

use serde::Serialize;

use super::delivery::Delivery;
use super::handler::{FromDelivery, Message};
use super::publish::{PublishOptions, Published};
use crate::domain::{BoxFuture, Envelope, Error, ErrorKind, Topic};

/// Publishes from a handler, on the bus that the delivery came from. An extractor.
///
/// Each message gets the correlation id, the tenant, and the `traceparent` and `tracestate` headers of
/// the delivery. The container's [publish hooks](crate::middleware::PublishHook) run. A bus that decorates the
/// container's ([`ports`](crate::ports)) does not see these publishes.
///
/// A publish is done when its future returns, however the delivery ends. A handler that is tried again
/// publishes again.
///
/// # Example
///
/// ```
/// use redstart::extract::Publisher;
/// use redstart::{Error, Message, Topic};
/// use serde::{Deserialize, Serialize};
///
/// const BILLS: Topic = Topic::from_static("bills");
///
/// #[derive(Serialize, Deserialize)]
/// struct Placed {
///     id: u32,
/// }
///
/// impl Message for Placed {
///     const TYPE: &'static str = "order.placed";
/// }
///
/// #[derive(Serialize, Deserialize)]
/// struct Billed {
///     order: u32,
/// }
///
/// impl Message for Billed {
///     const TYPE: &'static str = "order.billed";
/// }
///
/// async fn bill(order: Placed, publisher: Publisher) -> Result<(), Error> {
///     publisher.send(&BILLS, &Billed { order: order.id }).await?;
///     Ok(())
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Publisher {
    cause: Delivery,
}

impl<S: Sync> FromDelivery<S> for Publisher {
    type Rejection = std::convert::Infallible;

    async fn from_delivery(delivery: &Delivery, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self::of(delivery))
    }
}

impl Publisher {
    /// The publisher of a delivery, for code that holds one: middleware, or a batch handler.
    #[must_use]
    pub fn of(delivery: &Delivery) -> Self {
        Self {
            cause: delivery.clone(),
        }
    }

    /// Publishes a message under its type, as [`Bus::send`](crate::Bus::send) does.
    ///
    /// # Errors
    ///
    /// As for [`Bus::publish`](crate::Bus::publish).
    ///
    /// # Cancel safety
    ///
    /// After the future is dropped the message may or may not have been published.
    pub fn send<'a, T: Message + Serialize>(
        &'a self,
        topic: &'a Topic,
        message: &T,
    ) -> BoxFuture<'a, Result<Published, Error>> {
        self.send_with(topic, message, PublishOptions::new())
    }

    /// Publishes a message under its type with options, as
    /// [`Bus::send_with`](crate::Bus::send_with) does.
    ///
    /// # Errors
    ///
    /// As for [`Bus::publish_with`](crate::Bus::publish_with).
    ///
    /// # Cancel safety
    ///
    /// As for [`send`](Self::send).
    pub fn send_with<'a, T: Message + Serialize>(
        &'a self,
        topic: &'a Topic,
        message: &T,
        options: PublishOptions,
    ) -> BoxFuture<'a, Result<Published, Error>> {
        match self.cause.envelope().follow_up(message) {
            Ok(envelope) => Box::pin(self.one(topic, envelope, options)),
            Err(error) => Box::pin(ready(Err(error))),
        }
    }

    /// Publishes an envelope. Its correlation id becomes that of the delivery. A tenant, a
    /// `traceparent` and a `tracestate` of its own stay. To publish an envelope as it is, use the
    /// [`Bus`](crate::Bus).
    ///
    /// # Errors
    ///
    /// As for [`Bus::publish`](crate::Bus::publish).
    ///
    /// # Cancel safety
    ///
    /// As for [`send`](Self::send).
    pub async fn publish(&self, topic: &Topic, envelope: &Envelope) -> Result<Published, Error> {
        self.publish_with(topic, envelope, PublishOptions::new())
            .await
    }

    /// Publishes an envelope with options. See [`publish`](Self::publish).
    ///
    /// # Errors
    ///
    /// As for [`Bus::publish_with`](crate::Bus::publish_with).
    ///
    /// # Cancel safety
    ///
    /// As for [`send`](Self::send).
    pub async fn publish_with(
        &self,
        topic: &Topic,
        envelope: &Envelope,
        options: PublishOptions,
    ) -> Result<Published, Error> {
        let envelope = envelope.clone().caused_by(self.cause.envelope());
        self.one(topic, envelope, options).await
    }

    async fn one(
        &self,
        topic: &Topic,
        envelope: Envelope,
        options: PublishOptions,
    ) -> Result<Published, Error> {
        let port = Arc::clone(&self.cause.home().publishing);
        let envelopes = slice::from_ref(&envelope);
        let result = port.publish_all_with(topic, envelopes, options).await.pop();
        result.unwrap_or_else(|| {
            let rule = "the bus gave no result for this message";
            Err(Error::new(ErrorKind::OutcomeUnknown, "publish", rule).on(topic.as_str()))
        })
    }
}
