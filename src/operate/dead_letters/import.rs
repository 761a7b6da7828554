//! Importing exported dead letters.

use serde::Serialize;

use crate::domain::{DeadLetter, EntryId, Error, ErrorKind, Group, Topic};
use crate::operate::dead_letters::handle::{DeadLetters, subject};
use crate::store::{GroupAt, Partition, Restoring};
use crate::wire::dead_letter::encode_record;

/// What an import did with one dead letter.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum Imported {
    /// The import added it under this id.
    New(EntryId),
    /// The group has it already, or an earlier import added it.
    Present,
}

impl DeadLetters {
    /// Adds exported dead letters to a group, as its newest. However often it runs, it adds each
    /// one once; with `reimport` it adds those again that left the group since.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] when the group does not exist, and the kinds of the connection.
    ///
    /// # Cancel safety
    ///
    /// Some dead letters may have been added when the future is dropped. Import again.
    pub async fn import(
        &self,
        topic: &Topic,
        group: &Group,
        letters: &[DeadLetter],
        reimport: bool,
    ) -> Result<Vec<Imported>, Error> {
        let status = self.store.inspect().status(&Partition::of(topic)).await?;
        if !status.is_some_and(|status| status.groups.iter().any(|one| one.group == *group)) {
            let rule = "the group does not exist; subscribe once to create it";
            let error = Error::new(ErrorKind::NotFound, "import dead letters", rule);
            return Err(error.on(subject(topic, group)));
        }
        let restoring = |letter: &DeadLetter| {
            let own = letter.topic == *topic && letter.group == *group;
            let identity = letter.identity();
            let mut record = encode_record(letter);
            record.head.imported_from = Some(identity.clone());
            Restoring {
                identity,
                own: own.then_some(letter.id),
                record,
            }
        };
        let records: Vec<Restoring> = letters.iter().map(restoring).collect();
        let ids = self
            .port()
            .restore(&GroupAt::of(topic, group), &records, reimport)
            .await?;
        let count = ids.iter().flatten().count() as u64;
        metrics::counter!("redstart_dead_letters_imported_total", "topic" => topic.to_string(), "group" => group.to_string())
            .increment(count);
        tracing::info!(%topic, %group, count, "dead letters imported");
        let imported = |id: Option<EntryId>| id.map_or(Imported::Present, Imported::New);
        Ok(ids.into_iter().map(imported).collect())
    }
}
