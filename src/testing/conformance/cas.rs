//! Compare and set.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::Subject;
use super::support::{Must as _, Stage};
use crate::api::CasResult;

/// > Replaces the value if it equals `expected`, byte for byte (`None`: if the key is absent).
/// > The value was as expected and was replaced.
/// > The value differs and is unchanged; `None`: the key is absent.
pub async fn a_value_is_replaced_only_if_it_is_as_expected<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let kv = stage.container.kv();
    let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
    let cas = async |expected: Option<&'static str>, new| {
        let done = kv
            .port()
            .cas_bytes("k", expected.map(bytes), bytes(new), None)
            .await;
        done.must("swapping")
    };
    assert_eq!(cas(Some("1"), "2").await, CasResult::Differs(None));
    assert_eq!(cas(Some(""), "2").await, CasResult::Differs(None));
    assert_eq!(cas(None, "1").await, CasResult::Swapped);
    assert_eq!(cas(None, "2").await, CasResult::Differs(Some(bytes("1"))));
    assert_eq!(
        cas(Some("3"), "2").await,
        CasResult::Differs(Some(bytes("1")))
    );
    assert_eq!(cas(Some("1"), "").await, CasResult::Swapped);
    assert_eq!(cas(None, "2").await, CasResult::Differs(Some(Bytes::new())));
    assert_eq!(cas(Some(""), "2").await, CasResult::Swapped);
}

/// > Removes a key if its value equals `expected`, byte for byte. Returns whether it did.
pub async fn a_value_is_deleted_only_if_it_is_as_expected<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let (kv, store) = (stage.container.kv(), stage.container.store());
    let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
    let delete = async |expected: &'static str| {
        let expected = bytes(expected);
        let done = store.values().delete_if("k", &expected).await;
        done.must("deleting")
    };
    assert!(!delete("").await);
    let entries = vec![("k", bytes("1"))];
    kv.port().set_bytes(entries, None).await.must("setting");
    for other in ["", "2", "11"] {
        assert!(!delete(other).await, "{other}");
    }
    let held = kv.port().get_bytes(&["k"]).await.must("getting");
    assert_eq!(held, [Some(bytes("1"))]);
    assert!(delete("1").await);
    assert!(!kv.exists("k").await.must("asking"));
    assert!(!delete("1").await);
}

/// The new value has the time to live that was given, or none.
pub async fn a_swap_sets_the_time_to_live<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let kv = stage.container.kv();
    let short = Some(Duration::from_millis(20));
    assert!(kv.cas("k", None, &1, short).await.must("swapping"));
    stage
        .until("the value to expire", async || {
            kv.cas("k", None, &2, None)
                .await
                .must("swapping")
                .then_some(())
        })
        .await;
    assert!(kv.cas("k", Some(&2), &3, short).await.must("swapping"));
    assert!(kv.exists("k").await.is_ok());
    stage
        .until("the swapped value to expire", async || {
            (!kv.exists("k").await.must("asking")).then_some(())
        })
        .await;
}

/// Values are compared as values: another codec or key order makes no difference.
pub async fn equal_values_are_equal<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let kv = stage.container.kv();
    let older = Bytes::from_static(br#"{"b":1,"a":2}"#);
    kv.port()
        .set_bytes(vec![("k", older)], None)
        .await
        .must("setting");
    let held: Option<HashMap<String, i32>> = kv.get("k").await.must("getting");
    let held = held.must("the value");
    let new = HashMap::from([("a".to_owned(), 3)]);
    assert!(kv.cas("k", Some(&held), &new, None).await.must("swapping"));
    assert!(!kv.cas("k", Some(&held), &new, None).await.must("swapping"));
}

#[derive(Debug, Deserialize, Serialize)]
struct Price {
    amount: f64,
    rate: f32,
}

#[derive(Debug, Deserialize, Serialize)]
struct Order {
    id: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

impl<S: Subject> Stage<'_, S> {
    async fn swaps_its_reading<T: Serialize + DeserializeOwned>(&self, stored: &'static str) {
        let kv = self.container.kv();
        let entries = vec![("k", Bytes::from_static(stored.as_bytes()))];
        kv.port().set_bytes(entries, None).await.must("setting");
        let read: T = kv.get("k").await.must("getting").must("the value");
        let swapped = kv.cas("k", Some(&read), &read, None).await;
        assert!(swapped.must("swapping"), "{stored}");
    }
}

/// A value that another program wrote in its own form equals the value that it decodes to.
pub async fn forms_of_other_programs_are_equal<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    stage
        .swaps_its_reading::<Price>(r#"{"amount":1,"rate":0.1}"#)
        .await;
    stage
        .swaps_its_reading::<Price>(r#"{"rate":1e0,"amount":1.0}"#)
        .await;
    stage.swaps_its_reading::<f64>("1").await;
    stage.swaps_its_reading::<f64>("1.0").await;
    stage.swaps_its_reading::<Value>("1.0").await;
    stage
        .swaps_its_reading::<Order>(r#"{"id":1,"note":null}"#)
        .await;
    stage.swaps_its_reading::<Option<u8>>("null").await;
    stage
        .swaps_its_reading::<HashMap<u64, i32>>(r#"{"1":2,"10":3}"#)
        .await;
    stage.swaps_its_reading::<i128>("5").await;
    stage
        .swaps_its_reading::<Vec<u128>>("[340282366920938463463374607431768211455]")
        .await;
    stage
        .swaps_its_reading::<Box<RawValue>>("[ 100000000000000000000001 ]")
        .await;
    stage.swaps_its_reading::<String>("plain text").await;
}

/// Integers beyond 64 bits are compared digit by digit.
pub async fn another_number_is_never_equal<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let kv = stage.container.kv();
    let stored = Bytes::from_static(b"100000000000000000000001");
    let entries = vec![("account", stored.clone())];
    kv.port().set_bytes(entries, None).await.must("setting");
    let other: Box<RawValue> = serde_json::from_str("100000000000000000000002").must("JSON");
    let swapped = kv.cas("account", Some(&other), &other, None).await;
    assert!(!swapped.must("swapping"));
    let swapped = kv.cas("account", Some(&(u128::MAX)), &1, None).await;
    assert!(!swapped.must("swapping"));
    let held = kv.port().get_bytes(&["account"]).await.must("getting");
    assert_eq!(held, [Some(stored)], "untouched");
}

/// Concurrent updates lose nothing.
pub async fn concurrent_updates_lose_nothing<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let tasks = (0..6).map(|task| {
        let kv = stage.container.kv();
        tokio::spawn(async move {
            for step in 0..20 {
                let change = |list: Option<Vec<i32>>| {
                    let mut list = list.unwrap_or_default();
                    list.push(task * 20 + step);
                    list
                };
                kv.update("list", None, change).await.must("updating");
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.must("a task");
    }
    let kv = stage.container.kv();
    let mut list: Vec<i32> = kv.get("list").await.must("getting").must("the list");
    list.sort_unstable();
    assert_eq!(list, (0..120).collect::<Vec<_>>());
}
