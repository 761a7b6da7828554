//! What goes back to a group: the message as it died, as if it had never been tried.

use bytes::Bytes;
use uuid::Uuid;

use crate::backend::Fields;
use crate::codec::parcel::Parcel;
use crate::codec::{Limits, decode_entry, encode_entry};
use crate::domain::{Codec, DeadLetter, Envelope, Error, ErrorKind};

impl DeadLetter {
    /// The message as it died.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Decode`] for one that was buried because it cannot be decoded.
    pub fn envelope(&self) -> Result<Envelope, Error> {
        let pairs = self
            .fields
            .iter()
            .map(|(name, value)| (&name[..], &value[..]));
        let limits = Limits::default().without_bound();
        decode_entry(&self.topic, self.trail.origin, pairs, limits).map_err(|flaw| {
            Error::new(ErrorKind::Decode, "dead letter", "is undecodable")
                .on(format!("{}/{} {}", self.topic, self.group, self.id))
                .because(flaw)
        })
    }

    /// The parcel for its group. What cannot be decoded goes back as it is.
    pub(super) fn into_parcel(self, operation: Option<Uuid>) -> Bytes {
        let limits = Limits::default().without_bound();
        let fields = self.envelope().and_then(|envelope| {
            let codec = envelope.payload.codec();
            fresh(envelope, codec, limits)
        });
        self.into_parcel_with(fields.ok(), operation)
    }

    /// The parcel, with other fields where some are given.
    pub(super) fn into_parcel_with(self, fields: Option<Fields>, operation: Option<Uuid>) -> Bytes {
        let mut trail = self.trail;
        trail.redriven = trail.redriven.saturating_add(1);
        trail.redriven_by = operation;
        let fields = fields.unwrap_or(self.fields);
        Parcel { fields, trail }.encode()
    }
}

/// An envelope without its attempts, as the fields of an entry.
pub(super) fn fresh(mut envelope: Envelope, codec: Codec, limits: Limits) -> Result<Fields, Error> {
    envelope.attempts = 0;
    envelope.last_error = None;
    let (name, bytes) = encode_entry(&envelope, codec, limits)?;
    Ok(vec![(
        Bytes::from_static(name.as_bytes()),
        Bytes::from(bytes),
    )])
}
