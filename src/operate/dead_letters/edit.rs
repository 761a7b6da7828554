//! Editing a dead letter on its way back: off unless it was enabled.

use bytes::Bytes;
use uuid::Uuid;

use crate::domain::{
    Codec, DeadLetter, EntryId, Envelope, Error, ErrorKind, Group, Selection, Topic,
};
use crate::operate::dead_letters::journal::Order;
use crate::operate::dead_letters::{DeadLetterDesk, place};
use crate::store::Disposition;
use crate::wire::encode_entry;

const OPERATION: &str = "edit dead letter";

/// The header of an edited message that names the one it was made from.
const EDITED_FROM: &str = "edited-from";

impl DeadLetterDesk {
    pub(super) async fn edit_one(
        &self,
        topic: &Topic,
        group: &Group,
        id: EntryId,
        envelope: Envelope,
        by: &str,
    ) -> Result<Uuid, Error> {
        let on = || format!("{} {id}", place(topic, group));
        if !self.editing {
            let rule = "editing is off; it is enabled with REDSTART_DEAD_LETTER_EDITING=true or \
                        ContainerBuilder::with_dead_letter_editing";
            return Err(Error::new(ErrorKind::Refused, OPERATION, rule).on(on()));
        }
        let gone = || {
            let rule = "it is not there; another may have taken it out meanwhile";
            Error::new(ErrorKind::NotFound, OPERATION, rule).on(on())
        };
        let found = self.find(topic, group, &[id]).await?.pop();
        let letter = found.ok_or_else(gone)?;
        let new_id = Uuid::now_v7();
        let fields = self
            .edited(&letter, envelope, new_id)
            .map_err(|e| e.on(on()))?;

        let operation = Uuid::now_v7();
        let order = Order::edit(id, by, self.store.clock().now());
        let dead_letters = self.dead_letters();
        dead_letters
            .begin_operation(topic, group, operation, order.encode())
            .await?;
        let redelivery = letter.into_parcel_of(fields, operation);
        let items = [(id, Disposition::RequeueAs(redelivery))];
        let taken = self
            .take(topic, group, &items, &[], Some(operation))
            .await?;
        let taken = taken.len();
        let result = if taken == 1 {
            format!("brought back as message {new_id}")
        } else {
            "it was taken out meanwhile".to_owned()
        };
        tracing::info!(%topic, %group, %id, %operation, by, result, "dead letter was edited");
        dead_letters
            .end_operation(topic, group, operation, result)
            .await?;
        metrics::counter!("redstart_edited_total", "topic" => topic.to_string(), "group" => group.to_string())
            .increment(taken as u64);
        if taken == 1 { Ok(new_id) } else { Err(gone()) }
    }

    /// The fields of the edited message, in the codec of the original.
    fn edited(
        &self,
        letter: &DeadLetter,
        envelope: Envelope,
        new_id: Uuid,
    ) -> Result<Vec<(Bytes, Bytes)>, Error> {
        let original = letter.fields.first().map(|(name, _)| &name[..]);
        let codec = match original {
            Some(b"json") => Codec::Json,
            _ => Codec::MessagePack,
        };
        let source = letter
            .message_id
            .map_or_else(|| letter.id.to_string(), |id| id.to_string());
        let mut envelope = envelope.with_id(new_id).with_header(EDITED_FROM, source);
        envelope.reset_attempts();
        // Whatever could not be published must not come in by this door.
        let (name, bytes) = encode_entry(&envelope, codec, self.limits)?;
        let name = Bytes::from_static(name.as_bytes());
        Ok(vec![(name, Bytes::from(bytes))])
    }
}

impl From<EntryId> for Selection {
    fn from(id: EntryId) -> Self {
        Self::Ids(vec![id])
    }
}
