//! Counts of dead letters by cause, type, tenant and hour.

use bytes::Bytes;

use super::Subject;
use super::dead_letters::{NOWHERE, redelivery};
use super::support::{Must as _, Stage, head, record};
use crate::domain::{Cause, CountBy, DeadLetterFilter, Reason, hour_name};
use crate::store::{Disposition, IdRange, LONGEST_COUNTS, Record, Restoring};

/// > How many dead letters there are of each cause, the most frequent first. Exact at any number of
/// > dead letters: the store counts as they come and go.
pub async fn causes_are_counted<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    assert!(stage.causes().await.is_empty());
    let errors = ["no user 1", "no user 2", "no money", "no user 3"];
    let records = errors.map(|error| Record {
        head: head(error),
        body: Bytes::new(),
    });
    stage.store_dead_letters(records.into_iter()).await;
    let (range, all) = (IdRange::default(), DeadLetterFilter::default());
    let found = stage.dead_letters().search(&stage.at, range, &all, 4);
    let found = found.await.must("searching").items;
    // Over partitions the ids need not have the order of the errors.
    let ids = errors.map(|error| {
        let found = found.iter().find(|(_, head)| head.error == error);
        found.must("a dead letter").0
    });
    let users = [ids[0], ids[1], ids[3]];
    let told = async || {
        let causes = stage.causes().await;
        let told = |one: Cause| (one.reason, one.fingerprint, one.count, one.last);
        causes.into_iter().map(told).collect::<Vec<_>>()
    };
    let cause =
        |fingerprint: &str, count, last| (Reason::Rejected, fingerprint.to_owned(), count, last);
    let both = [
        cause("no user #", 3, users.into_iter().max().must("three")),
        cause("no money", 1, ids[2]),
    ];
    assert_eq!(told().await, both);
    let first = users.into_iter().min().must("three");
    assert_eq!(stage.causes().await[0].first, first);
    stage
        .take(&[(ids[1], Disposition::Discard), (ids[2], redelivery())])
        .await;
    let last = ids[0].max(ids[3]);
    assert_eq!(told().await, [cause("no user #", 2, last)]);
    stage
        .take(&[
            (ids[0], Disposition::Discard),
            (ids[3], Disposition::Discard),
        ])
        .await;
    assert!(told().await.is_empty(), "no count outlives its records");
}

/// > How many dead letters there are by type, by tenant or by the hour of their failure, by name.
/// > Exact, as for `causes`.
/// > How many dead letters there are of each of some hours since 1970, in the order of the hours.
/// > Exact, as for `causes`.
pub async fn types_tenants_and_hours_are_counted<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let records = [("a", Some("t")), ("b", None), ("a", None)].map(|(kind, tenant)| {
        let mut record = record("body");
        record.head.message_type = kind.to_owned();
        record.head.tenant = tenant.map(str::to_owned);
        record
    });
    let ids = stage.store_dead_letters(records.into_iter()).await;
    let named = |counts: &[(&str, u64)]| {
        let owned = counts
            .iter()
            .map(|(name, count)| ((*name).to_owned(), *count));
        owned.collect::<Vec<_>>()
    };
    assert_eq!(
        stage.counts_by(CountBy::Type).await,
        named(&[("a", 2), ("b", 1)])
    );
    assert_eq!(
        stage.counts_by(CountBy::Tenant).await,
        named(&[("", 2), ("t", 1)])
    );
    let mut hours = std::collections::BTreeMap::new();
    for id in &ids {
        *hours.entry(hour_name(id.millis / 3_600_000)).or_default() += 1;
    }
    assert_eq!(
        stage.counts_by(CountBy::Hour).await,
        hours.into_iter().collect::<Vec<_>>()
    );
    let of_hours = async || {
        let (first, last) = (ids[0].millis / 3_600_000, ids[2].millis / 3_600_000);
        let hours: Vec<u64> = (first..=last).chain([0]).collect();
        let dead_letters = stage.dead_letters();
        let mut counts = dead_letters.hours(&stage.at, &hours).await.must("counting");
        assert_eq!((counts.len(), counts.pop()), (hours.len(), Some(0)));
        counts.iter().sum::<u64>()
    };
    assert_eq!(of_hours().await, 3);
    let (range, all) = (IdRange::default(), DeadLetterFilter::default());
    let found = stage.dead_letters().search(&stage.at, range, &all, 3);
    let mut found = found.await.must("searching").items;
    // That with the tenant, the other type, the rest.
    found.sort_by_key(|(_, head)| (head.tenant.is_none(), head.message_type == "a"));
    let ids: Vec<_> = found.into_iter().map(|(id, _)| id).collect();
    stage
        .take(&[(ids[0], Disposition::Discard), (ids[1], redelivery())])
        .await;
    assert_eq!(of_hours().await, 1);
    assert_eq!(stage.counts_by(CountBy::Type).await, named(&[("a", 1)]));
    assert_eq!(stage.counts_by(CountBy::Tenant).await, named(&[("", 1)]));
    stage.take(&[(ids[2], Disposition::Discard)]).await;
    assert!(stage.counts_by(CountBy::Hour).await.is_empty());
}

/// `count` records, with the causes in turn.
fn of_causes(causes: &[&str], count: usize) -> impl ExactSizeIterator<Item = Record> {
    (0..count).map(|n| Record {
        head: head(causes[n % causes.len()]),
        body: Bytes::new(),
    })
}

/// The counts stay right whichever dead letters leave, in any order.
pub async fn counts_follow_every_way_of_moving<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let ids = stage
        .store_dead_letters(of_causes(&["one", "two", "three"], 400))
        .await;
    let (range, all) = (IdRange::default(), DeadLetterFilter::default());
    let found = stage.dead_letters().search(&stage.at, range, &all, 400);
    let found = found.await.must("searching").items;
    let mut items: Vec<_> = ids
        .iter()
        .step_by(9)
        .map(|id| (*id, Disposition::Discard))
        .collect();
    items.extend([
        (ids[399], Disposition::Discard),
        (ids[398], Disposition::Discard),
        (NOWHERE, Disposition::Discard),
    ]);
    items.rotate_left(20);
    let taken = stage.take(&items).await;
    assert_eq!(taken.iter().filter(|taken| **taken).count(), 47);
    let gone = |at: &usize| at.is_multiple_of(9) || *at >= 398;
    let mut causes = stage.causes().await;
    causes.sort_by(|a, b| a.fingerprint.cmp(&b.fingerprint));
    let counts = causes
        .iter()
        .map(|cause| (&*cause.fingerprint, cause.count));
    let left = |cause| {
        let left = (0..400).filter(|at| !gone(at) && found[*at].1.fingerprint == cause);
        (cause, left.count() as u64)
    };
    let expected = ["one", "three", "two"].map(left);
    assert_eq!(counts.collect::<Vec<_>>(), expected);
    assert_eq!(
        stage.counts_by(CountBy::Type).await,
        [("n".to_owned(), 353)]
    );
}

/// > A store may need their heads. It need not read those in `known` again, which a search has found
/// > and which are in its order: a head never changes.
pub async fn counts_are_the_same_where_summaries_are_known<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let ids = stage
        .store_dead_letters(of_causes(&["one", "two", "three"], 90))
        .await;
    let all = DeadLetterFilter::default();
    let found = stage
        .dead_letters()
        .search(&stage.at, IdRange::default(), &all, 100);
    let found = found.await.must("searching").items;
    assert_eq!(found.len(), ids.len());
    let items: Vec<_> = ids[..60]
        .iter()
        .map(|id| (*id, Disposition::Discard))
        .collect();
    // All of them, some of them, and more than are taken.
    for (portion, known) in [(0..20, 0..20), (20..40, 25..31), (40..60, 0..90)] {
        let (items, known) = (&items[portion], &found[known]);
        let dead_letters = stage.dead_letters();
        let taken = dead_letters.move_out(&stage.at, items, known, None);
        assert_eq!(taken.await.must("taking out"), [true; 20]);
    }
    let counts = stage.causes().await.into_iter().map(|cause| cause.count);
    assert_eq!(counts.collect::<Vec<_>>(), [10, 10, 10]);
    assert_eq!(stage.counts_by(CountBy::Type).await, [("n".to_owned(), 30)]);
}

/// The counts stay right during and after concurrent moves.
pub async fn counts_are_right_while_dead_letters_move<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let ids = stage
        .store_dead_letters(of_causes(&["one", "two", "three", "four", "five"], 600))
        .await;
    // Each task moves every fifth dead letter in small steps, and half of its neighbour's share.
    let taking = async |first: usize| {
        let mine = ids.iter().skip(first).step_by(5);
        let others = ids.iter().skip((first + 1) % 4).step_by(10);
        let items: Vec<_> = mine
            .chain(others)
            .map(|id| (*id, Disposition::Discard))
            .collect();
        let mut taken = 0;
        for some in items.chunks(7) {
            taken += stage
                .take(some)
                .await
                .iter()
                .filter(|taken| **taken)
                .count();
        }
        taken
    };
    let looking = async {
        for _ in 0..30 {
            let left: u64 = stage.causes().await.iter().map(|cause| cause.count).sum();
            assert!((120..=600).contains(&left), "{left}");
        }
    };
    let (a, b, c, d, ()) = tokio::join!(taking(0), taking(1), taking(2), taking(3), looking);
    assert_eq!(a + b + c + d, 480);
    let causes = stage.causes().await;
    let left: Vec<_> = causes
        .iter()
        .map(|one| (&*one.fingerprint, one.count))
        .collect();
    assert_eq!(left, [("five", 120)]);
    assert_eq!(
        stage.counts_by(CountBy::Type).await,
        [("n".to_owned(), 120)]
    );
}

/// The counts stay right when every dead letter has its own cause and tenant.
pub async fn each_of_many_causes_is_counted<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let records = (0..300).map(|n| {
        let mut record = record("body");
        record.head.fingerprint = format!("cause {n}");
        record.head.tenant = Some(format!("tenant {n}"));
        record
    });
    let ids = stage.store_dead_letters(records).await;
    let some: Vec<_> = ids[..280]
        .iter()
        .map(|id| (*id, Disposition::Discard))
        .collect();
    assert_eq!(stage.take(&some).await, [true; 280]);
    let mut left: Vec<_> = stage.causes().await;
    left.sort_by_key(|cause| cause.first);
    let names = left.iter().map(|one| (one.fingerprint.clone(), one.count));
    let expected = (280..300).map(|n| (format!("cause {n}"), 1));
    assert_eq!(names.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    assert_eq!(stage.counts_by(CountBy::Tenant).await.len(), 20);
    assert_eq!(stage.counts_by(CountBy::Type).await, [("n".to_owned(), 20)]);
}

/// > Names at most [`LONGEST_COUNTS`], and says how many others there are.
/// > Names as many, the most frequent types and tenants, and the newest hours.
pub async fn of_very_many_causes_the_most_frequent_are_named<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let rare = LONGEST_COUNTS + 50;
    let often = (0..2).map(|_| "often".to_owned());
    let names = (0..rare).map(|n| format!("rare {n}")).chain(often);
    let restoring = names.enumerate().map(|(n, name)| {
        let mut record = record("");
        record.head.fingerprint.clone_from(&name);
        record.head.tenant = Some(name);
        Restoring {
            identity: n.to_string(),
            own: None,
            record,
        }
    });
    let restoring: Vec<Restoring> = restoring.collect();
    let dead = stage.dead_letters();
    let restored = dead.restore(&stage.at, &restoring, false).await;
    assert_eq!(restored.must("restoring").len(), rare + 2);

    let causes = dead.causes(&stage.at).await.must("counting");
    assert_eq!((causes.items.len(), causes.others), (LONGEST_COUNTS, 51));
    let first = &causes.items[0];
    assert_eq!((&*first.fingerprint, first.count), ("often", 2));
    assert!(first.first < first.last);
    let tenants = dead.counts(&stage.at, CountBy::Tenant).await;
    let tenants = tenants.must("counting");
    assert_eq!((tenants.items.len(), tenants.others), (LONGEST_COUNTS, 51));
    assert!(tenants.items.is_sorted());
    assert!(tenants.items.contains(&("often".to_owned(), 2)));
    assert_eq!(stage.counts_by(CountBy::Type).await.len(), 1);
}
