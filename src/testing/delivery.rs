//! Deliveries without a bus: for calling a handler directly.

use std::sync::Arc;

use crate::api::handler::message;
use crate::api::lease::Lease;
use serde::Serialize;
use tokio::time::Instant;

use crate::adapters::memory::MemoryStore;
use crate::api::delivery::{Checkpoint, Home};
use crate::api::publish::PublishPort;
use crate::api::{Bus, Committed, Delivery, IntoRouter, Message, PublishHooks, Work};
use crate::bus::Publishing;
use crate::domain::BoxFuture;
use crate::domain::{
    Codec, ConsumerName, Effects, EntryId, Envelope, Error, ErrorKind, Group, Outcome, Topic,
};
use crate::store::decorate::{Answer, Decorated, Decorator, Next, Op};
use crate::store::{DeliveriesAnswer, DeliveriesOp, DeliveryId, Holder, Lane, Member};
use crate::wire::Limits;

/// Builds a [`Delivery`] by hand. Every setting has a default.
///
/// # Example
///
/// ```
/// use redstart::testing::{DeliveryBuilder, call};
/// use redstart::{Message, Outcome, extract::Attempt};
/// use serde::{Deserialize, Serialize};
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
/// async fn bill(order: Placed, Attempt(attempt): Attempt) -> Outcome {
///     if order.cents == 0 && attempt > 1 {
///         return Outcome::dead_letter("nothing to bill");
///     }
///     Outcome::Ack
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), redstart::Error> {
/// let delivery = DeliveryBuilder::new(&Placed { cents: 0 })?.with_attempt(2).build();
/// assert_eq!(call(bill, delivery).await, Outcome::dead_letter("nothing to bill"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct DeliveryBuilder {
    envelope: Envelope,
    topic: Option<Topic>,
    group: Option<Group>,
    entry: EntryId,
    attempt: u32,
    lost: bool,
    cancelled: Arc<Lease>,
    publishing: Option<Arc<dyn PublishPort>>,
}

/// Tells the handler of a delivery that its result is no longer wanted.
#[derive(Clone, Debug)]
pub struct Canceller(Arc<Lease>);

impl Canceller {
    /// Cancels the delivery, as a lost lease or the deadline of a shutdown does.
    pub fn cancel(&self) {
        self.0.cancel();
    }
}

impl DeliveryBuilder {
    /// A first attempt at a message.
    ///
    /// # Errors
    ///
    /// [`Encode`](crate::ErrorKind::Encode) when the message cannot be encoded.
    pub fn new<T: Message + Serialize>(message: &T) -> Result<Self, Error> {
        message::envelope(message).map(Self::from_envelope)
    }

    /// A first attempt at a message with this payload, of type `test`.
    ///
    /// # Errors
    ///
    /// [`Encode`](crate::ErrorKind::Encode) when the payload cannot be encoded.
    pub fn from_payload<T: Serialize + ?Sized>(payload: &T) -> Result<Self, Error> {
        Ok(Self::from_envelope(Envelope::new("test", payload)?))
    }

    /// A first attempt at an envelope.
    pub fn from_envelope(envelope: Envelope) -> Self {
        Self {
            entry: EntryId::new(
                u64::try_from(envelope.created_at().as_millis()).unwrap_or(1),
                0,
            ),
            attempt: envelope.failed_attempts().saturating_add(1),
            envelope,
            topic: None,
            group: None,
            lost: false,
            cancelled: Arc::new(Lease::new(0, 0, false, Instant::now())),
            publishing: None,
        }
    }

    /// Sets the topic; by default `test`.
    pub fn with_topic(mut self, topic: Topic) -> Self {
        self.topic = Some(topic);
        self
    }

    /// Sets the group; by default `test`.
    pub fn with_group(mut self, group: Group) -> Self {
        self.group = Some(group);
        self
    }

    /// Sets the number of the attempt, at least 1, and with it the envelope's failed attempts; by
    /// default what the envelope says.
    pub fn with_attempt(mut self, attempt: u32) -> Self {
        self.attempt = attempt.max(1);
        self.envelope.failed_attempts = self.attempt - 1;
        self
    }

    /// Sets the error of the last failed attempt; by default none.
    pub fn with_last_error(mut self, error: impl Into<String>) -> Self {
        self.envelope.last_error = Some(error.into());
        self
    }

    /// Sets the id of the entry with which the message began; by default one of the envelope's time.
    pub fn with_entry_id(mut self, id: EntryId) -> Self {
        self.entry = id;
        self
    }

    /// Sets the bus on which a [`Publisher`](crate::extract::Publisher) publishes, such as that of a
    /// [`TestBus`](super::TestBus); by default one of its own, in memory.
    pub fn with_bus(mut self, bus: Bus) -> Self {
        self.publishing = Some(Arc::new(bus));
        self
    }

    /// Sets that another consumer holds the message: the delivery is cancelled from the
    /// beginning, and extending its lease fails.
    pub fn with_lost_lease(mut self) -> Self {
        self.lost = true;
        self
    }

    /// The delivery.
    #[must_use]
    pub fn build(self) -> Delivery {
        self.build_with_canceller().0
    }

    /// The delivery, and what cancels it while the handler runs.
    #[must_use]
    pub fn build_with_canceller(self) -> (Delivery, Canceller) {
        if self.lost {
            self.cancelled.cancel();
        }
        let topic = self.topic.unwrap_or_else(|| named(Topic::new));
        let group = self.group.unwrap_or_else(|| named(Group::new));
        let member = Member::of(&topic, &group, named(ConsumerName::new));
        let receipt = DeliveryId {
            lane: Lane::Log,
            id: self.entry,
        };
        let hand_made = Arc::new(HandMade { lost: self.lost });
        let store = MemoryStore::new().store(None);
        let publishing = self.publishing.unwrap_or_else(|| {
            let (store, hooks) = (Arc::clone(&store), PublishHooks::default());
            let (codec, limits) = (Codec::default(), Limits::default());
            Arc::new(Publishing::new(store, codec, limits, None, hooks))
        });
        let home = Home {
            member: Arc::new(member),
            store: Arc::new(Decorated::new(hand_made, store)),
            publishing,
            effects: Arc::new(HandMade { lost: self.lost }),
        };
        let delivery = Delivery::new(
            self.envelope,
            Arc::new(home),
            receipt,
            self.entry,
            self.attempt,
            self.cancelled.clone(),
        );
        (delivery, Canceller(self.cancelled))
    }
}

fn named<T>(new: impl FnOnce(&'static str) -> Result<T, Error>) -> T {
    // The word is in every name's alphabet.
    new("test").unwrap_or_else(|e| unreachable!("{e}"))
}

/// Answers for the lease of a delivery that was built by hand.
#[derive(Debug)]
struct HandMade {
    lost: bool,
}

impl Checkpoint for HandMade {
    /// Checks the effects, and writes nothing.
    fn checkpoint<'a>(
        &'a self,
        _: DeliveryId,
        _: &'a Lease,
        effects: &'a Effects,
    ) -> BoxFuture<'a, Result<Committed, Error>> {
        let lost = || {
            let rule = "another consumer holds the message";
            Error::new(ErrorKind::LeaseLost, "commit", rule)
        };
        let done = match (effects.check(), self.lost) {
            (Err(error), _) => Err(error),
            (Ok(()), true) => Err(lost()),
            (Ok(()), false) => Ok(Committed::default()),
        };
        Box::pin(std::future::ready(done))
    }
}

impl Decorator for HandMade {
    fn call<'a>(&'a self, op: Op<'a>, mut next: Next<'a>) -> BoxFuture<'a, Result<Answer, Error>> {
        Box::pin(async move {
            let Op::Deliveries(DeliveriesOp::Extend { receipts, .. }) = op else {
                return next.run(op).await;
            };
            let holder = match self.lost {
                true => Holder::Other,
                false => Holder::Member,
            };
            let holders = vec![holder; receipts.len()];
            Ok(Answer::Deliveries(DeliveriesAnswer::Extend(holders)))
        })
    }
}

/// Calls a handler or a router with one delivery, as a subscription would, and returns how it ends
/// the delivery. A message that it does not understand is [`Outcome::DeadLetter`] with the reason
/// `Undecodable` or `Unhandled`.
///
/// Time limits apply only where a [route](crate::handler::RouteOptions::with_timeout) sets one.
///
/// # Panics
///
/// When the handler panics, and when the router is not valid.
///
/// # Cancel safety
///
/// As the handler's own future.
pub async fn call<Marker, H: IntoRouter<Marker>>(handler: H, delivery: Delivery) -> Outcome {
    let work = handler.into_work(None);
    match work.unwrap_or_else(|e| panic!("the router is not valid: {e}")) {
        Work::Each(handler) => handler.handle(delivery).await,
        Work::Batches(handler) => {
            let outcomes = handler.handle(vec![delivery]).await;
            let first = outcomes.into_iter().next();
            first.unwrap_or_else(|| panic!("the batch handler returned no outcome"))
        }
    }
}
