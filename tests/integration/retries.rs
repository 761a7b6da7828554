//! Outcomes, retries and their times.

use std::time::Duration;

use redstart::extract::Payload;
use redstart::{Delivery, Envelope, Outcome, RetryPolicy, SubscribeOptions, dead_letters::Reason};
use tokio::sync::mpsc;

use crate::support::{
    Server, container, drained, finish, group, letters, next, status, topic, until,
};

const SOON: Duration = Duration::from_millis(5);
const LATE: Duration = Duration::from_secs(86_400);

fn quick(attempts: u32) -> SubscribeOptions {
    SubscribeOptions::new().with_retry(RetryPolicy::fixed(SOON).with_max_attempts(attempts))
}

/// The facts of a delivery, as its handler saw them.
type Seen = (u32, u32, Option<String>);

#[tokio::test]
async fn a_failed_message_returns_with_its_count_and_error_until_it_is_exhausted() {
    let server = Server::start();
    let container = container(&server).await;
    let (bus, orders) = (container.bus(), topic("orders"));
    let (sender, mut received) = mpsc::unbounded_channel::<Seen>();
    let _subscription = bus
        .subscribe_with(
            &orders,
            quick(3),
            move |_: Payload<u32>, delivery: Delivery| {
                let envelope = delivery.envelope();
                let last = envelope.last_error().map(str::to_owned);
                let _ = sender.send((delivery.attempt(), envelope.failed_attempts(), last));
                async move { Err::<(), _>(format!("failure {}", delivery.attempt())) }
            },
        )
        .await
        .unwrap();
    let envelope = Envelope::new("n", &1).unwrap().with_tenant("t-1");
    let published = bus.publish(&orders, &envelope).await.unwrap();
    let error = |n: u32| Some(format!("failure {n}"));
    assert_eq!(next(&mut received).await, (1, 0, None));
    assert_eq!(next(&mut received).await, (2, 1, error(1)));
    assert_eq!(next(&mut received).await, (3, 2, error(2)));
    let left = drained(&container, &orders, &group("billing")).await;
    assert_eq!(left.dead, 1, "exactly one record");

    let dead = container.dead_letters();
    let letters = letters(&container, &orders, &group("billing")).await;
    let letter = &letters[0];
    assert_eq!(letter.reason, Reason::Exhausted);
    assert_eq!(letter.attempts, 3);
    assert_eq!(letter.error, "failure 3");
    assert_eq!(letter.fingerprint, "failure #");
    assert_eq!(letter.message_type, "n");
    assert_eq!(letter.tenant.as_deref(), Some("t-1"));
    assert_eq!(letter.history.origin, published.id);
    let numbers: Vec<u32> = letter.history.failures.iter().map(|a| a.number).collect();
    assert_eq!(numbers, [1, 2, 3]);
    assert!(letter.history.first_failure <= Some(letter.last_failure));
    assert_eq!(letter.envelope().unwrap().id(), envelope.id());
    let causes = dead.causes(&orders, &group("billing")).await.unwrap();
    assert_eq!(causes.len(), 1);
    assert_eq!((causes[0].reason, causes[0].count), (letter.reason, 1));
    assert_eq!(causes[0].fingerprint, letter.fingerprint);
    assert_eq!((causes[0].first, causes[0].last), (letter.id, letter.id));
    finish(container).await;
}

#[tokio::test]
async fn a_panic_is_a_failure() {
    let server = Server::start();
    let container = container(&server).await;
    let (bus, orders) = (container.bus(), topic("orders"));
    let (sender, mut received) = mpsc::unbounded_channel::<Seen>();
    let _subscription = bus
        .subscribe_with(
            &orders,
            quick(3),
            move |Payload(n): Payload<u32>, delivery: Delivery| {
                let last = delivery.envelope().last_error().map(str::to_owned);
                let _ = sender.send((n, delivery.attempt(), last));
                // The first panics before there is a future, the second inside it.
                assert!(delivery.attempt() > 1, "early");
                async move { assert!(delivery.attempt() > 2, "late {n}") }
            },
        )
        .await
        .unwrap();
    bus.publish(&orders, &Envelope::new("n", &7).unwrap())
        .await
        .unwrap();
    assert_eq!(next(&mut received).await, (7, 1, None));
    let text = |what: &str| Some(format!("the handler panicked: {what}"));
    assert_eq!(next(&mut received).await, (7, 2, text("early")));
    assert_eq!(next(&mut received).await, (7, 3, text("late 7")));
    let left = drained(&container, &orders, &group("billing")).await;
    assert_eq!(left.dead, 0);
    finish(container).await;
}

#[tokio::test]
async fn a_snooze_does_not_count_and_a_rejection_is_final() {
    let server = Server::start();
    let container = container(&server).await;
    let (bus, orders) = (container.bus(), topic("orders"));
    let (sender, mut received) = mpsc::unbounded_channel::<u32>();
    let mut snoozes = std::sync::atomic::AtomicU32::new(0);
    *snoozes.get_mut() = 3;
    let _subscription = bus
        .subscribe_with(
            &orders,
            quick(1),
            move |_: Payload<u32>, delivery: Delivery| {
                let _ = sender.send(delivery.attempt());
                let left = snoozes.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                async move {
                    match left {
                        1.. => Outcome::snooze(SOON),
                        _ => Outcome::dead_letter("never"),
                    }
                }
            },
        )
        .await
        .unwrap();
    bus.publish(&orders, &Envelope::new("n", &7).unwrap())
        .await
        .unwrap();
    for _ in 0..4 {
        assert_eq!(next(&mut received).await, 1, "a snooze is no attempt");
    }
    drained(&container, &orders, &group("billing")).await;
    let letters = letters(&container, &orders, &group("billing")).await;
    assert_eq!(letters.len(), 1);
    assert_eq!(
        (letters[0].reason, letters[0].attempts),
        (Reason::Rejected, 1)
    );
    assert_eq!(letters[0].error, "never");
    finish(container).await;
}

#[tokio::test]
async fn scheduled_retries_wait_in_the_store_and_not_in_the_process() {
    let server = Server::start();
    let first = container(&server).await;
    let orders = topic("orders");
    let (sender, mut received) = mpsc::unbounded_channel::<u32>();
    let seen = sender.clone();
    let _subscription = first
        .bus()
        .subscribe(&orders, move |Payload(n): Payload<u32>, _: Delivery| {
            let _ = seen.send(n);
            async { Outcome::retry_after(LATE, "tomorrow") }
        })
        .await
        .unwrap();
    first
        .bus()
        .publish(&orders, &Envelope::new("n", &7).unwrap())
        .await
        .unwrap();
    assert_eq!(next(&mut received).await, 7);
    until("the retry to be scheduled", async || {
        let status = status(&first, &orders, &group("billing")).await;
        ((status.in_flight, status.scheduled) == (0, 1)).then_some(())
    })
    .await;
    finish(first).await;

    // Its time comes: another process finds it.
    let key = "{shop:orders}:group:billing:retry";
    let members: Vec<String> = server.command(&["ZRANGE", key, "0", "-1"]);
    let due: i64 = server.command(&["ZSCORE", key, &members[0]]);
    let now: (i64, i64) = server.command(&["TIME"]);
    let delay = due / 1000 - now.0;
    assert!((80_000..=86_400).contains(&delay), "{delay} s");
    let _: i64 = server.command(&["ZADD", key, "1", &members[0]]);
    let second = container(&server).await;
    let _subscription = second
        .bus()
        .subscribe(
            &orders,
            move |Payload(n): Payload<u32>, delivery: Delivery| {
                let _ = sender.send(n * 10 + delivery.attempt());
                async {}
            },
        )
        .await
        .unwrap();
    assert_eq!(next(&mut received).await, 72);
    drained(&second, &orders, &group("billing")).await;
    finish(second).await;
}

#[tokio::test]
async fn a_retry_comes_back_to_the_group_that_failed_and_to_no_other() {
    let server = Server::start();
    let container = container(&server).await;
    let (bus, orders) = (container.bus(), topic("orders"));
    let (sender, mut received) = mpsc::unbounded_channel::<(String, u32)>();
    for name in ["failing", "fine"] {
        let sender = sender.clone();
        let options = quick(4).with_group(group(name));
        let _subscription = bus
            .subscribe_with(
                &orders,
                options,
                move |_: Payload<u32>, delivery: Delivery| {
                    let _ = sender.send((name.to_owned(), delivery.attempt()));
                    async move {
                        if name == "failing" && delivery.attempt() < 4 {
                            return Err("not yet");
                        }
                        Ok(())
                    }
                },
            )
            .await
            .unwrap();
    }
    bus.publish(&orders, &Envelope::new("n", &7).unwrap())
        .await
        .unwrap();
    let mut seen = Vec::new();
    for _ in 0..5 {
        seen.push(next(&mut received).await);
    }
    seen.sort();
    let failing = (1..=4).map(|attempt| ("failing".to_owned(), attempt));
    let expected: Vec<_> = failing.chain([("fine".to_owned(), 1)]).collect();
    assert_eq!(seen, expected);
    drained(&container, &orders, &group("failing")).await;
    drained(&container, &orders, &group("fine")).await;
    finish(container).await;
    assert!(received.try_recv().is_err());
}

#[tokio::test]
async fn a_message_at_the_size_limit_survives_the_error_text_it_gains() {
    let server = Server::start();
    let container = container(&server).await;
    let (bus, orders) = (container.bus(), topic("orders"));
    let (sender, mut received) = mpsc::unbounded_channel::<u32>();
    let _subscription = bus
        .subscribe_with(
            &orders,
            quick(3),
            move |_: Payload<String>, delivery: Delivery| {
                let _ = sender.send(delivery.attempt());
                async move { Err::<(), _>("x".repeat(4000)) }
            },
        )
        .await
        .unwrap();
    let mut size = 1024 * 1024;
    let envelope = loop {
        let envelope = Envelope::new("n", &"y".repeat(size)).unwrap();
        match bus.publish(&orders, &envelope).await {
            Ok(_) => break envelope,
            Err(_) => size -= 16,
        }
    };
    for attempt in 1..=3 {
        assert_eq!(next(&mut received).await, attempt);
    }
    drained(&container, &orders, &group("billing")).await;
    let letters = letters(&container, &orders, &group("billing")).await;
    assert_eq!(letters[0].reason, Reason::Exhausted);
    let again = letters[0].envelope().unwrap();
    assert_eq!(again.raw_payload(), envelope.raw_payload());
    finish(container).await;
}
