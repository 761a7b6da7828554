//! How a container writes the messages that it publishes.

use std::sync::Arc;

use crate::domain::{Codec, Envelope, Error};
use crate::wire::cloud_event::CLOUD_EVENT;
use crate::wire::{Limits, encode_entry};

/// The form of new entries.
#[derive(Clone, Debug)]
pub(crate) struct Encoder {
    codec: Codec,
    limits: Limits,
    /// The source of CloudEvents; `None`: entries hold envelopes.
    source: Option<Arc<str>>,
}

impl Encoder {
    pub(crate) fn new(codec: Codec, limits: Limits) -> Self {
        Self {
            codec,
            limits,
            source: None,
        }
    }

    /// Writes CloudEvents with this source, whatever the codec.
    pub(crate) fn with_events(mut self, source: Option<Arc<str>>) -> Self {
        self.source = source;
        self
    }

    /// The field name and the value of a stream entry. Fails as [`encode_entry`] does; as a CloudEvent
    /// also where the message has no type or its payload has no JSON form.
    pub(crate) fn encode(&self, envelope: &Envelope) -> Result<(&'static str, Vec<u8>), Error> {
        let Some(source) = &self.source else {
            return encode_entry(envelope, self.codec, self.limits);
        };
        let event = envelope.to_cloud_event(source)?.into_bytes();
        self.limits.check_encoded(envelope, event.len())?;
        Ok((CLOUD_EVENT, event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ErrorKind;

    fn events() -> Encoder {
        let limits = Limits::default().with_max_bytes(400);
        Encoder::new(Codec::MessagePack, limits).with_events(Some("/shop".into()))
    }

    #[test]
    fn an_entry_is_an_envelope_or_an_event() {
        let envelope = Envelope::new("order.placed", &7).unwrap();
        let plain = Encoder::new(Codec::Json, Limits::default());
        assert_eq!(plain.encode(&envelope).unwrap().0, "json");
        let (name, bytes) = events().encode(&envelope).unwrap();
        assert_eq!(name, "cloudevents");
        let read = Envelope::from_cloud_event(&bytes).unwrap();
        assert_eq!(
            (read.id(), read.payload::<u32>().unwrap()),
            (envelope.id(), 7)
        );
        assert_eq!(read.headers()["ce-source"], "/shop");
    }

    #[test]
    fn an_event_has_the_limit_of_an_envelope() {
        let envelope = Envelope::new("order.placed", &"x".repeat(400)).unwrap();
        let error = events().encode(&envelope).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        let text = error.to_string();
        assert!(text.contains("over the limit of 400"), "{text}");
    }
}
