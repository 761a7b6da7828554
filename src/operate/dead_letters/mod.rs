//! Dead letters, on the backend port: looking, and what is done to a few of them by id.

mod edit;
mod journal;
mod message;
mod sweep;

#[cfg(feature = "testing")]
pub(crate) use journal::operation;

use std::collections::HashSet;
use std::sync::Arc;

use uuid::Uuid;

use crate::api::{
    DeadLetterPage, DeadLetters, Imported, JournalEntry, MessageBus, Preview, SweepProgress,
    SweepReport,
};
use crate::domain::BoxFuture;
use crate::domain::{
    Cause, CountBy, DeadLetter, DeadLetterFilter, DeadLetterSummary, EntryId, Envelope, Error,
    ErrorKind, Group, Moved, Sweep, Topic,
};
use crate::store::{DeadLetterStore, Disposition, IdRange, Record, Restoring, Store};
use crate::wire::Limits;
use crate::wire::dead_letter::{decode_record, encode_record};

/// The dead letters of a backend.
#[derive(Clone, Debug)]
pub(crate) struct DeadLetterDesk {
    store: Arc<dyn Store>,
    bus: Arc<dyn MessageBus>,
    limits: Limits,
    editing: bool,
}

/// The name of a group's dead letters in errors.
fn place(topic: &Topic, group: &Group) -> String {
    format!("{topic}/{group}")
}

fn decode(
    topic: &Topic,
    group: &Group,
    records: Vec<(EntryId, Record)>,
) -> Result<Vec<DeadLetter>, Error> {
    records
        .into_iter()
        .map(|(id, record)| {
            decode_record(topic, group, id, record).map_err(|flaw| {
                let rule = "the record cannot be decoded";
                Error::new(ErrorKind::Decode, "dead letter", rule)
                    .on(format!("{topic}/{group} {id}"))
                    .because(flaw)
            })
        })
        .collect()
}

impl DeadLetterDesk {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        bus: Arc<dyn MessageBus>,
        limits: Limits,
        editing: bool,
    ) -> Self {
        Self {
            store,
            bus,
            limits,
            editing,
        }
    }

    fn dead_letters(&self) -> &dyn DeadLetterStore {
        self.store.dead_letters()
    }

    async fn find(
        &self,
        topic: &Topic,
        group: &Group,
        ids: &[EntryId],
    ) -> Result<Vec<DeadLetter>, Error> {
        decode(
            topic,
            group,
            self.dead_letters().find(topic, group, ids).await?,
        )
    }

    async fn page(
        &self,
        topic: &Topic,
        group: &Group,
        filter: &DeadLetterFilter,
        after: Option<EntryId>,
        max: usize,
    ) -> Result<DeadLetterPage, Error> {
        let (since, until) = filter.bounds();
        let span = IdRange {
            after: after.max(since),
            until,
        };
        let found = self
            .dead_letters()
            .search(topic, group, span, filter, max)
            .await?;
        Ok(DeadLetterPage {
            next: found.next(),
            items: found.items,
        })
    }

    /// Takes dead letters out; those that were there.
    async fn take_to(
        &self,
        topic: &Topic,
        group: &Group,
        ids: &[EntryId],
        known: &[(EntryId, DeadLetterSummary)],
        onward: Disposition,
        operation: Option<Uuid>,
    ) -> Result<HashSet<EntryId>, Error> {
        let items: Vec<_> = ids.iter().map(|id| (*id, onward.clone())).collect();
        self.take(topic, group, &items, known, operation).await
    }

    async fn take(
        &self,
        topic: &Topic,
        group: &Group,
        items: &[(EntryId, Disposition)],
        known: &[(EntryId, DeadLetterSummary)],
        operation: Option<Uuid>,
    ) -> Result<HashSet<EntryId>, Error> {
        let dead_letters = self.dead_letters();
        let taken = dead_letters
            .move_out(topic, group, items, known, operation)
            .await?;
        let done = items.iter().zip(taken).filter(|(_, taken)| *taken);
        let done: HashSet<EntryId> = done.map(|((id, _), _)| *id).collect();
        let name = match items.first() {
            Some((_, Disposition::Discard)) => "redstart_purged_total",
            _ => "redstart_redriven_total",
        };
        metrics::counter!(name, "topic" => topic.to_string(), "group" => group.to_string())
            .increment(done.len() as u64);
        Ok(done)
    }

    async fn put_in(
        &self,
        topic: &Topic,
        group: &Group,
        letters: &[DeadLetter],
        reimport: bool,
    ) -> Result<Vec<Imported>, Error> {
        let known = self.store.status(topic).await?;
        if !known.is_some_and(|status| status.groups.iter().any(|one| one.group == *group)) {
            let rule = "there is no such group; create it by subscribing once";
            let error = Error::new(ErrorKind::NotFound, "import dead letters", rule);
            return Err(error.on(place(topic, group)));
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
            .dead_letters()
            .restore(topic, group, &records, reimport)
            .await?;
        let count = ids.iter().flatten().count() as u64;
        metrics::counter!("redstart_imported_total", "topic" => topic.to_string(), "group" => group.to_string())
            .increment(count);
        tracing::info!(%topic, %group, count, "dead letters were imported");
        let told = |id: Option<EntryId>| id.map_or(Imported::Present, Imported::New);
        Ok(ids.into_iter().map(told).collect())
    }
}

/// Sorts ids by what became of them.
fn account(ids: &[EntryId], taken: &HashSet<EntryId>) -> Moved<EntryId> {
    let (done, missing) = ids.iter().partition(|id| taken.contains(*id));
    Moved {
        moved: done,
        missing,
    }
}

impl DeadLetters for DeadLetterDesk {
    fn causes<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
    ) -> BoxFuture<'a, Result<Vec<Cause>, Error>> {
        self.dead_letters().causes(topic, group)
    }

    fn counts<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        by: CountBy,
    ) -> BoxFuture<'a, Result<Vec<(String, u64)>, Error>> {
        self.dead_letters().counts(topic, group, by)
    }

    fn list<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        filter: &'a DeadLetterFilter,
        after: Option<EntryId>,
        max: usize,
    ) -> BoxFuture<'a, Result<DeadLetterPage, Error>> {
        Box::pin(self.page(topic, group, filter, after, max.max(1)))
    }

    fn newest<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
    ) -> BoxFuture<'a, Result<Option<EntryId>, Error>> {
        self.dead_letters().newest(topic, group)
    }

    fn get<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        ids: &'a [EntryId],
    ) -> BoxFuture<'a, Result<Vec<DeadLetter>, Error>> {
        Box::pin(self.find(topic, group, ids))
    }

    fn redrive<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        ids: &'a [EntryId],
    ) -> BoxFuture<'a, Result<Moved<EntryId>, Error>> {
        Box::pin(async move {
            let moved = self
                .take_to(topic, group, ids, &[], Disposition::Requeue, None)
                .await?;
            Ok(account(ids, &moved))
        })
    }

    fn purge<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        ids: &'a [EntryId],
    ) -> BoxFuture<'a, Result<Moved<EntryId>, Error>> {
        Box::pin(async move {
            let removed = self
                .take_to(topic, group, ids, &[], Disposition::Discard, None)
                .await?;
            Ok(account(ids, &removed))
        })
    }

    fn preview<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        sweep: &'a Sweep,
    ) -> BoxFuture<'a, Result<Preview, Error>> {
        Box::pin(self.look_over(topic, group, sweep))
    }

    fn sweep<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        sweep: Sweep,
        progress: &'a (dyn Fn(SweepProgress) + Send + Sync),
    ) -> BoxFuture<'a, Result<SweepReport, Error>> {
        Box::pin(self.begin_sweep(topic, group, sweep, progress))
    }

    fn resume<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        operation: Uuid,
        progress: &'a (dyn Fn(SweepProgress) + Send + Sync),
    ) -> BoxFuture<'a, Result<SweepReport, Error>> {
        Box::pin(self.resume_sweep(topic, group, operation, progress))
    }

    fn edit<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        id: EntryId,
        envelope: Envelope,
        by: &'a str,
    ) -> BoxFuture<'a, Result<Uuid, Error>> {
        Box::pin(self.edit_one(topic, group, id, envelope, by))
    }

    fn import<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        letters: &'a [DeadLetter],
        reimport: bool,
    ) -> BoxFuture<'a, Result<Vec<Imported>, Error>> {
        Box::pin(self.put_in(topic, group, letters, reimport))
    }

    fn journal<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
    ) -> BoxFuture<'a, Result<Vec<JournalEntry>, Error>> {
        Box::pin(async move {
            let rows = self.dead_letters().journal(topic, group).await?;
            Ok(rows.into_iter().filter_map(journal::operation).collect())
        })
    }
}
