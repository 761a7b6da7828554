//! Messages: payloads that know their type.

use std::borrow::Cow;

use serde::Serialize;

use crate::domain::{Envelope, Error};

/// A payload that knows its type.
///
/// [`Bus::send`](crate::Bus::send) publishes a message that also is [`Serialize`]; a handler takes
/// one that is [`DeserializeOwned`](serde::de::DeserializeOwned). An [`Envelope`] can carry any other
/// payload.
///
/// # Example
///
/// ```
/// use std::borrow::Cow;
///
/// use redstart::Message;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Placed {
///     id: u32,
///     customer: String,
/// }
///
/// impl Message for Placed {
///     const TYPE: &'static str = "order.placed";
///
///     fn key(&self) -> Option<Cow<'_, str>> {
///         Some(Cow::Borrowed(&self.customer))
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no message type",
    label = "not a `Message`",
    note = "name its type: `impl Message for {Self} {{ const TYPE: &'static str = \"order.placed\"; }}`"
)]
pub trait Message: Send + 'static {
    /// The [type](Envelope::message_type) of its envelopes. It stays the same when the name of the
    /// Rust type changes.
    const TYPE: &'static str;

    /// The [ordering key](Envelope::with_key) of its envelope; by default none.
    fn key(&self) -> Option<Cow<'_, str>> {
        None
    }
}

/// Wraps a message.
pub(crate) fn envelope<T: Message + Serialize>(message: &T) -> Result<Envelope, Error> {
    Envelope::new(T::TYPE, message).map(|envelope| with_key(envelope, message))
}

fn with_key<T: Message>(envelope: Envelope, message: &T) -> Envelope {
    match message.key() {
        Some(key) => envelope.with_key(key),
        None => envelope,
    }
}

impl Envelope {
    /// Wraps a message that follows from this one. Copies the correlation id, the tenant, and the
    /// `traceparent` and `tracestate` headers. [`follow_up_as`](Self::follow_up_as) takes any other
    /// payload.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Encode`](crate::ErrorKind::Encode) if the message cannot be encoded.
    pub fn follow_up<T: Message + Serialize>(&self, message: &T) -> Result<Self, Error> {
        let next = self.follow_up_as(T::TYPE, message)?;
        Ok(with_key(next, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Placed {
        customer: &'static str,
    }

    impl Message for Placed {
        const TYPE: &'static str = "order.placed";

        fn key(&self) -> Option<Cow<'_, str>> {
            Some(Cow::Borrowed(self.customer))
        }
    }

    #[test]
    fn a_message_brings_its_type_and_its_key() {
        let sent = envelope(&Placed { customer: "ann" }).unwrap();
        assert_eq!(
            (sent.message_type(), sent.key()),
            ("order.placed", Some("ann"))
        );
        let cause = Envelope::new("cart.paid", &1)
            .unwrap()
            .with_tenant("shop-1")
            .with_header("traceparent", "00-1-2-01");
        let next = cause.follow_up(&Placed { customer: "bob" }).unwrap();
        assert_eq!(
            (next.message_type(), next.key()),
            ("order.placed", Some("bob"))
        );
        assert_eq!(next.correlation(), cause.correlation());
        assert_eq!(
            (next.tenant(), next.headers()),
            (cause.tenant(), cause.headers())
        );
    }
}
