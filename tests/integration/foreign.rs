//! Producers other than Redstart, and undecodable entries.

use redstart::extract::Payload;
use redstart::{Delivery, Envelope, ErrorKind, dead_letters::Reason};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::support::{Server, container, drained, finish, group, letters, next, topic};

const LOG: &str = "{shop:orders}:log";

#[tokio::test]
async fn a_plain_xadd_from_any_language_publishes() {
    let server = Server::start();
    let container = container(&server).await;
    let orders = topic("orders");
    let body = r#"{"type":"order.placed","payload":{"n":1},"source":"cron"}"#;
    let id: String = server.command(&["XADD", LOG, "*", "json", body]);
    let (sender, mut received) = mpsc::unbounded_channel();
    let _subscription = container
        .bus()
        .subscribe(
            &orders,
            move |Payload(order): Payload<Value>, delivery: Delivery| {
                let _ = sender.send((order, delivery.envelope().clone(), delivery.entry_id()));
                async move {
                    if delivery.attempt() == 1 {
                        return redstart::Outcome::retry_after(std::time::Duration::ZERO, "again");
                    }
                    redstart::Outcome::Ack
                }
            },
        )
        .await
        .unwrap();
    let (order, first, entry) = next(&mut received).await;
    assert_eq!(order, json!({"n": 1}));
    assert_eq!(first.message_type(), "order.placed");
    assert_eq!(first.failed_attempts(), 0);
    assert_eq!(entry.to_string(), id);
    assert_eq!(
        first.created_at().as_millis(),
        i64::try_from(entry.millis).unwrap()
    );
    let (_, second, again) = next(&mut received).await;
    assert_eq!(
        second.id(),
        first.id(),
        "the id is the same at every delivery"
    );
    assert_eq!((second.failed_attempts(), again), (1, entry));
    drained(&container, &orders, &group("billing")).await;
    finish(container).await;
}

#[tokio::test]
async fn undecodable_entries_are_dead_lettered_byte_for_byte_and_the_reader_continues() {
    let server = Server::start();
    let container = container(&server).await;
    let orders = topic("orders");
    let deep = format!(
        r#"{{"type":"t","payload":{}{}}}"#,
        "[".repeat(10_000),
        "]".repeat(10_000)
    );
    let huge = format!(
        r#"{{"type":"t","payload":"{}"}}"#,
        "x".repeat(2 * 1024 * 1024)
    );
    let bad: [&[&str]; 5] = [
        &["json", "{"],
        &["json", &deep],
        &["json", &huge],
        &["color", "blue", "size", "7"],
        &["msgpack", "\u{1}"],
    ];
    for fields in bad {
        let words: Vec<&str> = ["XADD", LOG, "*"].iter().chain(fields).copied().collect();
        let _: String = server.command(&words);
    }
    let (sender, mut received) = mpsc::unbounded_channel();
    let _subscription = container
        .bus()
        .subscribe(&orders, move |Payload(n): Payload<u32>, _: Delivery| {
            let _ = sender.send(n);
            async {}
        })
        .await
        .unwrap();
    let good = Envelope::new("n", &7).unwrap();
    container.bus().publish(&orders, &good).await.unwrap();
    assert_eq!(next(&mut received).await, 7);
    let left = drained(&container, &orders, &group("billing")).await;
    assert_eq!(left.dead, 5);
    let dead = container.dead_letters();
    let letters = letters(&container, &orders, &group("billing")).await;
    for (letter, fields) in letters.iter().zip(bad) {
        assert_eq!(letter.reason, Reason::Undecodable);
        assert_eq!(letter.attempts, 1, "trying again is pointless");
        let kept: Vec<&[u8]> = letter
            .fields
            .iter()
            .flat_map(|(name, value)| [&name[..], &value[..]])
            .collect();
        let given: Vec<&[u8]> = fields.iter().map(|text| text.as_bytes()).collect();
        assert_eq!(kept, given);
        assert_eq!(letter.envelope().is_ok(), fields[1].len() > 1_000_000);
    }
    // It goes back as it was, and dies as it did.
    let ids = [letters[3].id];
    dead.redrive(&orders, &group("billing"), &ids)
        .await
        .unwrap();
    let left = drained(&container, &orders, &group("billing")).await;
    assert_eq!(left.dead, 5);
    let again = crate::support::letters(&container, &orders, &group("billing")).await;
    assert_eq!(again[4].fields, letters[3].fields);
    assert_eq!(again[4].history.redriven, 1);
    finish(container).await;
}

#[tokio::test]
async fn topics_with_colliding_keys_are_refused() {
    let server = Server::start();
    let container = container(&server).await;
    container
        .bus()
        .publish(&topic("orders"), &Envelope::new("n", &1).unwrap())
        .await
        .unwrap();
    let bare = redstart::Container::builder()
        .with_redis_url(server.url())
        .connect()
        .await
        .unwrap();
    let error = bare
        .bus()
        .publish(&topic("shop:orders"), &Envelope::new("n", &1).unwrap())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("namespace \"shop\""), "{error}");
}

#[tokio::test]
async fn a_key_of_another_type_is_a_clear_error_and_nothing_is_written() {
    let server = Server::start();
    let container = container(&server).await;
    let _: String = server.command(&["SET", LOG, "mine"]);
    let orders = topic("orders");
    let error = container
        .bus()
        .publish(&orders, &Envelope::new("n", &1).unwrap())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert_eq!(error.subject(), Some("orders"));
    let error = container
        .bus()
        .subscribe(&orders, |_: Payload<u32>, _: Delivery| async {})
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    let kept: String = server.command(&["GET", LOG]);
    assert_eq!(kept, "mine");
}

#[tokio::test]
async fn undecodable_entries_of_any_size_are_dead_lettered_and_the_reader_continues() {
    let server = Server::start();
    let container = container(&server).await;
    let orders = topic("orders");
    let mut raw = server.raw();
    // 64 MiB in one field, then a thousand unknown fields.
    let bomb = vec![b'['; 64 * 1024 * 1024];
    let _: String = redis::cmd("XADD")
        .arg(LOG)
        .arg("*")
        .arg("json")
        .arg(bomb)
        .query(&mut raw)
        .unwrap();
    let mut wide = redis::cmd("XADD");
    wide.arg(LOG).arg("*");
    for n in 0..1000 {
        wide.arg(format!("field-{n}")).arg("x");
    }
    let _: String = wide.query(&mut raw).unwrap();
    // Among a thousand others the one that counts is found.
    wide.arg("json").arg(r#"{"type":"t","payload":7}"#);
    let _: String = wide.query(&mut raw).unwrap();
    let (sender, mut received) = mpsc::unbounded_channel();
    let _subscription = container
        .bus()
        .subscribe(&orders, move |Payload(n): Payload<u32>, _: Delivery| {
            let _ = sender.send(n);
            async {}
        })
        .await
        .unwrap();
    assert_eq!(next(&mut received).await, 7);
    let left = drained(&container, &orders, &group("billing")).await;
    assert_eq!(left.dead, 2);
    finish(container).await;
}

#[tokio::test]
async fn an_entry_beyond_every_calendar_is_tried_again() {
    let server = Server::start();
    let container = container(&server).await;
    let orders = topic("orders");
    let body = r#"{"type":"order.placed","payload":7}"#;
    // Microseconds where Redis counts milliseconds.
    let _: String = server.command(&["XADD", LOG, "1764167000000000-0", "json", body]);
    let (sender, mut received) = mpsc::unbounded_channel();
    let handler = move |Payload(n): Payload<u32>, delivery: Delivery| {
        let _ = sender.send((n, delivery.attempt()));
        async move {
            match delivery.attempt() {
                1 => redstart::Outcome::retry_after(std::time::Duration::from_millis(1), "again"),
                _ => redstart::Outcome::Ack,
            }
        }
    };
    let _subscription = container.bus().subscribe(&orders, handler).await.unwrap();
    assert_eq!(next(&mut received).await, (7, 1));
    assert_eq!(next(&mut received).await, (7, 2));
    drained(&container, &orders, &group("billing")).await;
    finish(container).await;
}
