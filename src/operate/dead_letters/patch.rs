//! A change of a dead letter's envelope, applied to its encoded form.

use std::fmt;

use crate::domain::{DeadLetter, Envelope, Error, ErrorKind, Patch};
use crate::operate::dead_letters::message::codec;
use crate::wire::{Limits, decode_entry, encode_entry};

const OPERATION: &str = "edit dead letter";

/// A change of a dead letter's envelope, for [`DeadLetters::edit`](super::DeadLetters::edit).
///
/// The change applies to the message as it is encoded, in MessagePack or JSON. Every part that it
/// does not name stays as it is, byte for byte: MessagePack binaries and extensions, map keys that
/// are not text, numbers of any length, unknown fields. A change that cannot be exact is refused.
#[derive(Clone)]
pub struct EnvelopeEdit(Patch);

impl EnvelopeEdit {
    /// Reads a JSON patch (RFC 6902, an array) or a JSON merge patch (RFC 7396) of the envelope as
    /// on the wire.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if the text is not JSON or not a patch.
    pub fn patch(text: &str) -> Result<Self, Error> {
        Patch::parse(text).map(Self).map_err(invalid)
    }

    /// Reads a whole envelope in its JSON form. Only the parts that differ from the message are
    /// written anew.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if the text is not JSON.
    pub fn whole(text: &str) -> Result<Self, Error> {
        Patch::whole(text).map(Self).map_err(invalid)
    }

    /// The edited envelope of a dead letter. Changes nothing in the store.
    ///
    /// # Errors
    ///
    /// | Kind | Meaning |
    /// |---|---|
    /// | [`Decode`](ErrorKind::Decode) | the dead letter is undecodable |
    /// | [`Encode`](ErrorKind::Encode) | the change does not apply, or cannot be exact; the error names the part |
    /// | [`Invalid`](ErrorKind::Invalid) | the result is not an envelope, or has a field that the message lacks and no envelope has |
    pub fn apply(&self, letter: &DeadLetter) -> Result<Envelope, Error> {
        let old = letter.envelope()?;
        let codec = codec(letter);
        let limits = Limits::default().with_max_bytes(usize::MAX);
        let (name, bytes) = encode_entry(&old, codec, limits)?;
        let on = || format!("{}/{} {}", letter.topic, letter.group, letter.id);
        let new = self.0.apply(codec, &bytes).map_err(|rule| {
            let text = format!("the edit does not apply: {rule}");
            Error::new(ErrorKind::Encode, OPERATION, text).on(on())
        })?;
        let fields = [(name.as_bytes(), new.as_slice())];
        let new = decode_entry(&letter.topic, letter.history.origin, fields, limits)
            .map_err(|flaw| invalid(format!("the edited message is not an envelope: {flaw}")))?;
        // The wire would keep a misspelt field, and no reader would see it.
        let is_new = |name: &&String| !old.unknown.contains_key(*name);
        if let Some(name) = new.unknown.keys().find(is_new) {
            let rule = format!("the edited message has an unknown field `{name:.80}`");
            return Err(invalid(rule));
        }
        Ok(new)
    }
}

/// Shows no content, which may be confidential.
impl fmt::Debug for EnvelopeEdit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnvelopeEdit").finish_non_exhaustive()
    }
}

fn invalid(rule: String) -> Error {
    Error::new(ErrorKind::Invalid, OPERATION, rule)
}
