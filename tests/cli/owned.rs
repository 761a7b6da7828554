//! What the tool tells of an owned group.

use std::time::Duration;

use redstart::extract::Payload;
use redstart::ownership::Ownership;
use redstart::topics::TopicSettings;
use redstart::{Delivery, Envelope, Outcome, RetryPolicy, SubscribeOptions};
use serde_json::{Value, json};

use crate::run::run;
use crate::support::{Server, container, finish, group, topic, until};

const DAY: Duration = Duration::from_secs(86_400);

/// The findings of a check: severity and fact.
fn findings(url: &str, args: &[&str], check: &str) -> Vec<(Value, String)> {
    let told = run(Some(url), &[&["doctor", "--json"][..], args].concat()).json();
    let found = told["findings"].as_array().unwrap().iter();
    let found = found.filter(|one| one["check"] == check);
    found
        .map(|one| {
            (
                one["severity"].clone(),
                one["what"].as_str().unwrap().to_owned(),
            )
        })
        .collect()
}

/// The value of a gauge of the group.
fn gauge(url: &str, name: &str) -> Option<String> {
    let text = run(Some(url), &["metrics"]).ok().out;
    let series = format!("{name}{{topic=\"orders\",group=\"billing\"}} ");
    let mut lines = text.lines();
    lines.find_map(|line| line.strip_prefix(&series).map(str::to_owned))
}

#[tokio::test]
async fn an_owned_group_is_shown_with_its_owners_and_the_keys_that_wait() {
    let server = Server::start();
    let url = server.url();
    let container = container(&server).await;
    let (orders, billing) = (topic("orders"), group("billing"));
    let topics = container.topics();
    let settings = TopicSettings::default().with_partitions(3);
    topics.create(&orders, settings).await.unwrap();
    let options = SubscribeOptions::new()
        // The tool's runs block this thread, and with it the renewals.
        .with_ownership(Ownership::new().with_lease(Duration::from_secs(60)))
        .with_retry(RetryPolicy::fixed(DAY).with_max_attempts(9));
    let handler = |_: Payload<u32>, delivery: Delivery| async move {
        match delivery.envelope().key() {
            Some("bad") => Outcome::retry("card declined"),
            _ => Outcome::Ack,
        }
    };
    let bus = container.bus();
    bus.subscribe_with(&orders, options, handler).await.unwrap();
    for n in 0..20_u32 {
        let key = if n % 10 == 3 {
            "bad".to_owned()
        } else {
            format!("good-{n}")
        };
        let envelope = Envelope::new("order.placed", &n).unwrap().with_key(key);
        bus.publish(&orders, &envelope).await.unwrap();
    }
    until(
        "one key to wait and all partitions to have an owner",
        async || {
            let all = topics.owned_partitions(&orders, &billing).await.unwrap();
            let is_owned = all.iter().all(|one| one.owner.is_some());
            let waits: u64 = all.iter().map(|one| one.held_back).sum();
            (is_owned && waits == 1).then_some(())
        },
    )
    .await;

    let show = ["groups", "show", "orders", "billing"];
    let show_json = [&show[..], &["--json"]].concat();
    let told = run(Some(&url), &show_json).ok().json();
    assert_eq!(
        (&told["owned"], &told["consumers"]),
        (&json!(true), &json!(1))
    );
    let member = told["consumersOf"][0]["consumer"].clone();
    let partitions = told["partitions"].as_array().unwrap();
    assert_eq!(partitions.len(), 3);
    for (number, one) in partitions.iter().enumerate() {
        assert_eq!(
            (&one["partition"], &one["owner"]),
            (&json!(number), &member)
        );
        assert!(one["token"].as_u64() > Some(0), "{one}");
    }
    let waits = partitions.iter().find(|one| one["heldBack"] == 1).unwrap();
    let message = &waits["oldest"][0];
    for (name, expected) in [
        ("key", json!("bad")),
        ("type", json!("order.placed")),
        ("attempts", json!(1)),
        ("error", json!("card declined")),
    ] {
        assert_eq!(message[name], expected, "{name}: {message}");
    }
    assert!(message["since"].is_string(), "{message}");
    for next in [&message["nextTryMs"], &waits["nextTryMs"]] {
        let next = next.as_u64().unwrap();
        assert!((80_000_000..=86_400_000).contains(&next), "{next}");
    }
    let shown = run(Some(&url), &show).ok().out;
    for text in [
        "owned",
        "0, 1, 2",
        "held back",
        "card declined",
        "in 23 h 59 min",
    ] {
        assert!(shown.contains(text), "{text}: {shown}");
    }
    let listed = run(Some(&url), &["groups"]).ok().out;
    assert!(listed.contains("billing  owned"), "{listed}");
    let on_partitions = ["groups", "orders", "--partitions", "--json"];
    let listed = run(Some(&url), &on_partitions).ok().json();
    let listed = listed.as_array().unwrap();
    assert!(
        listed
            .iter()
            .all(|one| one["owner"] == member && one["token"].as_u64() > Some(0)),
        "{listed:?}"
    );
    let waits = listed.iter().map(|one| one["heldBack"].as_u64().unwrap());
    assert_eq!(waits.sum::<u64>(), 1);
    assert_eq!(
        gauge(&url, "redstart_group_held_back_keys").as_deref(),
        Some("1")
    );
    assert_eq!(
        gauge(&url, "redstart_group_ownerless_partitions").as_deref(),
        Some("0")
    );
    assert_eq!(findings(&url, &[], "keys"), [], "it has not waited long");
    let found = findings(&url, &["--held-after", "0s"], "keys");
    let [(severity, what)] = &found[..] else {
        panic!("{found:?}");
    };
    assert_eq!(*severity, json!("warning"));
    assert!(
        what.contains("holds back 1 key; key bad waits for"),
        "{what}"
    );
    assert!(
        what.ends_with("after 1 failed attempt: card declined"),
        "{what}"
    );

    finish(container).await;
    let told = run(Some(&url), &show_json).ok().json();
    let partitions = told["partitions"].as_array().unwrap();
    assert!(
        partitions.iter().all(|one| one["owner"].is_null()),
        "{told}"
    );
    let shown = run(Some(&url), &show).ok();
    assert!(shown.err.contains("no members"), "{shown:?}");
    assert!(shown.out.contains("none"), "{shown:?}");
    assert_eq!(
        gauge(&url, "redstart_group_held_back_keys").as_deref(),
        Some("1")
    );
    assert_eq!(
        gauge(&url, "redstart_group_ownerless_partitions").as_deref(),
        Some("3")
    );
    assert_eq!(findings(&url, &[], "owners"), [], "the group has no member");
    let found = findings(&url, &["--stuck-after", "0s"], "groups");
    assert!(
        found[0].1.starts_with("orders/billing: no consumer"),
        "{found:?}"
    );
}
