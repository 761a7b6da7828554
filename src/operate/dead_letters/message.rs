//! The envelope of a dead letter, and the redelivery of an edited one.

use bytes::Bytes;
use uuid::Uuid;

use crate::domain::{Codec, DeadLetter, Envelope, Error, ErrorKind};
use crate::store::Fields;
use crate::wire::redelivery::Redelivery;
use crate::wire::{Limits, decode_entry};

/// The codec of a dead letter's message, by the field that decoding reads.
pub(super) fn codec(letter: &DeadLetter) -> Codec {
    let mut names = letter.fields.iter().map(|(name, _)| &name[..]);
    let codec = names.find_map(Codec::from_name);
    codec.unwrap_or(Codec::MessagePack)
}

impl DeadLetter {
    /// The message as it died.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Decode`] for an undecodable dead letter.
    pub fn envelope(&self) -> Result<Envelope, Error> {
        let pairs = self
            .fields
            .iter()
            .map(|(name, value)| (&name[..], &value[..]));
        let limits = Limits::default().without_bound();
        decode_entry(&self.topic, self.history.origin, pairs, limits).map_err(|flaw| {
            Error::new(ErrorKind::Decode, "dead letter", "is undecodable")
                .on(format!("{}/{} {}", self.topic, self.group, self.id))
                .because(flaw)
        })
    }

    /// The redelivery that brings it back to its group as an edited message.
    pub(super) fn into_redelivery_of(self, fields: Fields, operation: Uuid) -> Bytes {
        let mut redelivery = Redelivery {
            fields,
            history: self.history,
            starts_over: false,
        };
        redelivery.redrive(Some(operation));
        redelivery.encode()
    }
}
