//! Effects: messages, values and an acknowledgement in one step, or none of them.

use bytes::Bytes;

use super::Subject;
use super::support::{DAY, Hand, Must as _, Stage, entry, later, receipts, topic};
use crate::api::ClaimResult;
use crate::domain::ErrorKind;
use crate::store::{
    DeliveryId, Effect, EffectCommit, EffectFate, Lane, Member, Partition, Refusal, Session,
};

/// The value of a key, as text.
async fn value<S: Subject>(stage: &Stage<'_, S>, key: &str) -> Option<String> {
    let found = stage.store.values().get(&[key]).await.must("getting");
    let bytes = found.into_iter().next().flatten()?;
    Some(String::from_utf8(bytes.to_vec()).must("reading"))
}

async fn put<S: Subject>(stage: &Stage<'_, S>, entries: &[(&str, &'static str)]) {
    let entries: Vec<_> = entries
        .iter()
        .map(|(key, value)| (*key, Bytes::from_static(value.as_bytes())))
        .collect();
    let stored = stage.store.values().set(&entries, None).await;
    stored.must("setting");
}

async fn lengths<S: Subject>(stage: &Stage<'_, S>, topics: &[&Partition]) -> Vec<usize> {
    let mut lengths = Vec::new();
    for at in topics {
        let found = stage.store.log().latest(at, 100).await.must("reading");
        lengths.push(found.len());
    }
    lengths
}

fn text(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn publish(at: &Partition, n: u32) -> Effect {
    Effect::Publish {
        at: at.clone(),
        entry: entry(n),
        window: None,
    }
}

fn set(key: &str, value: &'static str) -> Effect {
    Effect::Set {
        key: key.to_owned(),
        value: text(value),
        ttl: None,
    }
}

fn increment(key: &str, by: i64) -> Effect {
    increment_within(key, by, None)
}

fn increment_within(key: &str, by: i64, within: Option<(i64, i64)>) -> Effect {
    let key = key.to_owned();
    Effect::Increment { key, by, within }
}

fn replace(key: &str, seen: Option<&'static str>, value: &'static str) -> Effect {
    Effect::Replace {
        key: key.to_owned(),
        seen: seen.map(text),
        value: text(value),
        ttl: None,
    }
}

fn insert(key: &str, value: &'static str) -> Effect {
    Effect::Insert {
        key: key.to_owned(),
        value: text(value),
        ttl: None,
    }
}

fn delete(key: &str) -> Effect {
    let key = key.to_owned();
    Effect::Delete { key }
}

fn unchanged(key: &str, seen: Option<&'static str>) -> Effect {
    Effect::Unchanged {
        key: key.to_owned(),
        seen: seen.map(text),
    }
}

fn once(key: &str) -> Effect {
    let key = key.to_owned();
    Effect::Once { key, ttl: DAY }
}

fn acknowledging(delivery: DeliveryId, effects: Vec<Effect>) -> EffectCommit {
    EffectCommit {
        delivery,
        acknowledges: true,
        only_copy: false,
        effects,
    }
}

fn done_without_messages() -> EffectFate {
    EffectFate::Done(Vec::new())
}

/// A topic with a group, a consumer that holds some messages, and numbered calls.
struct Scene<'a, S> {
    stage: Stage<'a, S>,
    hand: Hand,
    held: Vec<DeliveryId>,
    number: std::cell::Cell<u64>,
}

impl<'a, S: Subject> Scene<'a, S> {
    async fn new(subject: &'a S, messages: u32) -> Self {
        let stage = Stage::new(subject).await;
        stage.append(0..messages).await;
        let mut hand = stage.hand("one").await;
        let fetched = stage.fetch(&mut hand, messages as usize).await;
        Self {
            held: receipts(&fetched),
            stage,
            hand,
            number: std::cell::Cell::new(0),
        }
    }

    async fn commit(&self, commits: &[EffectCommit]) -> Vec<EffectFate> {
        self.commit_by(&self.hand.member, commits).await
    }

    async fn commit_by(&self, by: &Member, commits: &[EffectCommit]) -> Vec<EffectFate> {
        self.number.set(self.number.get() + 1);
        let effects = self.stage.store.effects();
        let fates = effects.commit(by, self.number.get(), commits).await;
        fates.must("committing")
    }

    async fn pending(&self) -> Vec<DeliveryId> {
        let deliveries = self.stage.store.deliveries();
        let pending = deliveries.pending_of(&self.hand.member, 100).await;
        pending.must("listing")
    }
}

/// > Writes the effects of deliveries that the member holds, and acknowledges these deliveries.
pub async fn effects_are_written_with_their_acknowledgement<S: Subject>(subject: &S) {
    let scene = Scene::new(subject, 2).await;
    let stage = &scene.stage;
    let (bills, mails) = (
        Partition::of(&topic("bills")),
        Partition::of(&topic("mails")),
    );
    put(stage, &[("gone", "x"), ("stock", "9"), ("seen", "s")]).await;
    let effects = vec![
        publish(&bills, 1),
        set("name", "ann"),
        increment("sum", 7),
        insert("fresh", "f"),
        publish(&mails, 2),
        replace("stock", Some("9"), "8"),
        replace("absent", None, "a"),
        unchanged("seen", Some("s")),
        unchanged("nothing", None),
        once("work:1"),
        delete("gone"),
        publish(&bills, 3),
    ];
    let fates = scene.commit(&[acknowledging(scene.held[0], effects)]).await;
    let [EffectFate::Done(appended)] = &fates[..] else {
        panic!("{fates:?}");
    };
    let log = stage.store.log();
    let found = log.latest(&bills, 10).await.must("reading");
    let ids: Vec<_> = found.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, [appended[0].id, appended[2].id]);
    let mail = log.latest(&mails, 10).await.must("reading");
    assert_eq!(mail[0].0, appended[1].id);
    for (key, expected) in [
        ("name", Some("ann")),
        ("sum", Some("7")),
        ("fresh", Some("f")),
        ("stock", Some("8")),
        ("absent", Some("a")),
        ("seen", Some("s")),
        ("nothing", None),
        ("work:1", Some("true")),
        ("gone", None),
    ] {
        assert_eq!(value(stage, key).await.as_deref(), expected, "{key}");
    }
    assert_eq!(scene.pending().await, [scene.held[1]]);
}

/// > Each commit is all or nothing: its effects and its acknowledgement.
/// > A commit that is refused changes nothing about the others.
pub async fn a_refused_effect_leaves_nothing<S: Subject>(subject: &S) {
    let scene = Scene::new(subject, 40).await;
    let stage = &scene.stage;
    let bills = Partition::of(&topic("bills"));
    let before = [
        ("text", "ann"),
        ("full", "9223372036854775807"),
        ("stock", "9"),
        ("zero", "07"),
        ("gone", "x"),
    ];
    put(stage, &before).await;
    let refused = |refusal| EffectFate::Refused(4, refusal);
    let mut next = 0;
    for (bad, fate) in [
        (insert("stock", "1"), EffectFate::Differs(4)),
        (replace("stock", Some("8"), "7"), EffectFate::Differs(4)),
        (replace("stock", None, "7"), EffectFate::Differs(4)),
        (replace("absent", Some(""), "7"), EffectFate::Differs(4)),
        (unchanged("stock", Some("8")), EffectFate::Differs(4)),
        (unchanged("absent", Some("8")), EffectFate::Differs(4)),
        (increment("text", 1), refused(Refusal::NotAnInteger)),
        (increment("zero", 1), refused(Refusal::NotAnInteger)),
        (increment("full", 1), refused(Refusal::OutOfRange)),
        (
            increment_within("stock", -10, Some((0, 100))),
            refused(Refusal::OutOfRange),
        ),
        (
            increment_within("stock", 92, Some((0, 100))),
            refused(Refusal::OutOfRange),
        ),
    ] {
        let case = format!("{bad:?}");
        let effects = vec![
            publish(&bills, 1),
            set("new", "n"),
            increment("sum", 1),
            delete("gone"),
            bad,
        ];
        let commits = [
            acknowledging(scene.held[next], vec![increment("others", 1)]),
            acknowledging(scene.held[next + 1], effects),
            acknowledging(scene.held[next + 2], vec![increment("others", 1)]),
        ];
        let fates = scene.commit(&commits).await;
        let done = done_without_messages();
        assert_eq!(fates, [done.clone(), fate, done], "{case}");
        for (key, expected) in before {
            assert_eq!(value(stage, key).await.as_deref(), Some(expected), "{case}");
        }
        for key in ["new", "sum"] {
            assert_eq!(value(stage, key).await, None, "{case}");
        }
        assert_eq!(lengths(stage, &[&bills]).await, [0], "{case}");
        let pending = scene.pending().await;
        let held = |at: usize| pending.contains(&scene.held[at]);
        assert_eq!(
            [held(next), held(next + 1), held(next + 2)],
            [false, true, false],
            "{case}"
        );
        next += 3;
    }
    assert_eq!(value(stage, "others").await.as_deref(), Some("22"));
}

/// > The commits of a call follow each other, so the second sees what the first has written.
pub async fn commits_of_a_call_follow_each_other<S: Subject>(subject: &S) {
    let scene = Scene::new(subject, 4).await;
    let commits = [
        acknowledging(scene.held[0], vec![increment("n", 1)]),
        acknowledging(scene.held[1], vec![replace("n", Some("1"), "10")]),
        acknowledging(scene.held[2], vec![replace("n", Some("1"), "20")]),
        acknowledging(scene.held[3], vec![increment("n", 5)]),
    ];
    let done = done_without_messages;
    assert_eq!(
        scene.commit(&commits).await,
        [done(), done(), EffectFate::Differs(0), done()]
    );
    assert_eq!(value(&scene.stage, "n").await.as_deref(), Some("15"));
    assert_eq!(scene.pending().await, [scene.held[2]]);
}

/// > Of two commits of one delivery the second is [`Lost`](EffectFate::Lost).
/// > Another member holds the delivery, or the group is gone; the store wrote nothing.
/// > Nobody holds the delivery; the store wrote nothing.
pub async fn only_the_holder_commits<S: Subject>(subject: &S) {
    let scene = Scene::new(subject, 3).await;
    let stage = &scene.stage;
    let add = |delivery| acknowledging(delivery, vec![increment("n", 1)]);
    let other = stage.member("two");
    // Given back and taken by another member, while the first still has it in hand.
    stage.release(&scene.hand.member, &scene.held[..1]).await;
    let taken = receipts(&stage.reclaim(&other, DAY).await);
    assert_eq!(taken, scene.held[..1]);
    let mut unknown = scene.held[2];
    unknown.id.millis += 1000;
    let commits = [scene.held[0], scene.held[1], scene.held[1], unknown].map(add);
    assert_eq!(
        scene.commit(&commits).await,
        [
            EffectFate::Lost,
            done_without_messages(),
            EffectFate::Lost,
            EffectFate::NotHeld
        ]
    );
    let again = scene.commit(&commits[1..2]).await;
    assert_eq!(again, [EffectFate::NotHeld], "it was acknowledged");
    assert_eq!(value(stage, "n").await.as_deref(), Some("1"));
    assert_eq!(scene.commit_by(&other, &commits[..1]).await.len(), 1);
    assert_eq!(value(stage, "n").await.as_deref(), Some("2"));

    // An only copy is committed where nobody holds it, and once.
    let only_copy = |delivery| EffectCommit {
        only_copy: true,
        ..add(delivery)
    };
    stage
        .acknowledge(&scene.hand.member, &scene.held[2..])
        .await;
    let twice = [scene.held[2]; 2].map(only_copy);
    assert_eq!(
        scene.commit(&twice).await,
        [done_without_messages(), EffectFate::Lost]
    );
    assert_eq!(value(stage, "n").await.as_deref(), Some("3"));

    let topics = stage.store.topics();
    let removed = topics.remove_group(&stage.at, DAY, true).await;
    removed.must("removing");
    assert_eq!(scene.commit(&commits[..1]).await, [EffectFate::Lost]);
}

/// A checkpoint does not: the member keeps the delivery.
pub async fn a_checkpoint_keeps_the_delivery<S: Subject>(subject: &S) {
    let scene = Scene::new(subject, 1).await;
    let commit = acknowledging(scene.held[0], vec![increment("n", 1)]);
    let checkpoint = EffectCommit {
        acknowledges: false,
        ..commit.clone()
    };
    for done in 1..=2 {
        let fates = scene.commit(std::slice::from_ref(&checkpoint)).await;
        assert_eq!(fates, [done_without_messages()]);
        assert_eq!(value(&scene.stage, "n").await, Some(done.to_string()));
        assert_eq!(scene.pending().await, scene.held);
    }
    scene.commit(&[commit]).await;
    assert!(scene.pending().await.is_empty());
}

/// > The key of an [`Effect::Once`] exists. The delivery is acknowledged, and nothing else was
/// > written.
pub async fn effects_with_a_mark_happen_once<S: Subject>(subject: &S) {
    let scene = Scene::new(subject, 2).await;
    // The condition that no longer holds does not matter: the work is done.
    let effects = vec![replace("n", None, "1"), once("work:7")];
    let commits: Vec<_> = scene
        .held
        .iter()
        .map(|held| acknowledging(*held, effects.clone()))
        .collect();
    assert_eq!(
        scene.commit(&commits).await,
        [done_without_messages(), EffectFate::Skipped]
    );
    assert_eq!(value(&scene.stage, "n").await.as_deref(), Some("1"));
    assert!(scene.pending().await.is_empty());
    let kv = scene.stage.container.kv();
    let claim = kv.port().claim("work:7", "token", DAY).await;
    let known = claim.must("claiming");
    assert_eq!(known, ClaimResult::Done(None), "`once` knows the mark");
}

/// Appends nothing if the message's id was appended within the window.
pub async fn effects_recognise_a_repeated_message<S: Subject>(subject: &S) {
    let scene = Scene::new(subject, 3).await;
    let (stage, bills) = (&scene.stage, Partition::of(&topic("bills")));
    let identified = |n| Effect::Publish {
        at: bills.clone(),
        entry: entry(n),
        window: Some(DAY),
    };
    let both = vec![identified(1), identified(1), increment("n", 1)];
    let fates = scene.commit(&[acknowledging(scene.held[0], both)]).await;
    let [EffectFate::Done(first)] = &fates[..] else {
        panic!("{fates:?}");
    };
    assert_eq!([first[0].duplicate, first[1].duplicate], [false, true]);
    assert_eq!(first[0].id, first[1].id);
    let more = vec![identified(2), identified(1)];
    let fates = scene.commit(&[acknowledging(scene.held[1], more)]).await;
    let [EffectFate::Done(second)] = &fates[..] else {
        panic!("{fates:?}");
    };
    assert_eq!([second[0].duplicate, second[1].duplicate], [false, true]);
    // Both ways of publishing know the same ids.
    let log = stage.store.log();
    let known = log.append_once(&bills, DAY, &[entry(2), entry(3)]).await;
    let known: Vec<_> = known.must("appending").into_iter().flatten().collect();
    assert_eq!([known[0].duplicate, known[1].duplicate], [true, false]);
    let third = [acknowledging(scene.held[2], vec![identified(3)])];
    let fates = scene.commit(&third).await;
    assert!(matches!(&fates[..], [EffectFate::Done(one)] if one[0].duplicate));
    assert_eq!(lengths(stage, &[&bills]).await, [3]);
}

/// An integer is exact in all of its 64 bits.
pub async fn effects_add_exactly<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    for (number, (before, by, within, after)) in (1..).zip([
        ("9223372036854775806", 1, None, Some("9223372036854775807")),
        ("9223372036854775807", 1, None, None),
        (
            "-9223372036854775807",
            -1,
            None,
            Some("-9223372036854775808"),
        ),
        ("-9223372036854775808", -1, None, None),
        ("-9223372036854775808", i64::MAX, None, Some("-1")),
        ("9007199254740993", 2, None, Some("9007199254740995")),
        (
            "9007199254740993",
            2,
            Some((0, 9_007_199_254_740_995)),
            Some("9007199254740995"),
        ),
        (
            "9007199254740993",
            2,
            Some((0, 9_007_199_254_740_994)),
            None,
        ),
        ("-999999999", -1, None, Some("-1000000000")),
        (
            "-1000000001",
            1,
            Some((-1_000_000_000, 5)),
            Some("-1000000000"),
        ),
        ("-1000000002", 1, Some((-1_000_000_000, 5)), None),
        ("9223372036854775808", -1, None, None),
        ("99999999999999999999", -1, None, None),
        ("-0", 1, None, None),
        ("1.5", 1, None, None),
        ("", 1, None, None),
    ]) {
        put(&stage, &[("n", before)]).await;
        let session = Session {
            id: uuid::Uuid::from_u128(1),
            number,
        };
        let lists = [vec![increment_within("n", by, within)]];
        let fates = stage.store.effects().apply(session, &lists).await;
        let done = fates.must("applying") == [done_without_messages()];
        let case = format!("{before} + {by} within {within:?}");
        assert_eq!(done, after.is_some(), "{case}");
        let now = value(&stage, "n").await;
        assert_eq!(now.as_deref(), after.or(Some(before)), "{case}");
    }
}

/// A time to live is at least one millisecond; a key keeps to the rule of the key-value store.
pub async fn bad_effects_are_refused_before_they_are_sent<S: Subject>(subject: &S) {
    let scene = Scene::new(subject, 1).await;
    let ttl = Some(std::time::Duration::ZERO);
    let (key, value_of) = ("a".to_owned(), text("1"));
    for bad in [
        set("", "1"),
        increment("{shop:orders}:log", 1),
        Effect::Set {
            key,
            value: value_of,
            ttl,
        },
    ] {
        let effects = vec![set("good", "1"), bad];
        let commits = [acknowledging(scene.held[0], effects.clone())];
        let stage = &scene.stage;
        let store = stage.store.effects();
        let error = store.commit(&scene.hand.member, 1, &commits).await;
        let error = error.err().must("an error");
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(store.rehearse(&effects).await.is_err());
        assert_eq!(value(stage, "good").await, None);
    }
}

/// Deliveries of the redelivery stream have effects too.
pub async fn a_redelivery_has_effects<S: Subject>(subject: &S) {
    let mut scene = Scene::new(subject, 3).await;
    let ends = scene.held[..2].iter();
    let ends: Vec<_> = ends
        .map(|held| later(*held, std::time::Duration::ZERO, "r"))
        .collect();
    scene.stage.settle(&scene.hand.member, &ends).await;
    let fetched = receipts(&scene.stage.fetch(&mut scene.hand, 2).await);
    assert!(fetched.iter().all(|one| one.lane == Lane::Redelivery));
    let all = [fetched[1], scene.held[2], fetched[0]];
    let commits = all.map(|one| acknowledging(one, vec![increment("n", 1)]));
    let fates = scene.commit(&commits).await;
    assert_eq!(fates, [const { EffectFate::Done(Vec::new()) }; 3]);
    assert!(scene.pending().await.is_empty());
    assert_eq!(value(&scene.stage, "n").await.as_deref(), Some("3"));
}

/// > Writes effects without a delivery, each list all or nothing.
pub async fn effects_need_no_delivery<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let bills = Partition::of(&topic("bills"));
    let session = Session {
        id: uuid::Uuid::from_u128(7),
        number: 1,
    };
    let lists = [
        vec![publish(&bills, 1), increment("n", 1)],
        vec![increment("n", 1), insert("n", "1")],
        vec![replace("n", Some("1"), "5")],
        vec![],
    ];
    let fates = stage.store.effects().apply(session, &lists).await;
    let fates = fates.must("applying");
    assert!(matches!(&fates[0], EffectFate::Done(one) if one.len() == 1));
    assert_eq!(
        fates[1..],
        [
            EffectFate::Differs(1),
            done_without_messages(),
            done_without_messages()
        ]
    );
    assert_eq!(value(&stage, "n").await.as_deref(), Some("5"));
    assert_eq!(lengths(&stage, &[&bills]).await, [1]);
}

/// > What `apply` would answer now. Writes nothing, and names no entries.
pub async fn a_rehearsal_writes_nothing<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let bills = Partition::of(&topic("bills"));
    put(&stage, &[("n", "1")]).await;
    for (effects, fate) in [
        (
            vec![publish(&bills, 1), set("n", "2"), once("mark")],
            done_without_messages(),
        ),
        (
            vec![publish(&bills, 1), insert("n", "2")],
            EffectFate::Differs(1),
        ),
        (
            vec![increment_within("n", 1, Some((0, 1)))],
            EffectFate::Refused(0, Refusal::OutOfRange),
        ),
        (vec![set("a", "1"), once("n")], EffectFate::Skipped),
    ] {
        let told = stage.store.effects().rehearse(&effects).await;
        assert_eq!(told.must("rehearsing"), fate);
    }
    assert_eq!(value(&stage, "n").await.as_deref(), Some("1"));
    assert_eq!(value(&stage, "mark").await, None);
    assert_eq!(lengths(&stage, &[&bills]).await, [0]);
}
