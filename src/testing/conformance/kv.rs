//! The key-value store.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;

use super::Subject;
use super::support::{DAY, Must as _, Stage};
use crate::domain::{Error, ErrorKind};

fn kind<T>(result: Result<T, Error>) -> ErrorKind {
    result.err().must("an error").kind()
}

/// > Reads the values of several keys, in their order.
/// > Removes a key. Returns whether it existed; removing an absent key succeeds.
/// > Whether the key exists.
pub async fn values_are_stored_read_and_removed<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let kv = stage.container.kv();
    assert_eq!(kv.get::<String>("a").await.must("getting"), None);
    kv.set("a", "one").await.must("setting");
    kv.set("a", "uno").await.must("setting");
    let two = [("b", 2), ("c", 3)];
    kv.set_many(&two, Some(DAY)).await.must("setting");
    let held: Option<String> = kv.get("a").await.must("getting");
    assert_eq!(held.as_deref(), Some("uno"));
    let many: Vec<Option<i32>> = kv.get_many(&["c", "none", "b"]).await.must("getting");
    assert_eq!(many, [Some(3), None, Some(2)]);
    assert!(kv.exists("a").await.must("asking"));
    assert!(kv.delete("a").await.must("deleting"));
    assert!(!kv.delete("a").await.must("deleting"));
    assert!(!kv.exists("a").await.must("asking"));
    assert!(kv.port().get_bytes(&[]).await.must("getting").is_empty());
}

/// > Stores several values, in their order. Each write is atomic; all together are not.
pub async fn values_keep_every_byte_and_the_last_one_wins<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let kv = stage.container.kv();
    let body: Bytes = (0..=255).collect::<Vec<u8>>().into();
    let entries = vec![
        ("k", Bytes::from_static(b"first")),
        ("k", body.clone()),
        ("e", Bytes::new()),
    ];
    kv.port().set_bytes(entries, None).await.must("setting");
    let held = kv.port().get_bytes(&["k", "e"]).await.must("getting");
    assert_eq!(held, [Some(body), Some(Bytes::new())]);
    let typed: Result<Option<u32>, _> = kv.get("k").await;
    assert_eq!(kind(typed), ErrorKind::Decode);
}

/// > Times to live are at least one millisecond.
pub async fn values_expire<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let kv = stage.container.kv();
    kv.set_with_ttl("long", &1, DAY).await.must("setting");
    let short = Duration::from_millis(20);
    kv.set_with_ttl("short", &1, short).await.must("setting");
    stage
        .until("the value to expire", async || {
            let there = kv.exists("short").await.must("asking");
            (!there).then_some(())
        })
        .await;
    assert_eq!(kv.get::<i32>("short").await.must("getting"), None);
    assert!(!kv.delete("short").await.must("deleting"));
    assert!(kv.exists("long").await.must("asking"));
    // A set without a time to live removes the old one.
    kv.set_with_ttl("again", &1, short).await.must("setting");
    kv.set("again", &2).await.must("setting");
    kv.set_with_ttl("short", &1, short).await.must("setting");
    stage
        .until("a later value to expire", async || {
            let there = kv.exists("short").await.must("asking");
            (!there).then_some(())
        })
        .await;
    assert_eq!(kv.get::<i32>("again").await.must("getting"), Some(2));
    for bad in [Duration::ZERO, Duration::from_micros(999), Duration::MAX] {
        assert_eq!(
            kind(kv.set_with_ttl("bad", &1, bad).await),
            ErrorKind::Invalid
        );
        let inserted = kv.port().insert_bytes("bad", Bytes::new(), bad).await;
        assert_eq!(kind(inserted), ErrorKind::Invalid);
    }
    assert!(!kv.exists("bad").await.must("asking"));
}

/// > Stores a value if the key is absent. Returns whether it did.
pub async fn inserting_never_replaces<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let kv = stage.container.kv();
    let bytes = Bytes::from_static;
    let insert = async |value, ttl| {
        let done = kv.port().insert_bytes("k", bytes(value), ttl).await;
        done.must("inserting")
    };
    assert!(insert(b"1", DAY).await);
    assert!(!insert(b"2", DAY).await);
    let held = kv.port().get_bytes(&["k"]).await.must("getting");
    assert_eq!(held, [Some(bytes(b"1"))]);
    kv.delete("k").await.must("deleting");
    assert!(insert(b"3", Duration::from_millis(20)).await);
    stage
        .until("the value to expire", async || {
            insert(b"4", DAY).await.then_some(())
        })
        .await;
}

/// > Adds to an integer and returns the sum. An absent key counts as 0.
pub async fn integers_are_added_and_other_values_are_refused<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let kv = stage.container.kv();
    kv.set("n", &40).await.must("setting");
    assert_eq!(kv.incr("n", 2).await.must("adding"), 42);
    assert_eq!(kv.get::<i64>("n").await.must("getting"), Some(42));
    assert_eq!(kv.incr("fresh", -1).await.must("adding"), -1);
    for bad in ["x", "07", "1.5", "", " 1", "9223372036854775808"] {
        let text = Bytes::from(bad);
        let entries = vec![("text", text.clone())];
        kv.port().set_bytes(entries, None).await.must("setting");
        let error = kv.incr("text", 1).await.err().must("a refusal");
        assert_eq!(error.kind(), ErrorKind::Refused, "{bad:?}");
        assert_eq!(error.subject(), Some("text"));
        let held = kv.port().get_bytes(&["text"]).await.must("getting");
        assert_eq!(held, [Some(text)], "untouched");
    }
    kv.set("most", &i64::MAX).await.must("setting");
    assert_eq!(kind(kv.incr("most", 1).await), ErrorKind::Refused);
    assert_eq!(kv.get::<i64>("most").await.must("getting"), Some(i64::MAX));
}

/// Integers of 128 bits are stored as decimal text, as narrower ones are.
pub async fn a_128_bit_integer_is_an_integer<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let kv = stage.container.kv();
    kv.set("cents", &5_i128).await.must("setting");
    assert_eq!(kv.get::<u64>("cents").await.must("getting"), Some(5));
    assert_eq!(kv.incr("cents", 1).await.must("adding"), 6);
    assert_eq!(kv.get::<u128>("cents").await.must("getting"), Some(6));
    let wide = vec![u128::MAX, 1];
    kv.set("wide", &wide).await.must("setting");
    assert_eq!(kv.get("wide").await.must("getting"), Some(wide));
}

/// > Every operation on
/// > one key is atomic.
pub async fn concurrent_additions_lose_nothing<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let tasks = (0..8).map(|_| {
        let kv = stage.container.kv();
        tokio::spawn(async move {
            let mut sums = Vec::new();
            for _ in 0..25 {
                sums.push(kv.incr("n", 1).await.must("adding"));
            }
            sums
        })
    });
    let mut sums = BTreeSet::new();
    for task in tasks.collect::<Vec<_>>() {
        sums.extend(task.await.must("a task"));
    }
    assert_eq!(sums, (1..=200).collect());
}

/// > A key is any text that is not empty and does not begin with `{`; the
/// > keys of the bus begin with it.
pub async fn the_rule_for_keys_holds_everywhere<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let kv = stage.container.kv();
    for good in ["a", " ", "a{b}", "é\n", "seen:1", "a b c"] {
        kv.set(good, &1).await.must("setting");
        assert_eq!(
            kv.get::<i32>(good).await.must("getting"),
            Some(1),
            "{good:?}"
        );
    }
    let none = Bytes::new;
    for bad in ["", "{", "{shop:orders}:log"] {
        let kinds = [
            kind(kv.port().get_bytes(&["a", bad]).await),
            kind(
                kv.port()
                    .set_bytes(vec![("a", none()), (bad, none())], None)
                    .await,
            ),
            kind(kv.port().insert_bytes(bad, none(), DAY).await),
            kind(kv.delete(bad).await),
            kind(kv.exists(bad).await),
            kind(kv.incr(bad, 1).await),
            kind(kv.port().cas_bytes(bad, None, none(), None).await),
            kind(kv.port().claim(bad, "t", DAY).await),
            kind(kv.port().extend_claim(bad, "t", DAY).await),
            kind(kv.port().begin_claim(bad, "t", DAY, DAY).await),
            kind(kv.port().complete_claim(bad, "t", none(), DAY).await),
            kind(kv.port().release_claim(bad, "t").await),
        ];
        assert_eq!(kinds, [ErrorKind::Invalid; 12], "{bad:?}");
    }
    let held = kv.get::<i32>("a").await.must("getting");
    assert_eq!(held, Some(1), "nothing was done by half");
}

/// Containers of one store share its values.
pub async fn containers_share_values<S: Subject>(subject: &S) {
    let (one, two) = (Stage::bare(subject).await, Stage::bare(subject).await);
    one.container.kv().set("k", "v").await.must("setting");
    let held: Option<String> = two.container.kv().get("k").await.must("getting");
    assert_eq!(held.as_deref(), Some("v"));
}
