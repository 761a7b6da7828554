//! Decodes entries, those of foreign producers too, and keeps their fields beside the envelope.

use bytes::Bytes;

use crate::domain::{Codec, EntryId, Envelope, Topic};
use crate::wire::Fields;
use crate::wire::entry::{Form, Limits, Undecodable, decode_pairs};
use crate::wire::foreign::{Foreign, ForeignEntry};

/// Decodes entries, those of foreign producers too.
#[derive(Clone, Debug, Default)]
pub(crate) struct Decoder {
    limits: Limits,
    foreign: Foreign,
}

/// A decoded entry.
#[derive(Debug)]
pub(crate) struct Decoded {
    pub(crate) envelope: Result<Envelope, Undecodable>,
    /// Whether the fields hold the message in another form than an envelope.
    pub(crate) is_foreign: bool,
}

impl Decoder {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            foreign: Foreign::default(),
        }
    }

    pub(crate) fn with_foreign(mut self, foreign: Foreign) -> Self {
        self.foreign = foreign;
        self
    }

    /// Decodes an entry of the log.
    pub(crate) fn decode(&self, topic: &Topic, entry: EntryId, fields: &Fields) -> Decoded {
        self.decode_within(topic, entry, fields, self.limits)
    }

    /// Decodes a retry. A failure has added its error text to the envelope, so the limit is higher.
    pub(crate) fn decode_retry(&self, topic: &Topic, entry: EntryId, fields: &Fields) -> Decoded {
        self.decode_within(topic, entry, fields, self.limits.for_retries())
    }

    fn decode_within(
        &self,
        topic: &Topic,
        entry: EntryId,
        fields: &Fields,
        limits: Limits,
    ) -> Decoded {
        let pairs = fields.iter().map(|(name, value)| (&name[..], &value[..]));
        match decode_pairs(topic, entry, pairs, limits) {
            Ok((envelope, form)) => Decoded {
                envelope: Ok(envelope),
                is_foreign: form == Form::CloudEvent,
            },
            Err(flaw) => {
                let envelope = self.ask(topic, entry, fields, limits, flaw);
                let is_foreign = envelope.is_ok();
                Decoded {
                    envelope,
                    is_foreign,
                }
            }
        }
    }

    /// Asks the readers of foreign entries about an entry without a readable envelope.
    #[cold]
    fn ask(
        &self,
        topic: &Topic,
        entry: EntryId,
        fields: &Fields,
        limits: Limits,
        flaw: Undecodable,
    ) -> Result<Envelope, Undecodable> {
        if self.foreign.is_empty() {
            return Err(flaw);
        }
        let sizes = fields.iter().map(|(name, value)| name.len() + value.len());
        limits.check(sizes.sum())?;
        let read = self.foreign.read(&ForeignEntry::new(topic, entry, fields));
        read?.ok_or(flaw)
    }
}

/// The fields of an entry with an envelope in front: those of a foreign entry, which stay as they are.
pub(crate) fn with_envelope(fields: &Fields, name: &'static str, envelope: Vec<u8>) -> Fields {
    let mut all = Vec::with_capacity(fields.len() + 1);
    all.push((Bytes::from_static(name.as_bytes()), Bytes::from(envelope)));
    all.extend(fields.iter().cloned());
    all
}

/// The fields of an entry with a later form of its envelope. All other fields stay: they are the
/// original of a foreign entry.
pub(crate) fn with_later_envelope(
    fields: &Fields,
    name: &'static str,
    envelope: Vec<u8>,
) -> Fields {
    let is_envelope = |(name, _): &(Bytes, Bytes)| Codec::from_name(name).is_some();
    let earlier = fields.iter().position(is_envelope);
    let mut all = with_envelope(&Fields::new(), name, envelope);
    let others = fields.iter().enumerate();
    let others = others.filter(|(at, _)| Some(*at) != earlier);
    all.extend(others.map(|(_, field)| field.clone()));
    all
}
