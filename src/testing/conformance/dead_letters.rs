//! Dead letters: kept, counted, taken out, put in.

use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use super::Subject;
use super::support::{Must as _, Stage, group, head, quick, receipts, record, topic};
use crate::api::Delivery;
use crate::domain::{Cause, CountBy, DeadLetterFilter, EntryId, Reason};
use crate::extract::Payload;
use crate::store::{
    Commit, DeadLetters, Disposition, Found, GroupAt, IdRange, JournalRow, LONGEST_JOURNAL, Lane,
    Record, Restored, Restoring,
};

pub(super) const NOWHERE: EntryId = EntryId::new(1, 1);

impl<S: Subject> Stage<'_, S> {
    pub(super) fn dead_letters(&self) -> &dyn DeadLetters {
        self.store.dead_letters()
    }

    /// Buries so many, and returns their ids.
    pub(super) async fn seed_dead_letters(&self, count: u32) -> Vec<EntryId> {
        self.store_dead_letters((0..count).map(|_| record("body")))
            .await
    }

    /// Stores these records as dead letters and returns their ids.
    pub(super) async fn store_dead_letters(
        &self,
        records: impl ExactSizeIterator<Item = Record>,
    ) -> Vec<EntryId> {
        let count = records.len();
        self.append(0..u32::try_from(count).must("a few")).await;
        let mut hand = self.hand("one").await;
        let fetched = receipts(&self.fetch(&mut hand, count).await);
        let letters: Vec<_> = fetched
            .into_iter()
            .zip(records)
            .map(|(receipt, record)| Commit::dead_letter(receipt, record))
            .collect();
        let done = self.settle(&hand.member, &letters).await;
        assert!(done.iter().all(|done| *done));
        self.listed(IdRange::default()).await
    }

    /// The ids of a range's dead letters.
    pub(super) async fn listed(&self, range: IdRange) -> Vec<EntryId> {
        let all = DeadLetterFilter::default();
        let found = self.dead_letters().search(&self.at, range, &all, 2000);
        let found = found.await.must("searching").items;
        found.into_iter().map(|(id, _)| id).collect()
    }

    pub(super) async fn take(&self, items: &[(EntryId, Disposition)]) -> Vec<bool> {
        let taken = self.dead_letters().move_out(&self.at, items, &[], None);
        taken.await.must("taking out")
    }

    pub(super) async fn causes(&self) -> Vec<Cause> {
        let causes = self.dead_letters().causes(&self.at);
        causes.await.must("counting causes").items
    }

    pub(super) async fn counts_by(&self, by: CountBy) -> Vec<(String, u64)> {
        let counts = self.dead_letters().counts(&self.at, by);
        counts.await.must("counting").items
    }
}

pub(super) fn redelivery() -> Disposition {
    Disposition::RequeueAs(Bytes::from_static(b"p"))
}

/// > Goes to the group's dead letters.
pub async fn a_record_is_stored_unchanged<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let ids = stage.seed_dead_letters(3).await;
    assert_eq!(ids.len(), 3);
    assert_eq!(stage.counts().await, [0, 0, 0, 3]);
    let found = stage.dead_letters().find(&stage.at, &ids).await;
    let found = found.must("finding");
    let expected = ids.iter().map(|id| (*id, record("body")));
    assert_eq!(found, expected.collect::<Vec<_>>());
    let other = group("other");
    stage.create(&other).await;
    let all = DeadLetterFilter::default();
    let (at, everything) = (GroupAt::of(&stage.topic, &other), IdRange::default());
    let none = stage.dead_letters().search(&at, everything, &all, 10);
    assert_eq!(none.await.must("searching"), Found::default());
}

/// > The heads of dead letters that match, up to `max` of a range, in its order.
/// > Examines at most [`LONGEST_SEARCH`](crate::store::LONGEST_SEARCH) and returns how far it has come.
pub async fn summaries_are_found_in_pages<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let records = (0..700).map(|n| Record {
        head: head(if n % 100 == 7 { "rare" } else { "common" }),
        body: Bytes::new(),
    });
    let ids = stage.store_dead_letters(records).await;
    assert_eq!(ids.len(), 700);
    assert!(ids.is_sorted_by(|one, two| one < two));
    let search = async |range, filter: &DeadLetterFilter, max| {
        let found = stage.dead_letters().search(&stage.at, range, filter, max);
        found.await.must("searching")
    };
    let all = DeadLetterFilter::default();
    for size in [1, 10, 300] {
        let (mut seen, mut range) = (Vec::new(), IdRange::default());
        loop {
            let found = search(range, &all, size).await;
            assert!(found.items.len() <= size);
            assert_eq!(found.looked, found.items.len() as u64);
            seen.extend(found.items.iter().map(|(id, _)| *id));
            range.after = found.next();
            if range.after.is_none() || seen.len() > 20 && size == 1 {
                break;
            }
        }
        assert_eq!(seen, ids[..seen.len()]);
        assert!(size == 1 || seen.len() == 700);
    }
    let rare = DeadLetterFilter::default().with_fingerprint("rare");
    let found = search(IdRange::default(), &rare, 3).await;
    let expected = [7, 107, 207].map(|at| (ids[at], head("rare")));
    assert_eq!(found.items, expected);
    assert_eq!(
        (found.looked, found.last, found.more),
        (208, Some(ids[207]), true)
    );
    let rest = search(IdRange::after(found.next()), &rare, 100).await;
    assert_eq!(rest.items.len(), 4);
    assert_eq!(
        (rest.looked, rest.last, rest.more),
        (492, Some(ids[699]), false)
    );
    let some = IdRange {
        after: Some(ids[4]),
        until: Some(ids[307]),
        newest_first: false,
    };
    let found = search(some, &all, 1000).await;
    let found: Vec<_> = found.items.iter().map(|(id, _)| *id).collect();
    assert_eq!(found, ids[5..=307]);
}

/// > The heads of dead letters that match, up to `max` of a range, in its order.
pub async fn summaries_are_found_newest_first<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let records = (0..600).map(|n| Record {
        head: head(if n % 100 == 7 { "rare" } else { "common" }),
        body: Bytes::new(),
    });
    let ids = stage.store_dead_letters(records).await;
    let backwards: Vec<_> = ids.iter().rev().copied().collect();
    let newest = IdRange {
        newest_first: true,
        ..IdRange::default()
    };
    let search = async |range, filter: &DeadLetterFilter, max| {
        let found = stage.dead_letters().search(&stage.at, range, filter, max);
        found.await.must("searching")
    };
    let all = DeadLetterFilter::default();
    for size in [7, 250, 300] {
        let (mut seen, mut rest) = (Vec::new(), Some(newest));
        while let Some(range) = rest {
            let found = search(range, &all, size).await;
            assert!(found.items.len() <= size);
            seen.extend(found.items.iter().map(|(id, _)| *id));
            rest = found.next().and_then(|id| range.beyond(id));
        }
        assert_eq!(seen, backwards);
    }
    let rare = DeadLetterFilter::default().with_fingerprint("rare");
    let found = search(newest, &rare, 2).await;
    let expected = [507, 407].map(|at| (ids[at], head("rare")));
    assert_eq!(found.items, expected);
    assert_eq!((found.looked, found.last), (193, Some(ids[407])));
    assert!(found.more);
    let some = IdRange {
        after: Some(ids[4]),
        until: Some(ids[307]),
        newest_first: true,
    };
    let found = search(some, &all, 1000).await;
    let found: Vec<_> = found.items.iter().map(|(id, _)| *id).collect();
    assert_eq!(found, backwards[292..595]);
    let empty = IdRange {
        after: Some(ids[4]),
        until: Some(ids[4]),
        newest_first: true,
    };
    assert_eq!(search(empty, &all, 10).await, Found::default());
}

/// > The dead letters with these ids; absent ones are left out.
/// > The newest dead letter's id, if there is one.
/// > How many dead letters there are.
pub async fn records_are_found_by_id<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let last = async || stage.dead_letters().newest(&stage.at).await;
    assert_eq!(last().await.must("asking"), None);
    let ids = stage.seed_dead_letters(3).await;
    let wanted = [ids[2], NOWHERE, ids[0]];
    let found = stage.dead_letters().find(&stage.at, &wanted);
    let found = found.await.must("finding");
    let found: Vec<_> = found.iter().map(|(id, _)| *id).collect();
    assert_eq!(found, [ids[2], ids[0]]);
    assert_eq!(last().await.must("asking"), Some(ids[2]));
    stage.take(&[(ids[2], Disposition::Discard)]).await;
    assert_eq!(last().await.must("asking"), Some(ids[1]));
    let count = stage.dead_letters().count(&stage.at).await;
    assert_eq!(count.must("counting"), 2);
}

/// > How many bytes the records of the dead letters with these ids have, in the order of the ids; 0 for an absent one.
pub async fn records_are_weighed_by_id<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let records = ["", "four", "a longer body"].map(record);
    let ids = stage.store_dead_letters(records.into_iter()).await;
    let wanted = [ids[2], NOWHERE, ids[1], ids[0], ids[2]];
    let weights = stage.dead_letters().weigh(&stage.at, &wanted).await;
    assert_eq!(weights.must("weighing"), [13, 0, 4, 0, 13]);
    let nobody = GroupAt::of(&stage.topic, &group("nobody"));
    let weights = stage.dead_letters().weigh(&nobody, &wanted).await;
    assert_eq!(weights.must("weighing"), [0; 5]);
}

/// > Moves dead letters out, each atomically.
/// > For each, whether this call moved it.
pub async fn a_purge_is_final<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let ids = stage.seed_dead_letters(4).await;
    let take = async |ids: &[EntryId]| {
        let items: Vec<_> = ids.iter().map(|id| (*id, Disposition::Discard)).collect();
        stage.take(&items).await
    };
    let some = [ids[0], NOWHERE, ids[2], ids[0]];
    assert_eq!(take(&some).await, [true, false, true, false]);
    assert_eq!(stage.take(&[(ids[3], redelivery())]).await, [true]);
    let by = Uuid::from_u128(7);
    let redo = [(ids[1], Disposition::Requeue)];
    let redone = stage
        .dead_letters()
        .move_out(&stage.at, &redo, &[], Some(by));
    assert_eq!(redone.await.must("taking out"), [true]);
    assert_eq!(take(&ids).await, [false; 4]);
    assert_eq!(stage.counts().await, [0, 0, 2, 0]);
    let mut hand = stage.hand("two").await;
    let came = stage.fetch(&mut hand, 2).await;
    for one in &came {
        assert_eq!(
            (one.receipt.lane, one.attempts.begun),
            (Lane::Redelivery, 0)
        );
    }
    let field = |name: &'static str, value: &str| {
        (
            Bytes::from_static(name.as_bytes()),
            Bytes::from(value.to_owned()),
        )
    };
    let as_it_is = vec![field("dead", "body"), field("by", &by.to_string())];
    let mut fields: Vec<_> = came.into_iter().map(|one| one.fields).collect();
    fields.sort();
    assert_eq!(fields, [as_it_is, vec![field("parcel", "p")]]);
    stage.nothing(&mut hand).await;
}

/// When two callers move the same dead letters, each dead letter goes to one of them.
pub async fn each_dead_letter_is_moved_once<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let ids = stage.seed_dead_letters(60).await;
    let items: Vec<_> = ids
        .iter()
        .chain([&NOWHERE])
        .map(|id| (*id, redelivery()))
        .collect();
    let (one, two) = tokio::join!(stage.take(&items), stage.take(&items));
    for (at, (one, two)) in one.into_iter().zip(two).enumerate() {
        assert_eq!(one ^ two, at < 60, "taken by exactly one");
        assert!(!(one && two));
    }
    assert_eq!(stage.counts().await, [0, 0, 60, 0]);
    let mut hand = stage.hand("two").await;
    stage.fetch(&mut hand, 60).await;
    stage.nothing(&mut hand).await;
}

/// > Puts records in, each atomically, as the newest.
/// > Leaves out a record that the group holds already, and without `again` one of the same identity
/// > as a record that was put in before and left the group.
pub async fn an_exported_dead_letter_is_imported_once<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let ids = stage.seed_dead_letters(1).await;
    let restoring = |identity: &str, own, body: &str| Restoring {
        identity: identity.to_owned(),
        own,
        record: record(body),
    };
    let put = async |records: &[Restoring], again| {
        let put = stage.dead_letters().restore(&stage.at, records, again);
        put.await.must("putting in")
    };
    let all = [
        restoring("here", Some(ids[0]), "body"),
        // The same id in another store belongs to another message.
        restoring("there", Some(ids[0]), "other body"),
        restoring("elsewhere", None, "third body"),
        restoring("elsewhere", None, "third body"),
    ];
    let first = put(&all, false).await;
    use Restored::{Added, Gone, Present};
    let [Present, Added(two), Added(three), Present] = first[..] else {
        panic!("{first:?}");
    };
    assert!(ids[0] < two && two < three, "as the newest");
    assert_eq!(
        put(&all, false).await,
        [Present; 4],
        "a second time adds nothing"
    );
    assert_eq!(stage.listed(IdRange::default()).await, [ids[0], two, three]);
    assert_eq!(stage.causes().await[0].count, 3);
    // Also after it was redriven in between.
    stage
        .take(&[(two, redelivery()), (three, Disposition::Discard)])
        .await;
    assert_eq!(put(&all, false).await, [Present, Gone, Gone, Gone]);
    let again = put(&all[1..2], true).await;
    let [Added(id)] = again[..] else {
        panic!("{again:?}");
    };
    let ids = [id];
    let found = stage.dead_letters().find(&stage.at, &ids);
    assert_eq!(found.await.must("finding")[0].1, record("other body"));
    for again in [true, false] {
        assert_eq!(
            put(&all[1..2], again).await,
            [Present],
            "it is there already"
        );
    }
}

/// > The notes of the group by name, sorted.
/// > A name and a note are texts of the caller.
/// > Writes a note over an earlier one of the same name, or removes it.
pub async fn notes_are_kept_by_name<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let (dead_letters, at) = (stage.dead_letters(), &stage.at);
    let notes = async || dead_letters.notes(at).await.must("reading");
    assert_eq!(notes().await, []);
    let write = async |name, note| {
        let written = dead_letters.set_note(at, name, note).await;
        written.must("writing");
    };
    let pairs = |pairs: &[(&str, &str)]| {
        let owned = |(name, note): &(&str, &str)| ((*name).to_owned(), (*note).to_owned());
        pairs.iter().map(owned).collect::<Vec<_>>()
    };
    write("b # \u{1b}", Some("two\nlines")).await;
    write("a", Some("first")).await;
    write("", Some("no name")).await;
    write("a", Some("second")).await;
    let expected = pairs(&[
        ("", "no name"),
        ("a", "second"),
        ("b # \u{1b}", "two\nlines"),
    ]);
    assert_eq!(notes().await, expected);
    let other = GroupAt::of(&stage.topic, &group("other"));
    assert_eq!(dead_letters.notes(&other).await.must("reading"), []);
    for name in ["a", "", "nobody"] {
        write(name, None).await;
    }
    assert_eq!(notes().await, pairs(&[("b # \u{1b}", "two\nlines")]));
    let removed = stage.store.topics().remove_group(at, Duration::ZERO, true);
    assert!(removed.await.must("removing").must("the group").removed);
    stage.create(&stage.at.group).await;
    assert_eq!(notes().await, [], "they go with their group");
}

/// > Writes the order of an operation into the group's journal, which keeps the newest
/// > [`LONGEST_JOURNAL`].
/// > Writes the result of an operation into the group's journal, if the journal has the operation.
/// > The operations in the group's journal, oldest first.
/// > The journal of `operation` counts them in the same step.
pub async fn the_journal_lists_the_operations<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let (dead_letters, at) = (stage.dead_letters(), &stage.at);
    let ids = stage.seed_dead_letters(3).await;
    let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
    for (id, order) in [(two, "second"), (one, "first")] {
        let begun = dead_letters.begin_operation(at, id, order).await;
        begun.must("beginning");
    }
    let items = [
        (ids[0], Disposition::Discard),
        (NOWHERE, Disposition::Discard),
        (ids[1], redelivery()),
    ];
    let taken = dead_letters.move_out(at, &items, &[], Some(one)).await;
    assert_eq!(taken.must("taking out"), [true, false, true]);
    let ended = dead_letters.end_operation(at, one, "done").await;
    ended.must("ending");
    let row = |id, order: &str, taken, cursor, result: Option<&str>| JournalRow {
        id,
        order: order.to_owned(),
        taken,
        cursor,
        result: result.map(str::to_owned),
    };
    let journal = async || dead_letters.journal(at).await.must("reading");
    let rows = [
        row(one, "first", 2, Some(ids[1]), Some("done")),
        row(two, "second", 0, None, None),
    ];
    assert_eq!(journal().await, rows);
    for n in 0..LONGEST_JOURNAL as u128 {
        let id = Uuid::from_u128(10 + n);
        dead_letters
            .begin_operation(at, id, "")
            .await
            .must("beginning");
    }
    let rows = journal().await;
    assert_eq!(rows.len(), LONGEST_JOURNAL);
    assert_eq!(
        rows[0].id,
        Uuid::from_u128(10),
        "the oldest row was removed"
    );
    // A late update does not restore a part of a removed row.
    let taken = dead_letters
        .move_out(at, &[(ids[2], Disposition::Discard)], &[], Some(one))
        .await;
    assert_eq!(taken.must("taking out"), [true]);
    let ended = dead_letters.end_operation(at, one, "late").await;
    ended.must("ending");
    assert_eq!(journal().await, rows);
}

/// > A group that does not exist gets no journal.
/// > A group that does not exist gets no notes.
///
/// A group that is created later begins without them, and a misspelt name leaves nothing behind.
pub async fn a_group_that_does_not_exist_gets_no_journal_and_no_notes<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let dead_letters = stage.dead_letters();
    let (other, operation) = (group("other"), Uuid::from_u128(1));
    let misspelt = GroupAt::of(&stage.topic, &other);
    let nowhere = GroupAt::of(&topic("nowhere"), &other);
    for at in [&misspelt, &nowhere] {
        let begun = dead_letters.begin_operation(at, operation, "order").await;
        begun.must("beginning");
        let ended = dead_letters.end_operation(at, operation, "done").await;
        ended.must("ending");
        let written = dead_letters.set_note(at, "cause", Some("note")).await;
        written.must("writing");
    }
    stage.create(&other).await;
    let journal = dead_letters.journal(&misspelt).await;
    assert_eq!(journal.must("reading"), []);
    assert_eq!(dead_letters.notes(&misspelt).await.must("reading"), []);
}

/// A dead letter carries its message, its error and its history.
pub async fn a_dead_letter_carries_its_history<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let handler = |_: Payload<u32>, delivery: Delivery| async move {
        Err::<(), _>(format!("no user {}", delivery.attempt()))
    };
    let bus = stage.container.bus();
    let made = bus.subscribe_with(&stage.topic, quick(3), handler).await;
    let _subscription = made.must("subscribing");
    let envelope = super::support::number(7).with_tenant("t-1");
    let published = bus.publish(&stage.topic, &envelope).await;
    let published = published.must("publishing");
    stage
        .until("the dead letter", async || {
            let status = stage
                .store
                .inspect()
                .status(stage.partition())
                .await
                .must("asking");
            let groups = status.must("the topic").groups;
            groups.iter().any(|group| group.dead == 1).then_some(())
        })
        .await;
    let letter = stage.letters().await.pop().must("the letter");
    assert_eq!((letter.reason, letter.attempts), (Reason::Exhausted, 3));
    assert_eq!(letter.error, "no user 3");
    assert_eq!(letter.fingerprint, "no user #");
    assert_eq!(
        (letter.message_type.as_str(), letter.tenant.as_deref()),
        ("n", Some("t-1"))
    );
    assert_eq!(letter.history.origin, published.id);
    let history: Vec<_> = letter
        .history
        .failures
        .iter()
        .map(|one| one.number)
        .collect();
    assert_eq!(history, [1, 2, 3]);
    let kept = letter.envelope().must("decoding");
    assert_eq!(kept.id(), envelope.id());
    assert_eq!(letter.message_id, Some(envelope.id()));
    assert_eq!(letter.correlation.as_deref(), envelope.correlation());
    stage.finish().await;
}
