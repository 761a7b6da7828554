//! How a container writes the messages that it publishes.

use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::domain::{Codec, Envelope, Error};
use crate::wire::cloud_event::CLOUD_EVENT;
use crate::wire::{Limits, envelope};

/// How many bytes one allocation serves.
const CHUNK: usize = 32 * 1024;

/// Memory for the entries of one call, so that one allocation serves many of them.
#[derive(Debug)]
pub(crate) struct Arena {
    free: BytesMut,
    /// How many entries are still to come.
    entries: usize,
}

impl Arena {
    /// For about this many entries.
    pub(crate) fn new(entries: usize) -> Self {
        Self {
            free: BytesMut::new(),
            entries,
        }
    }

    /// Makes room for an entry of about this size, and for those that may follow it.
    fn reserve(&mut self, size: usize) {
        if self.free.capacity() < size {
            let all = size.saturating_mul(self.entries);
            self.free = BytesMut::with_capacity(all.min(CHUNK).max(size));
        }
        self.entries = self.entries.saturating_sub(1);
    }
}

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

    /// The field name and the value of a stream entry. Fails as
    /// [`encode_entry`](crate::wire::encode_entry) does; as a CloudEvent also where the message has no type
    /// or its payload has no JSON form.
    pub(crate) fn encode(
        &self,
        envelope: &Envelope,
        arena: &mut Arena,
    ) -> Result<(&'static str, Bytes), Error> {
        let (name, value) = match &self.source {
            Some(source) => (CLOUD_EVENT, envelope.to_cloud_event(source)?.into()),
            None => {
                arena.reserve(envelope::size(envelope));
                let mut out = (&mut arena.free).writer();
                let written = envelope::encode(envelope, self.codec, &mut out);
                // Also after a failure, so that the next entry does not begin with its bytes.
                let value = arena.free.split().freeze();
                (self.codec.name(), written.map(|()| value)?)
            }
        };
        self.limits.check_encoded(envelope, value.len())?;
        Ok((name, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ErrorKind;
    use crate::wire::encode_entry;

    fn events() -> Encoder {
        let limits = Limits::default().with_max_bytes(400);
        Encoder::new(Codec::MessagePack, limits).with_events(Some("/shop".into()))
    }

    #[test]
    fn an_entry_is_an_envelope_or_an_event() {
        let envelope = Envelope::new("order.placed", &7).unwrap();
        let plain = Encoder::new(Codec::Json, Limits::default());
        assert_eq!(
            plain.encode(&envelope, &mut Arena::new(1)).unwrap().0,
            "json"
        );
        let (name, bytes) = events().encode(&envelope, &mut Arena::new(1)).unwrap();
        assert_eq!(name, "cloudevents");
        let read = Envelope::from_cloud_event(&bytes).unwrap();
        assert_eq!(
            (read.id(), read.payload::<u32>().unwrap()),
            (envelope.id(), 7)
        );
        assert_eq!(read.headers()["ce-source"], "/shop");
    }

    #[test]
    fn the_entries_of_a_call_are_apart() {
        let limits = Limits::default().with_max_bytes(100_000);
        let mut arena = Arena::new(5);
        let sizes = [1, 20_000, 200_000, 20_000, 50_000, 300, 300];
        let envelopes = sizes.map(|size| Envelope::new("order.placed", &"x".repeat(size)).unwrap());
        for codec in [Codec::MessagePack, Codec::Json] {
            let encoder = Encoder::new(codec, limits);
            let encode = |envelope| encoder.encode(envelope, &mut arena);
            let entries: Vec<_> = envelopes.iter().map(encode).collect();
            for (envelope, entry) in envelopes.iter().zip(entries) {
                let alone = encode_entry(envelope, codec, limits).map(|(_, bytes)| bytes);
                let alone = alone.map_err(|error| error.kind());
                let entry = entry.map(|(_, bytes)| bytes).map_err(|error| error.kind());
                assert_eq!(entry.as_deref(), alone.as_deref());
            }
        }
    }

    #[test]
    fn an_event_has_the_limit_of_an_envelope() {
        let envelope = Envelope::new("order.placed", &"x".repeat(400)).unwrap();
        let encoded = events().encode(&envelope, &mut Arena::new(1));
        let error = encoded.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        let text = error.to_string();
        assert!(text.contains("over the limit of 400"), "{text}");
    }
}
