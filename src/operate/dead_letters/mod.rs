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
    DeadLetterPage, DeadLetters, Imported, MessageBus, Operation, Progress, Redriven, Survey, Swept,
};
use crate::domain::BoxFuture;
use crate::domain::{
    Cause, DeadLetter, DeadLetterFilter, DeadLetterHead, EntryId, Envelope, Error, ErrorKind,
    Group, Sweep, Tally, Topic,
};
use crate::store::{Backend, Graves, Onward, Record, Restoring, Span};
use crate::wire::Limits;
use crate::wire::dead_letter::{decode_record, encode_record};

/// The dead letters of a backend.
#[derive(Clone, Debug)]
pub(crate) struct Graveyard {
    backend: Arc<dyn Backend>,
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

impl Graveyard {
    pub(crate) fn new(
        backend: Arc<dyn Backend>,
        bus: Arc<dyn MessageBus>,
        limits: Limits,
        editing: bool,
    ) -> Self {
        Self {
            backend,
            bus,
            limits,
            editing,
        }
    }

    fn graves(&self) -> &dyn Graves {
        self.backend.graves()
    }

    async fn find(
        &self,
        topic: &Topic,
        group: &Group,
        ids: &[EntryId],
    ) -> Result<Vec<DeadLetter>, Error> {
        decode(topic, group, self.graves().find(topic, group, ids).await?)
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
        let span = Span {
            after: after.max(since),
            until,
        };
        let found = self
            .graves()
            .search(topic, group, span, filter, max)
            .await?;
        Ok(DeadLetterPage {
            next: found.next(),
            letters: found.letters,
        })
    }

    /// Takes dead letters out; those that were there.
    async fn take_to(
        &self,
        topic: &Topic,
        group: &Group,
        ids: &[EntryId],
        known: &[(EntryId, DeadLetterHead)],
        onward: Onward,
        operation: Option<Uuid>,
    ) -> Result<HashSet<EntryId>, Error> {
        let items: Vec<_> = ids.iter().map(|id| (*id, onward.clone())).collect();
        self.take(topic, group, &items, known, operation).await
    }

    async fn take(
        &self,
        topic: &Topic,
        group: &Group,
        items: &[(EntryId, Onward)],
        known: &[(EntryId, DeadLetterHead)],
        operation: Option<Uuid>,
    ) -> Result<HashSet<EntryId>, Error> {
        let graves = self.graves();
        let taken = graves.take(topic, group, items, known, operation).await?;
        let done = items.iter().zip(taken).filter(|(_, taken)| *taken);
        let done: HashSet<EntryId> = done.map(|((id, _), _)| *id).collect();
        let name = match items.first() {
            Some((_, Onward::Away)) => "redstart_purged_total",
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
        again: bool,
    ) -> Result<Vec<Imported>, Error> {
        let known = self.backend.status(topic).await?;
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
        let ids = self.graves().restore(topic, group, &records, again).await?;
        let count = ids.iter().flatten().count() as u64;
        metrics::counter!("redstart_imported_total", "topic" => topic.to_string(), "group" => group.to_string())
            .increment(count);
        tracing::info!(%topic, %group, count, "dead letters were imported");
        let told = |id: Option<EntryId>| id.map_or(Imported::Known, Imported::As);
        Ok(ids.into_iter().map(told).collect())
    }
}

/// Sorts ids by what became of them.
fn account(ids: &[EntryId], taken: &HashSet<EntryId>) -> Redriven {
    let (done, missing) = ids.iter().partition(|id| taken.contains(*id));
    Redriven { done, missing }
}

impl DeadLetters for Graveyard {
    fn causes<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
    ) -> BoxFuture<'a, Result<Vec<Cause>, Error>> {
        self.graves().causes(topic, group)
    }

    fn counts<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        by: Tally,
    ) -> BoxFuture<'a, Result<Vec<(String, u64)>, Error>> {
        self.graves().counts(topic, group, by)
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
        self.graves().last(topic, group)
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
    ) -> BoxFuture<'a, Result<Redriven, Error>> {
        Box::pin(async move {
            let moved = self
                .take_to(topic, group, ids, &[], Onward::Redo, None)
                .await?;
            Ok(account(ids, &moved))
        })
    }

    fn purge<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        ids: &'a [EntryId],
    ) -> BoxFuture<'a, Result<Redriven, Error>> {
        Box::pin(async move {
            let removed = self
                .take_to(topic, group, ids, &[], Onward::Away, None)
                .await?;
            Ok(account(ids, &removed))
        })
    }

    fn survey<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        sweep: &'a Sweep,
    ) -> BoxFuture<'a, Result<Survey, Error>> {
        Box::pin(self.look_over(topic, group, sweep))
    }

    fn sweep<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        sweep: Sweep,
        progress: &'a (dyn Fn(Progress) + Send + Sync),
    ) -> BoxFuture<'a, Result<Swept, Error>> {
        Box::pin(self.begin_sweep(topic, group, sweep, progress))
    }

    fn resume<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
        operation: Uuid,
        progress: &'a (dyn Fn(Progress) + Send + Sync),
    ) -> BoxFuture<'a, Result<Swept, Error>> {
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
        again: bool,
    ) -> BoxFuture<'a, Result<Vec<Imported>, Error>> {
        Box::pin(self.put_in(topic, group, letters, again))
    }

    fn operations<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Group,
    ) -> BoxFuture<'a, Result<Vec<Operation>, Error>> {
        Box::pin(async move {
            let rows = self.graves().journal(topic, group).await?;
            Ok(rows.into_iter().filter_map(journal::operation).collect())
        })
    }
}
