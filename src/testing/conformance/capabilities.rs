//! Operations as data: a store does nothing before it is asked, and reads any set of sources.

use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use super::Subject;
use super::support::{DAY, Must as _, SOON, Stage, begins, entry, receipts, record, topic};
use crate::domain::{DeadLetterFilter, TopicSettings};
use crate::store::decorate::Op;
use crate::store::{
    Commit, Commits, DeadLettersOp, DeliveriesOp, Disposition, GroupAt, IdRange, Lane, LogOp,
    Opening, Reading, ReclaimCursor, Restoring, Ring, ScheduleOp, StartFrom, TopicsOp, Unmarked,
    ValuesOp,
};

/// Dropping the future of an operation before its first poll does nothing.
pub async fn a_dropped_operation_does_nothing<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    stage.append(0..5).await;
    let mut hand = stage.hand("one").await;
    let fetched = receipts(&stage.fetch(&mut hand, 4).await);
    let (by, at) = (&hand.member, &stage.at);
    let ends = [
        Commit::reschedule(fetched[0], DAY, Bytes::from_static(b"p")),
        Commit::dead_letter(fetched[1], record("body")),
    ];
    stage.settle(by, &ends).await;
    let all = DeadLetterFilter::default();
    let dead = stage.store.dead_letters();
    let found = dead.search(at, IdRange::default(), &all, 10).await;
    let dead_id = found.must("searching").items[0].0;
    let before = state(&stage).await;

    let (other, entries) = (topic("other"), [entry(7)]);
    let other_at = GroupAt::of(&other, &stage.group);
    let commits: Commits = [
        Commit::ack(fetched[2]),
        Commit::reschedule(fetched[3], SOON, Bytes::new()),
    ]
    .into_iter()
    .collect();
    let begins = begins(&fetched[2..], 1);
    let moves = [(dead_id, Disposition::Requeue)];
    let restored = [Restoring {
        identity: "elsewhere".to_owned(),
        own: None,
        record: record("other"),
    }];
    let (scheduled, key, value) = (&fetched[..1], "dropped", Bytes::from_static(b"1"));
    let values = [(key, value.clone())];
    let (settings, start, id) = (TopicSettings::default(), StartFrom::Beginning, Uuid::nil());
    let (partition, cursor) = (stage.partition(), ReclaimCursor::default());
    for op in [
        Op::Topics(TopicsOp::EnsureTopic {
            topic: &other,
            settings,
        }),
        Op::Topics(TopicsOp::CreateGroup {
            at: &other_at,
            start,
        }),
        Op::Topics(TopicsOp::RemoveGroup {
            at,
            quiet: Duration::ZERO,
            force: true,
        }),
        Op::Log(LogOp::Append {
            at: partition,
            entries: &entries,
        }),
        Op::Log(LogOp::AppendOnce {
            at: partition,
            window: DAY,
            entries: &entries,
        }),
        Op::Deliveries(DeliveriesOp::Commit {
            by,
            commits: &commits,
        }),
        Op::Deliveries(DeliveriesOp::Begin {
            by,
            begins: &begins,
        }),
        Op::Deliveries(DeliveriesOp::ClaimExpired {
            by: &stage.member("two"),
            lease: Duration::ZERO,
            unmarked: Unmarked::Begun,
            cursor,
            max: 10,
        }),
        Op::Schedule(ScheduleOp::RunNow {
            at,
            receipts: scheduled,
        }),
        Op::Schedule(ScheduleOp::Cancel {
            at,
            receipts: scheduled,
        }),
        Op::DeadLetters(DeadLettersOp::MoveOut {
            at,
            items: &moves,
            known: &[],
            operation: None,
        }),
        Op::DeadLetters(DeadLettersOp::Restore {
            at,
            records: &restored,
            again: false,
        }),
        Op::DeadLetters(DeadLettersOp::BeginOperation {
            at,
            operation: id,
            order: "order",
        }),
        Op::Values(ValuesOp::Set {
            entries: &values,
            ttl: None,
        }),
        Op::Values(ValuesOp::Insert {
            key,
            value: &value,
            ttl: DAY,
        }),
        Op::Values(ValuesOp::Incr { key, by: 1 }),
        Op::Values(ValuesOp::Claim {
            key,
            token: "one",
            lease: DAY,
        }),
    ] {
        drop(op.run(&*stage.store));
        // An operation that was sent in spite of it is done by then.
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert_eq!(state(&stage).await, before, "{}", op.name());
    }
}

/// Everything that the operations above would change.
async fn state<S: Subject>(stage: &Stage<'_, S>) -> String {
    let (store, at) = (&stage.store, &stage.at);
    let topics = store.topics().list().await.must("listing");
    let status = store
        .inspect()
        .status(stage.partition())
        .await
        .must("asking");
    let deliveries = store.deliveries();
    let pending = [stage.member("one"), stage.member("two")];
    let pending = [
        deliveries.pending_of(&pending[0], 10).await.must("asking"),
        deliveries.pending_of(&pending[1], 10).await.must("asking"),
    ];
    let journal = store.dead_letters().journal(at).await.must("reading");
    let value = match store.capabilities().values {
        true => store.values().get(&["dropped"]).await.must("reading"),
        false => Vec::new(),
    };
    format!("{topics:?} {status:?} {pending:?} {journal:?} {value:?}")
}

/// > Which source of the reader's [`Opening`] it came from.
pub async fn a_reader_reads_all_of_its_sources<S: Subject>(subject: &S) {
    let mut stage = Stage::new(subject).await;
    stage.append(0..2).await;
    let mut opening = Opening::of(&stage.member("one"));
    stage.move_to(topic("others"));
    stage.create(&stage.group).await;
    stage.append(2..5).await;
    opening
        .sources
        .extend(Opening::of(&stage.member("one")).sources);
    let opened = stage.store.open(&opening).await;
    let (mut reader, _) = opened.must("opening a reader");
    let fetched = reader.fetch(10, Duration::ZERO).await.must("fetching");
    let sources: Vec<_> = fetched.iter().map(|one| one.source).collect();
    assert_eq!(sources, [0, 0, 2, 2, 2]);
    for one in &fetched {
        let source = &opening.sources[usize::from(one.source)];
        assert_eq!(source.lane, Lane::Log);
        let log = stage.store.log().browse(&source.partition, None, 10).await;
        let here = log
            .must("browsing")
            .iter()
            .any(|(id, _)| *id == one.receipt.id);
        assert!(here, "{one:?} is not in {}", source.partition);
    }
}

/// > Tells when something of a group may have changed, for as long as the bell is held. `None` where
/// > the store cannot tell; the runtime then looks at regular times.
///
/// > Waits, for any time, until a fetch may find entries. The next fetch then looks at once and does
/// > not wait. If no fetch follows, the next wait returns at once. `None` for a reader that can only
/// > wait within a fetch.
pub async fn a_bell_rings_for_entries_and_retries<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let Some(bell) = stage.store.bell(&stage.at) else {
        return;
    };
    let by = stage.member("one");
    let opening = Opening::of(&by).with_reading(Reading::Shared);
    let opened = stage.store.open(&opening).await;
    let (mut reader, _) = opened.must("opening a reader");
    if reader.ready().is_none() {
        return;
    }
    stage
        .until("the store to tell of changes", async || {
            bell.hears().then_some(())
        })
        .await;
    let rung = async |ring, seen| {
        let rung = bell.rung_since(ring, seen);
        let rung = tokio::time::timeout(subject.patience(), rung).await;
        assert!(rung.is_ok(), "no ring of {ring:?}");
    };
    let seen = bell.count(Ring::Entries);
    stage.append(0..1).await;
    rung(Ring::Entries, seen).await;
    let fetched = stage
        .until("the entry", async || {
            for wait in ["the first", "one without a fetch"] {
                let ready = reader.ready().must("waiting without a fetch");
                let ready = tokio::time::timeout(subject.patience(), ready).await;
                assert!(ready.is_ok(), "an entry makes no reader ready: {wait}");
            }
            let fetched = reader.fetch(10, DAY).await.must("fetching");
            fetched.first().map(|one| one.receipt)
        })
        .await;
    let seen = bell.count(Ring::Due);
    let later = Commit::reschedule(fetched, DAY, Bytes::from_static(b"p"));
    stage.settle(&by, &[later]).await;
    rung(Ring::Due, seen).await;
    // What comes back from the schedule rings as an entry.
    let seen = bell.count(Ring::Entries);
    let moved = stage.store.schedule().run_now(&stage.at, &[fetched]).await;
    assert_eq!(moved.must("running a retry"), [true]);
    rung(Ring::Entries, seen).await;
}

/// A claim says how many entries the members of the group hold, whether their lease has expired or not.
pub async fn a_claim_counts_what_the_group_holds<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let (one, two) = (stage.member("one"), stage.member("two"));
    let pending = async || {
        let (unmarked, cursor) = (Unmarked::Begun, ReclaimCursor::default());
        let deliveries = stage.store.deliveries();
        let claimed = deliveries.claim_expired(&two, DAY, unmarked, cursor, 10);
        claimed.await.must("claiming").pending
    };
    assert_eq!(pending().await, 0);
    stage.append(0..2).await;
    assert_eq!(pending().await, 0, "nobody holds them");
    let mut hand = stage.hand("one").await;
    let fetched = receipts(&stage.fetch(&mut hand, 2).await);
    assert_eq!(pending().await, 2);
    let retry = Commit::reschedule(fetched[0], DAY, Bytes::from_static(b"p"));
    stage.settle(&one, &[retry]).await;
    let moved = stage
        .store
        .schedule()
        .run_now(&stage.at, &fetched[..1])
        .await;
    assert_eq!(moved.must("running a retry"), [true]);
    assert_eq!(pending().await, 1);
    stage.fetch(&mut hand, 1).await;
    assert_eq!(pending().await, 2, "a redelivery counts as well");
    stage.acknowledge(&one, &fetched[1..]).await;
    assert_eq!(pending().await, 1);
}
