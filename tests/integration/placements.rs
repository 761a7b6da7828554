//! Placements of a namespace: fixed by the container that sets it up.

use std::time::Duration;

use redstart::extract::Payload;
use redstart::{
    Effects, Envelope, Error, ErrorKind, Kv, Namespace, Outcome, Placement, PublishOptions,
    RetryPolicy, SubscribeOptions,
};

use crate::support::{Server, builder, drained, finish, group, letters, publish, topic, until};

const SCHEMA: &str = "{shop}:schema";

fn field(server: &Server, name: &str) -> Option<String> {
    server.command(&["HGET", SCHEMA, name])
}

#[tokio::test]
async fn every_key_of_a_namespace_that_is_together_has_one_tag() {
    let server = Server::start();
    let together = builder(&server).with_placement(Placement::Together);
    let container = together.connect().await.unwrap();
    assert_eq!(field(&server, "placement").as_deref(), Some("together"));
    assert_eq!(field(&server, "layout").as_deref(), Some("3"));
    assert!(field(&server, "applied:0003").is_some());

    let (orders, billing) = (topic("orders"), group("billing"));
    let retry = RetryPolicy::fixed(Duration::from_millis(5)).with_max_attempts(2);
    let options = SubscribeOptions::new()
        .with_retry(retry)
        .with_hold_back(Duration::ZERO);
    let handler = |Payload(n): Payload<u32>| async move {
        if n == 0 {
            return Ok(Outcome::retry("always"));
        }
        let mut effects = Effects::new();
        effects
            .incr("handled", 1)
            .publish(&topic("bills"), Envelope::new("n", &n)?)
            .publish_after(
                Duration::from_secs(900),
                &topic("mails"),
                Envelope::new("n", &n)?,
            );
        Ok::<_, Error>(Outcome::Commit(effects))
    };
    let bus = container.bus();
    let _subscription = bus.subscribe_with(&orders, options, handler).await.unwrap();
    publish(&container, &orders, 0..8).await;
    let once = PublishOptions::new().with_deduplication(Duration::from_secs(60));
    let envelope = Envelope::new("n", &9_u32).unwrap();
    bus.publish_with(&orders, &envelope, once).await.unwrap();
    drained(&container, &orders, &billing).await;
    assert_eq!(letters(&container, &orders, &billing).await.len(), 1);
    let mut effects = Effects::new();
    effects.incr("outside", 1);
    container.commit(effects).await.unwrap();
    container.kv().set("log", &1).await.unwrap();

    let keys: Vec<String> = server.command(&["KEYS", "*"]);
    for expected in [
        "{shop}:t:orders:log",
        "{shop}:t:orders:group:billing:dead",
        "{shop}:t:bills:log",
        "{shop}:t:mails:later",
        "{shop}:v:handled",
        "{shop}:v:outside",
        "{shop}:v:log",
        "{shop}:topics",
    ] {
        assert!(
            keys.iter().any(|key| key == expected),
            "{expected}: {keys:?}"
        );
    }
    for key in &keys {
        assert!(key.starts_with("{shop}:"), "{key}");
    }
    let handled: Option<u32> = container.kv().get("handled").await.unwrap();
    assert_eq!(handled, Some(8));
    finish(container).await;
}

#[tokio::test]
async fn a_container_takes_the_placement_or_is_refused() {
    let server = Server::start();
    for (has, other) in [
        (Placement::Together, Placement::Spread),
        (Placement::Spread, Placement::Together),
    ] {
        server.command::<()>(&["FLUSHALL"]);
        let first = builder(&server).with_placement(has).connect().await;
        first.unwrap().kv().set("a", &1).await.unwrap();
        for same in [builder(&server), builder(&server).with_placement(has)] {
            let container = same.connect().await.unwrap();
            let found: Option<u32> = container.kv().get("a").await.unwrap();
            assert_eq!(found, Some(1));
        }
        let told = format!(
            "setup: namespace \"shop\" was set up with placement {has}, not {other}; choose another \
             namespace or leave the placement out"
        );
        for creates in [true, false] {
            let refused = builder(&server).with_placement(other);
            let refused = refused.with_namespace_creation(creates).connect().await;
            let refused = refused.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Invalid);
            assert_eq!(refused.to_string(), told);
        }
        let migrations = builder(&server).with_placement(other).migrations();
        let refused = migrations.unwrap().up(true).await.unwrap_err();
        assert_eq!(refused.to_string(), told);
    }
    // A namespace of a version that knew no placements.
    let _: u64 = server.command(&["HDEL", SCHEMA, "placement"]);
    let together = || builder(&server).with_placement(Placement::Together);
    assert!(together().connect().await.is_err());
    assert!(together().migrations().unwrap().up(false).await.is_err());
    builder(&server).connect().await.unwrap();
    // Topics without a schema.
    server.command::<()>(&["FLUSHALL"]);
    let _: u64 = server.command(&["SADD", "{shop}:topics", "orders"]);
    let refused = together().connect().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    let without = together().with_namespace("");
    assert!(without.connect().await.is_err());
}

#[tokio::test]
async fn one_of_two_placements_wins_a_race() {
    let server = Server::start();
    for _ in 0..4 {
        server.command::<()>(&["FLUSHALL"]);
        let starts: Vec<_> = (0..12)
            .map(|n| {
                let placement = [Placement::Spread, Placement::Together][n % 2];
                let start = builder(&server).with_placement(placement).connect();
                (placement, tokio::spawn(start))
            })
            .collect();
        let mut connected = Vec::new();
        for (placement, start) in starts {
            match start.await.unwrap() {
                Ok(_) => connected.push(placement),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Invalid, "{error}"),
            }
        }
        let won: Placement = field(&server, "placement").unwrap().parse().unwrap();
        assert_eq!(connected, [won; 6]);
        let layout = if won == Placement::Together { "3" } else { "2" };
        assert_eq!(field(&server, "layout").as_deref(), Some(layout));
    }
}

#[tokio::test]
async fn an_interrupted_setup_keeps_its_placement() {
    let server = Server::start();
    let _: u64 = server.command(&[
        "HSET",
        SCHEMA,
        "dirty",
        "0003",
        "placement",
        "together",
        "lock",
        "gone",
        "lockUntil",
        "1",
    ]);
    let error = builder(&server).connect().await.unwrap_err();
    assert!(error.to_string().contains("--repair"), "{error}");
    let migrations = builder(&server).migrations().unwrap();
    assert_eq!(migrations.up(true).await.unwrap(), [3]);
    let placement = migrations.placement().await.unwrap();
    assert_eq!(placement, Some(Placement::Together));
    builder(&server).connect().await.unwrap();
}

#[tokio::test]
async fn values_and_monitors_follow_the_placement() {
    let server = Server::start();
    let shop = Namespace::new("shop").unwrap();
    let kv = Kv::connect(&server.url(), Some(shop.clone())).unwrap();
    let monitor = builder(&server).with_namespace_creation(false);
    let monitor = monitor.connect().await.unwrap();
    assert_eq!(kv.get::<u32>("a").await.unwrap(), None);
    assert_eq!(monitor.topics().list().await.unwrap(), []);
    assert_eq!(server.command::<u64>(&["DBSIZE"]), 0);

    let together = builder(&server).with_placement(Placement::Together);
    let container = together.connect().await.unwrap();
    container.kv().set("a", &7).await.unwrap();
    publish(&container, &topic("orders"), 0..3).await;
    // Both ask again within a second.
    until("the value", async || kv.get::<u32>("a").await.unwrap()).await;
    let listed = async || {
        let topics = monitor.topics().list().await.unwrap();
        topics.first().filter(|one| one.entries == 3).map(drop)
    };
    until("the topic", listed).await;
    kv.set("b", &8).await.unwrap();
    assert_eq!(container.kv().get::<u32>("b").await.unwrap(), Some(8));
    let at_once = Kv::connect(&server.url(), Some(shop)).unwrap();
    assert_eq!(at_once.get::<u32>("a").await.unwrap(), Some(7));

    let report = builder(&server).doctor().unwrap().run().await;
    let layout = report.findings.iter().find(|one| one.check == "layout");
    let what = &layout.unwrap().what;
    assert_eq!(what, "all migrations applied, placement together");
    let seen = |topics: Vec<redstart::topics::TopicStatus>| topics.len();
    assert_eq!(seen(monitor.topics().list().await.unwrap()), 1);
}

#[tokio::test]
async fn a_failed_log_in_decides_no_placement() {
    let server = Server::start();
    let together = builder(&server).with_placement(Placement::Together);
    together.connect().await.unwrap();
    let connect = |user: &str| {
        let url = server.url();
        let url = url.replace("redis://", &format!("redis://{user}:secret@"));
        Kv::connect(&url, Some(Namespace::new("shop").unwrap())).unwrap()
    };
    let allow = |user: &str, rules: &[&str]| {
        let words = ["ACL", "SETUSER", user, ">secret", "~*", "+@all"];
        let _: String = server.command(&[&words, rules].concat());
    };
    for (user, before, after) in [
        ("early", "off", "on"),
        ("nameless", "-client|setname", "+client|setname"),
    ] {
        server.command::<u64>(&["DEL", "{shop}:v:a"]);
        allow(user, &["on", before]);
        let kv = connect(user);
        let error = kv.get::<u32>("a").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
        allow(user, &[after]);
        kv.set("a", &1).await.unwrap();
        assert_eq!(server.command::<u64>(&["EXISTS", "{shop}:v:a"]), 1);
        assert_eq!(server.command::<u64>(&["EXISTS", "shop:a"]), 0);
    }
    // A user that may not read the schema has the names of `spread`.
    allow("values", &["on", "-hgetall"]);
    connect("values").set("a", &1).await.unwrap();
    assert_eq!(server.command::<u64>(&["EXISTS", "shop:a"]), 1);
}
