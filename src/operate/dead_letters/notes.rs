//! Operators' notes on the causes of dead letters.

use serde::{Deserialize, Serialize};

use crate::domain::{Error, ErrorKind, Group, MAX_NOTE, MAX_OPERATOR, Timestamp, Topic};
use crate::operate::dead_letters::handle::{DeadLetters, subject};
use crate::store::GroupAt;

/// How many causes of a group can have a note.
const MAX_NOTES: usize = 1_000;

/// An operator's note on a cause, such as the number of a ticket.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct CauseNote {
    /// The cause: the folded error of its dead letters.
    pub fingerprint: String,
    /// The note.
    pub text: String,
    /// Who wrote it, as the caller named the operator.
    pub operator: String,
    /// When, by the store's clock.
    pub written: Timestamp,
}

/// A note as the store keeps it. The field names are stored data.
#[derive(Deserialize, Serialize)]
struct StoredNote {
    text: String,
    by: String,
    /// Milliseconds since 1970.
    at: i64,
}

impl DeadLetters {
    /// Lists the notes on the causes of a group's dead letters, by fingerprint. A note stays when its
    /// last dead letter leaves: the cause may come back.
    ///
    /// # Errors
    ///
    /// The kinds of the connection.
    pub async fn notes(&self, topic: &Topic, group: &Group) -> Result<Vec<CauseNote>, Error> {
        let notes = self.port().notes(&GroupAt::of(topic, group)).await?;
        Ok(notes.into_iter().filter_map(read).collect())
    }

    /// Writes a note on a cause, in place of an earlier one; an empty text removes it. The text has
    /// at most 2,000 bytes, and a group at most 1,000 notes.
    ///
    /// # Errors
    ///
    /// [`Invalid`](ErrorKind::Invalid) for a text, an operator's name or a fingerprint that is too
    /// long, and for a note beyond the limit; [`NotFound`](ErrorKind::NotFound) for a note on a group
    /// that does not exist; the kinds of the connection.
    ///
    /// # Cancel safety
    ///
    /// The note may be written when the future is dropped.
    pub async fn set_note(
        &self,
        topic: &Topic,
        group: &Group,
        fingerprint: &str,
        text: &str,
        operator: &str,
    ) -> Result<(), Error> {
        let (at, port) = (GroupAt::of(topic, group), self.port());
        let text = text.trim();
        if text.is_empty() {
            return port.set_note(&at, fingerprint, None).await;
        }
        let invalid = |what, rule: &str| {
            let error = Error::new(ErrorKind::Invalid, what, rule);
            Err(error.on(subject(topic, group)))
        };
        if text.len() > MAX_NOTE {
            return invalid("note", "must be at most 2,000 bytes");
        }
        if operator.len() > MAX_OPERATOR {
            return invalid("operator", "must be at most 200 bytes");
        }
        if fingerprint.len() > MAX_NOTE {
            return invalid("fingerprint", "must be at most 2,000 bytes");
        }
        self.check_group("note", topic, group).await?;
        let known = port.notes(&at).await?;
        let is_new = known.iter().all(|(name, _)| name != fingerprint);
        if is_new && known.len() >= MAX_NOTES {
            return invalid("note", "the group has 1,000 notes; remove one first");
        }
        let note = StoredNote {
            text: text.to_owned(),
            by: operator.to_owned(),
            at: self.store.now().as_millis(),
        };
        // The serializer cannot fail on text and numbers.
        let note = serde_json::to_string(&note).unwrap_or_default();
        port.set_note(&at, fingerprint, Some(&note)).await
    }
}

/// `None` for a note that a newer version wrote in another form.
fn read((fingerprint, note): (String, String)) -> Option<CauseNote> {
    let note: StoredNote = serde_json::from_str(&note).ok()?;
    Some(CauseNote {
        fingerprint,
        text: note.text,
        operator: note.by,
        written: Timestamp::from_millis(note.at).ok()?,
    })
}
