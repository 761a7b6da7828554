//! Editing a dead letter on its way back: off unless a service enables it.

use bytes::Bytes;
use uuid::Uuid;

use crate::domain::{DeadLetter, EntryId, Envelope, Error, ErrorKind, Group, Topic};
use crate::operate::dead_letters::handle::{DeadLetters, subject};
use crate::operate::dead_letters::journal::Order;
use crate::operate::dead_letters::message::codec;
use crate::store::{Disposition, GroupAt};
use crate::wire::{encode_entry, with_later_envelope};

const OPERATION: &str = "edit dead letter";

/// The header of an edited message that names the original message.
const EDITED_FROM: &str = "edited-from";

impl DeadLetters {
    /// Brings a dead letter back as an edited message: with the content of `envelope`, a new id,
    /// and a header `edited-from` that names the original. Returns the new id.
    ///
    /// # Errors
    ///
    /// | Kind | Meaning |
    /// |---|---|
    /// | [`Refused`](ErrorKind::Refused) | editing is off, see [`with_dead_letter_editing`](crate::container::ContainerBuilder::with_dead_letter_editing) |
    /// | [`NotFound`](ErrorKind::NotFound) | the dead letter does not exist, or another operator took it first |
    /// | [`TooLarge`](ErrorKind::TooLarge), [`Encode`](ErrorKind::Encode) | the envelope cannot be published |
    ///
    /// Nothing changed in any of these cases. After an error of the connection the message may
    /// be back.
    pub async fn edit(
        &self,
        topic: &Topic,
        group: &Group,
        id: EntryId,
        envelope: Envelope,
        operator: &str,
    ) -> Result<Uuid, Error> {
        let on = || format!("{} {id}", subject(topic, group));
        if !self.editing {
            let rule = "editing is off; enable it with REDSTART_DEAD_LETTER_EDITING=true or \
                        ContainerBuilder::with_dead_letter_editing";
            return Err(Error::new(ErrorKind::Refused, OPERATION, rule).on(on()));
        }
        let gone = || {
            let rule = "the dead letter does not exist; another operator may have taken it";
            Error::new(ErrorKind::NotFound, OPERATION, rule).on(on())
        };
        let found = self.get(topic, group, &[id]).await?.pop();
        let letter = found.ok_or_else(gone)?;
        let new_id = Uuid::now_v7();
        let fields = self
            .edited_fields(&letter, envelope, new_id)
            .map_err(|e| e.on(on()))?;

        let operation = Uuid::now_v7();
        let order = Order::edit(id, operator, self.store.now());
        let port = self.port();
        port.begin_operation(&GroupAt::of(topic, group), operation, &order.encode())
            .await?;
        let redelivery = letter.into_redelivery_of(fields, operation);
        let items = [(id, Disposition::RequeueAs(redelivery))];
        let moved = self
            .move_each(topic, group, &items, &[], Some(operation))
            .await?;
        let moved = moved.len();
        let result = if moved == 1 {
            format!("brought back as message {new_id}")
        } else {
            "another operator took it first".to_owned()
        };
        tracing::info!(%topic, %group, %id, %operation, operator, result, "dead letter edited");
        port.end_operation(&GroupAt::of(topic, group), operation, &result)
            .await?;
        metrics::counter!("redstart_dead_letters_edited_total", "topic" => topic.to_string(), "group" => group.to_string())
            .increment(moved as u64);
        if moved == 1 { Ok(new_id) } else { Err(gone()) }
    }

    /// The fields of the edited message, in the codec of the original.
    fn edited_fields(
        &self,
        letter: &DeadLetter,
        envelope: Envelope,
        new_id: Uuid,
    ) -> Result<Vec<(Bytes, Bytes)>, Error> {
        let codec = codec(letter);
        let source = letter
            .message_id
            .map_or_else(|| letter.id.to_string(), |id| id.to_string());
        let mut envelope = envelope.with_id(new_id).with_header(EDITED_FROM, source);
        envelope.reset_attempts();
        // The limits of publishing hold here too: editing is not a way around them.
        let (name, bytes) = encode_entry(&envelope, codec, self.limits)?;
        Ok(with_later_envelope(&letter.fields, name, bytes))
    }
}
