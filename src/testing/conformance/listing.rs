//! Listing keys, and the beginnings of values.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;

use super::Subject;
use super::support::{DAY, Must as _, Stage};
use crate::api::Kv;
use crate::domain::ErrorKind;
use crate::store::{KeyCursor, KeyPage, Peeked};

/// Walks through a listing. No page may have a key twice.
async fn listed(kv: &Kv, prefix: &str, count: usize) -> (BTreeSet<String>, usize) {
    let (mut all, mut pages, mut from) = (BTreeSet::new(), 0, None);
    loop {
        let page = kv.keys(prefix, from.as_ref(), count).await.must("listing");
        let single: BTreeSet<String> = page.keys.iter().cloned().collect();
        assert_eq!(single.len(), page.keys.len(), "a key is twice on a page");
        all.extend(single);
        pages += 1;
        assert!(pages < 10_000, "the listing does not end");
        match page.next {
            Some(next) => from = Some(next),
            None => return (all, pages),
        }
    }
}

/// > Takes one step of a listing of the keys that begin with `prefix`, from a cursor on. `count`
/// > says about how many keys of the store the step looks at: it may find more, fewer or none.
/// > The listing leaves out keys that are not UTF-8.
pub async fn keys_are_listed_by_their_prefix<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let kv = stage.container.kv();
    let of =
        |prefix: &str| -> BTreeSet<String> { (0..120).map(|n| format!("{prefix}{n}")).collect() };
    // Characters with a meaning in patterns, beside keys that these patterns would match.
    let [odd, even] = ["a*[b]?\\^-é\n{}:", "axb:"].map(of);
    let mut all: BTreeSet<String> = odd.union(&even).cloned().collect();
    let alike = [
        "aXX[b]?\\^-é\n{}:",
        "a*b?\\^-é\n{}:",
        "a*[b]X\\^-é\n{}:",
        "a*[b]?^-é\n{}:",
    ];
    all.extend(alike.map(str::to_owned));
    let entries: Vec<(&str, u8)> = all.iter().map(|key| (key.as_str(), 1)).collect();
    kv.set_many(&entries, None).await.must("setting");
    let (found, pages) = listed(&kv, "a*[b]?\\^-é\n{}:", 30).await;
    assert_eq!(found, odd);
    assert!(pages > 1, "one page has all keys");
    assert_eq!(listed(&kv, "axb:", 30).await.0, even);
    // The keys of the bus are no values.
    assert_eq!(listed(&kv, "", 1000).await.0, all);
    let none = listed(&kv, "a*[b]?\\^-é\n{}:0x", 30).await;
    assert_eq!(none.0, BTreeSet::new());
}

/// > Over all steps, the listing has each key that exists from its first step to its last at least
/// > once.
pub async fn a_listing_has_every_key_that_stays<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let kv = stage.container.kv();
    let stays: BTreeSet<String> = (0..150).map(|n| format!("stays:{n}")).collect();
    let entries: Vec<(&str, u8)> = stays.iter().map(|key| (key.as_str(), 1)).collect();
    kv.set_many(&entries, None).await.must("setting");
    let (mut found, mut from) = (BTreeSet::new(), None::<KeyCursor>);
    for round in 0.. {
        assert!(round < 10_000, "the listing does not end");
        let page = kv.keys("", from.as_ref(), 20).await.must("listing");
        found.extend(page.keys);
        from = page.next;
        if from.is_none() {
            break;
        }
        let comes = format!("comes:{round}");
        kv.set(&comes, &1).await.must("setting");
        kv.set(&format!("{comes}:too"), &1).await.must("setting");
        kv.delete(&comes).await.must("deleting");
    }
    assert!(found.is_superset(&stays), "{:?}", stays.difference(&found));
}

/// > A cursor that did not come from this listing, or that the store's servers no longer know, is an
/// > error.
pub async fn a_cursor_of_other_origin_is_refused<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let kv = stage.container.kv();
    for cursor in [
        "",
        "0",
        "x-y",
        "1-0-7",
        "-1",
        "after",
        "9".repeat(400).as_str(),
    ] {
        let cursor = KeyCursor::new(cursor);
        let told = kv.keys("", Some(&cursor), 10).await;
        let error = told.err().must("an error");
        assert_eq!(error.kind(), ErrorKind::Invalid, "{cursor}: {error}");
    }
    let told = kv.keys("{shop", None, 10).await;
    assert_eq!(told.err().must("an error").kind(), ErrorKind::Invalid);
    let none = kv.keys("", None, 0).await.must("listing");
    assert_eq!(none, KeyPage::default());
}

/// > Reads the first `most` bytes of several values, their lengths and times to live, in the
/// > order of the keys. The parts of one value may come from two moments.
pub async fn a_value_shows_its_beginning_its_length_and_its_time<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let kv = stage.container.kv();
    let bytes = Bytes::from_static(b"\xC1\x00value");
    let entries = vec![("k", bytes.clone()), ("e", Bytes::new())];
    kv.port().set_bytes(entries, None).await.must("setting");
    let entries = vec![("t", bytes)];
    kv.port()
        .set_bytes(entries, Some(DAY))
        .await
        .must("setting");
    let peeked = kv.port().peek_bytes(&["none", "k", "e", "t"], 3).await;
    let peeked = peeked.must("peeking");
    let beginning = Bytes::from_static(b"\xC1\x00v");
    assert_eq!(peeked[0], None);
    assert_eq!(peeked[1], Some(Peeked::new(beginning.clone(), 7, None)));
    assert_eq!(peeked[2], Some(Peeked::new(Bytes::new(), 0, None)));
    let timed = peeked[3].as_ref().must("a value");
    let left = timed.expires_in.must("a time to live");
    assert_eq!((&timed.bytes, timed.len), (&beginning, 7));
    assert!(
        left <= DAY && left > DAY - Duration::from_secs(3600),
        "{left:?}"
    );
    let nothing = kv.port().peek_bytes(&["k"], 0).await.must("peeking");
    assert_eq!(nothing, [Some(Peeked::new(Bytes::new(), 7, None))]);
    assert!(
        kv.port()
            .peek_bytes(&[], 3)
            .await
            .must("peeking")
            .is_empty()
    );
    let told = kv.port().peek_bytes(&["k", "{x"], 3).await;
    assert_eq!(told.err().must("an error").kind(), ErrorKind::Invalid);
}
