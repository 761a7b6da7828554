//! The handle on dead letters: lists, and moves by id.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::future::try_join_all;
use uuid::Uuid;

use crate::api::MessageBus;
use crate::domain::{
    Cause, CountBy, DeadLetter, DeadLetterFilter, DeadLetterSummary, EntryId, Error, ErrorKind,
    Group, Moved, Topic,
};
use crate::operate::dead_letters::report::DeadLetterPage;
use crate::store::{Counted, Disposition, GroupAt, IdRange, Partition, Store};
use crate::wire::Limits;
use crate::wire::dead_letter::decode_record;

/// How many heads are read at once.
const HEADS: usize = 64;

/// The dead letters of a namespace. Cheap to clone.
///
/// # Example
///
/// ```
/// use redstart::dead_letters::{DeadLetterFilter, Sweep};
/// use redstart::{Container, Group, Topic};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), redstart::Error> {
/// let container = Container::in_memory().await?;
/// let (orders, billing) = (Topic::new("orders")?, Group::new("billing")?);
/// let dead = container.dead_letters();
/// let sweep = Sweep::redrive(DeadLetterFilter::default()).with_operator("ann");
/// assert_eq!(dead.preview(&orders, &billing, &sweep).await?.matching, 0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct DeadLetters {
    pub(super) store: Arc<dyn Store>,
    pub(super) bus: Arc<dyn MessageBus>,
    pub(super) limits: Limits,
    pub(super) editing: bool,
}

/// The name of a group in errors.
pub(super) fn subject(topic: &Topic, group: &Group) -> String {
    format!("{topic}/{group}")
}

impl DeadLetters {
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

    pub(super) fn port(&self) -> &dyn crate::store::DeadLetters {
        self.store.dead_letters()
    }

    /// Fails with [`NotFound`](ErrorKind::NotFound) where the group does not exist.
    pub(super) async fn check_group(
        &self,
        operation: &'static str,
        topic: &Topic,
        group: &Group,
    ) -> Result<(), Error> {
        let status = self.store.inspect().status(&Partition::of(topic)).await?;
        if status.is_some_and(|status| status.groups.iter().any(|one| one.group == *group)) {
            return Ok(());
        }
        let rule = "the group does not exist; subscribe once to create it";
        Err(Error::new(ErrorKind::NotFound, operation, rule).on(subject(topic, group)))
    }

    /// A group on each partition of its topic; on the whole topic where there is one.
    pub(super) async fn parts(&self, topic: &Topic, group: &Group) -> Result<Vec<GroupAt>, Error> {
        let count = self.store.topics().partitions(topic).await?.unwrap_or(1);
        if count == 1 {
            return Ok(vec![GroupAt::of(topic, group)]);
        }
        let part = |number| GroupAt {
            partition: Partition::numbered(topic, number),
            group: group.clone(),
        };
        Ok((0..count).map(part).collect())
    }

    /// The heads of the dead letters with these ids; absent ones are left out. Reads no bodies, which
    /// can be long.
    pub(super) async fn heads(
        &self,
        topic: &Topic,
        group: &Group,
        ids: &[EntryId],
    ) -> Result<Vec<(EntryId, DeadLetterSummary)>, Error> {
        let all = &DeadLetterFilter::default();
        let mut heads = Vec::with_capacity(ids.len());
        for ids in ids.chunks(HEADS) {
            let found = ids.iter().map(|id| async move {
                let range = IdRange {
                    after: id.before(),
                    until: Some(*id),
                    newest_first: false,
                };
                let at = GroupAt {
                    partition: Partition::numbered(topic, id.partition()),
                    group: group.clone(),
                };
                self.port().search(&at, range, all, 1).await
            });
            for found in try_join_all(found).await? {
                heads.extend(found.items);
            }
        }
        Ok(heads)
    }

    /// Lists the causes of a group's dead letters, the most frequent first: at most 10,000 of them.
    ///
    /// The store counts a dead letter when a message dies and when the dead letter leaves, so
    /// this call costs the same for a hundred dead letters and for a million.
    ///
    /// # Errors
    ///
    /// The kinds of the connection.
    pub async fn causes(&self, topic: &Topic, group: &Group) -> Result<Vec<Cause>, Error> {
        Ok(self.counted_causes(topic, group).await?.items)
    }

    pub(super) async fn counted_causes(
        &self,
        topic: &Topic,
        group: &Group,
    ) -> Result<Counted<Cause>, Error> {
        self.port().causes(&GroupAt::of(topic, group)).await
    }

    /// Counts a group's dead letters by type, tenant or hour; sorted by name. Of more than 10,000, the
    /// most frequent types and tenants, and the newest hours.
    ///
    /// # Errors
    ///
    /// The kinds of the connection.
    pub async fn counts(
        &self,
        topic: &Topic,
        group: &Group,
        by: CountBy,
    ) -> Result<Vec<(String, u64)>, Error> {
        let counted = self.port().counts(&GroupAt::of(topic, group), by).await?;
        Ok(counted.items)
    }

    /// How many dead letters a group has of each of some hours since 1970. [`counts`](Self::counts)
    /// reads the counts of all types, tenants and hours; this reads these hours only.
    ///
    /// # Errors
    ///
    /// The kinds of the connection.
    #[cfg(feature = "console")]
    pub(crate) async fn hours(
        &self,
        topic: &Topic,
        group: &Group,
        hours: &[u64],
    ) -> Result<Vec<u64>, Error> {
        self.port().hours(&GroupAt::of(topic, group), hours).await
    }

    /// Lists up to `max` of a group's matching dead letters after the id `after`, oldest first.
    ///
    /// Ids grow, so dead letters that come or go between two pages shift nothing. One call looks
    /// at a bounded number of dead letters: a page can hold fewer than `max`, or none, and still
    /// have a [`next`](DeadLetterPage::next) page.
    ///
    /// # Errors
    ///
    /// The kinds of the connection.
    pub async fn list(
        &self,
        topic: &Topic,
        group: &Group,
        filter: &DeadLetterFilter,
        after: Option<EntryId>,
        max: usize,
    ) -> Result<DeadLetterPage, Error> {
        let (since, until) = filter.bounds();
        let range = IdRange {
            after: after.max(since),
            until,
            newest_first: false,
        };
        self.page(topic, group, range, filter, max).await
    }

    /// Lists up to `max` of a group's matching dead letters before the id `before`, newest first.
    ///
    /// Otherwise as [`list`](Self::list). Messages that die between two pages are on neither.
    ///
    /// # Errors
    ///
    /// The kinds of the connection.
    pub async fn list_newest(
        &self,
        topic: &Topic,
        group: &Group,
        filter: &DeadLetterFilter,
        before: Option<EntryId>,
        max: usize,
    ) -> Result<DeadLetterPage, Error> {
        let (since, until) = filter.bounds();
        let before = match before.map(EntryId::before_in_topic) {
            Some(None) => return Ok(DeadLetterPage::default()),
            before => before.flatten(),
        };
        let range = IdRange {
            after: since,
            until: before.into_iter().chain(until).min(),
            newest_first: true,
        };
        self.page(topic, group, range, filter, max).await
    }

    async fn page(
        &self,
        topic: &Topic,
        group: &Group,
        range: IdRange,
        filter: &DeadLetterFilter,
        max: usize,
    ) -> Result<DeadLetterPage, Error> {
        let found = self
            .port()
            .search(&GroupAt::of(topic, group), range, filter, max.max(1))
            .await?;
        Ok(DeadLetterPage {
            next: found.next(),
            looked: found.looked,
            items: found.items,
        })
    }

    /// The id of a group's newest dead letter, if it has one. [`list`](Self::list) after this id
    /// returns the messages that died later.
    ///
    /// # Errors
    ///
    /// The kinds of the connection.
    pub async fn newest(&self, topic: &Topic, group: &Group) -> Result<Option<EntryId>, Error> {
        self.port().newest(&GroupAt::of(topic, group)).await
    }

    /// Reads whole dead letters, in the order of the ids; leaves out ids that do not exist. Holds all
    /// of them at once; [`pages`](Self::pages) reads many in pages of a bounded size.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Decode`] for a record that this version cannot read, and the kinds of the
    /// connection.
    pub async fn get(
        &self,
        topic: &Topic,
        group: &Group,
        ids: &[EntryId],
    ) -> Result<Vec<DeadLetter>, Error> {
        let found = self.find(topic, group, ids).await?;
        found.into_iter().map(|(_, letter)| letter).collect()
    }

    /// Reads whole dead letters, as [`get`](Self::get); each record that this version cannot read
    /// is an error of its own.
    pub(super) async fn find(
        &self,
        topic: &Topic,
        group: &Group,
        ids: &[EntryId],
    ) -> Result<Vec<(EntryId, Result<DeadLetter, Error>)>, Error> {
        let records = self.port().find(&GroupAt::of(topic, group), ids).await?;
        let decode = |(id, record)| {
            let letter = decode_record(topic, group, id, record).map_err(|flaw| {
                let rule = "the record is undecodable";
                Error::new(ErrorKind::Decode, "dead letter", rule)
                    .on(format!("{topic}/{group} {id}"))
                    .because(flaw)
            });
            (id, letter)
        };
        Ok(records.into_iter().map(decode).collect())
    }

    /// Brings dead letters back to the group that failed them, and to no other group. Attempts
    /// restart at 1. The store moves each one atomically: two calls never move one twice.
    ///
    /// For programs; the journal does not record it. Operators use [`sweep`](Self::sweep).
    ///
    /// # Errors
    ///
    /// The kinds of the connection. Some dead letters may have moved.
    ///
    /// # Cancel safety
    ///
    /// Some dead letters may have moved when the future is dropped, none by half.
    pub async fn redrive(
        &self,
        topic: &Topic,
        group: &Group,
        ids: &[EntryId],
    ) -> Result<Moved<EntryId>, Error> {
        let moved = self.move_all(topic, group, ids, &[], Disposition::Requeue, None);
        Ok(partition(ids, &moved.await?))
    }

    /// Removes dead letters for good.
    ///
    /// For programs; the journal does not record it. Operators use [`sweep`](Self::sweep).
    ///
    /// # Errors
    ///
    /// The kinds of the connection. Some dead letters may be gone.
    ///
    /// # Cancel safety
    ///
    /// Some dead letters may be gone when the future is dropped.
    pub async fn purge(
        &self,
        topic: &Topic,
        group: &Group,
        ids: &[EntryId],
    ) -> Result<Moved<EntryId>, Error> {
        let removed = self.move_all(topic, group, ids, &[], Disposition::Discard, None);
        Ok(partition(ids, &removed.await?))
    }

    /// Moves dead letters to one place, and returns those that existed.
    pub(super) async fn move_all(
        &self,
        topic: &Topic,
        group: &Group,
        ids: &[EntryId],
        known: &[(EntryId, DeadLetterSummary)],
        disposition: Disposition,
        operation: Option<Uuid>,
    ) -> Result<HashSet<EntryId>, Error> {
        let items: Vec<_> = ids.iter().map(|id| (*id, disposition.clone())).collect();
        self.move_each(topic, group, &items, known, operation).await
    }

    /// Moves dead letters each to its own place, and returns those that existed.
    pub(super) async fn move_each(
        &self,
        topic: &Topic,
        group: &Group,
        items: &[(EntryId, Disposition)],
        known: &[(EntryId, DeadLetterSummary)],
        operation: Option<Uuid>,
    ) -> Result<HashSet<EntryId>, Error> {
        let existed = self
            .port()
            .move_out(&GroupAt::of(topic, group), items, known, operation)
            .await?;
        let moved = items.iter().zip(existed).filter(|(_, existed)| *existed);
        let moved: HashSet<EntryId> = moved.map(|((id, _), _)| *id).collect();
        let name = match items.first() {
            Some((_, Disposition::Discard)) => "redstart_dead_letters_purged_total",
            _ => "redstart_dead_letters_redriven_total",
        };
        metrics::counter!(name, "topic" => topic.to_string(), "group" => group.to_string())
            .increment(moved.len() as u64);
        Ok(moved)
    }
}

/// Sorts ids by whether they moved.
fn partition(ids: &[EntryId], moved: &HashSet<EntryId>) -> Moved<EntryId> {
    let (moved, missing) = ids.iter().partition(|id| moved.contains(*id));
    Moved { moved, missing }
}
