//! Each role does its work through the container, and nothing else.

use std::time::Duration;

use redis::Value;
use redstart::extract::Payload;
use redstart::store::Partition;
use redstart::{
    Delivery, Envelope, ErrorKind, Outcome, PublishOptions, RetryPolicy, SubscribeOptions,
    dead_letters::{DeadLetterFilter, DeadLetterRetention},
    kv::first_time,
    ownership::Ownership,
    ports::ClaimResult,
    topics::TopicSettings,
};
use tokio::sync::mpsc;

use crate::support::roles::Roles;
use crate::support::{PATIENCE, drained, finish, group, next, status, topic, until};

const PRODUCER: &str = include_str!("../../src/docs/acl/producer.acl");
const CONSUMER: &str = include_str!("../../src/docs/acl/consumer.acl");
const ROLES: [&str; 5] = ["producer", "consumer", "operator", "viewer", "janitor"];

#[tokio::test]
async fn every_role_does_its_work_and_nothing_is_denied() {
    let roles = Roles::start().await;
    let (orders, billing) = (topic("orders"), group("billing"));

    let producer = roles.container("producer", "web").await;
    let once = PublishOptions::new().with_deduplication(Duration::from_secs(60));
    for n in 0..40_u32 {
        let envelope = Envelope::new("n", &n).unwrap();
        producer.bus().publish(&orders, &envelope).await.unwrap();
        let envelope = Envelope::new("n", &(n + 100)).unwrap();
        for duplicate in [false, true] {
            let told = producer.bus().publish_with(&orders, &envelope, once).await;
            assert_eq!(told.unwrap().duplicate, duplicate);
        }
    }
    assert!(producer.health().await.ok);

    let consumer = roles.container("consumer", "billing").await;
    let (sender, mut received) = mpsc::unbounded_channel();
    let kv = consumer.kv();
    let options = SubscribeOptions::new().with_retry(RetryPolicy::fixed(Duration::from_millis(5)));
    let _subscription = consumer
        .bus()
        .subscribe_with(
            &orders,
            options,
            move |Payload(n): Payload<u32>, delivery: Delivery| {
                let (kv, sender) = (kv.clone(), sender.clone());
                async move {
                    if n == 7 {
                        return Outcome::dead_letter("never");
                    }
                    if delivery.attempt() == 1 && n.is_multiple_of(5) {
                        return Outcome::retry("once");
                    }
                    let id = delivery.envelope().id().to_string();
                    let first = first_time(&kv, &id, Duration::from_secs(60)).await;
                    assert!(first.is_ok());
                    let _ = sender.send(n);
                    Outcome::Ack
                }
            },
        )
        .await
        .unwrap();
    for _ in 0..79 {
        next(&mut received).await;
    }
    let kv = consumer.kv();
    kv.set("a", &1).await.unwrap();
    kv.incr("a", 1).await.unwrap();
    assert!(kv.cas("a", Some(&2), &3, None).await.unwrap());
    let claim = kv
        .port()
        .claim("job", "me", Duration::from_secs(9))
        .await
        .unwrap();
    assert!(matches!(claim, ClaimResult::Claimed));
    kv.delete("a").await.unwrap();
    assert!(consumer.health().await.ok);

    let viewer = roles.builder("viewer").with_read_only(true);
    let viewer = viewer.connect().await.unwrap();
    drained(&viewer, &orders, &billing).await;
    assert_eq!(viewer.topics().list().await.unwrap().len(), 1);
    let any = DeadLetterFilter::default();
    let letters = viewer
        .dead_letters()
        .list(&orders, &billing, &any, None, 9)
        .await;
    let letters = letters.unwrap().items;
    assert_eq!(letters.len(), 1);
    assert!(viewer.health().await.ok);

    let operator = roles.container("operator", "billing").await;
    let made = TopicSettings::default().with_backlog_limit(5);
    operator.topics().create(&topic("new"), made).await.unwrap();
    let dead = operator.dead_letters();
    dead.redrive(&orders, &billing, &[letters[0].0])
        .await
        .unwrap();
    drained(&operator, &orders, &billing).await;
    let letters = dead
        .list(&orders, &billing, &any, None, 9)
        .await
        .unwrap()
        .items;
    dead.purge(&orders, &billing, &[letters[0].0])
        .await
        .unwrap();
    operator
        .store()
        .topics()
        .trim(&Partition::of(&orders))
        .await
        .unwrap();
    assert!(operator.health().await.ok);

    finish(consumer).await;
    assert_eq!(roles.denied(), [""; 0], "the server's ACL LOG");
}

#[tokio::test]
async fn a_role_without_the_right_is_refused_with_a_clear_error() {
    let roles = Roles::start().await;
    let (orders, billing) = (topic("orders"), group("billing"));
    let envelope = Envelope::new("n", &7).unwrap();
    let producer = roles.container("producer", "web").await;
    producer.bus().publish(&orders, &envelope).await.unwrap();

    let viewer = roles.container("viewer", "web").await;
    let error = viewer.bus().publish(&orders, &envelope).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert_eq!(error.subject(), Some("orders"));
    let told = error.to_string();
    assert!(told.contains("lacks the right to run SADD"), "{told}");
    let error = viewer.kv().set("a", &1).await.unwrap_err();
    assert!(
        error.to_string().contains("the right to run SET"),
        "{error}"
    );

    // Inside a script Redis names no command: the line of the script does.
    let line = "user redstart-consumer -xgroup|create";
    let mut words = vec!["ACL", "SETUSER"];
    words.extend(line.split(' ').skip(1));
    let _: String = roles.server.command(&words);
    let consumer = roles.container("consumer", "billing").await;
    let made = consumer
        .bus()
        .subscribe(&orders, |_: Payload<u32>, _: Delivery| async {})
        .await;
    let told = made.unwrap_err().to_string();
    assert!(told.contains("lacks the right"), "{told}");
    let _: String = roles
        .server
        .command(&["ACL", "SETUSER", "redstart-operator", "-hdel"]);
    let operator = roles.container("operator", "billing").await;
    let mut raw = roles.server.raw();
    let dead = "{shop:orders}:group:billing:dead";
    let id: String = redis::cmd("XADD")
        .arg(dead)
        .arg(&["*", "head", "x"])
        .query(&mut raw)
        .unwrap();
    let body = format!("{dead}:body");
    let _: u64 = roles.server.command(&["HSET", &body, &id, "x"]);
    let purged = operator
        .dead_letters()
        .purge(&orders, &billing, &[id.parse().unwrap()])
        .await;
    let told = purged.unwrap_err().to_string();
    let line = "`redis.call('HDEL', KEYS[2], unpack(ids))` (dead_move_out.lua, line";
    // Valkey 9 names the command and not the line.
    let is_named = told.contains(line) || told.contains("lacks the right to run HDEL;");
    assert!(is_named, "{told}");

    // Topics of another namespace are as good as absent.
    let other = roles.builder("producer").with_namespace("office");
    let error = other.connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(
        error.to_string().contains("a key of the command"),
        "{error}"
    );
}

#[tokio::test]
async fn retention_of_dead_letters_takes_one_right_more() {
    let roles = Roles::start().await;
    let (orders, billing) = (topic("orders"), group("billing"));
    let right = "(%RW~{shop:*}:group:* -@all +hexists +xdel)";
    let _: String = roles
        .server
        .command(&["ACL", "SETUSER", "redstart-consumer", right]);
    let producer = roles.container("producer", "web").await;
    for n in 0..3_u32 {
        let envelope = Envelope::new("n", &n).unwrap();
        producer.bus().publish(&orders, &envelope).await.unwrap();
    }
    let consumer = roles.container("consumer", "billing").await;
    let handler = |_: Payload<u32>, _: Delivery| async { Outcome::dead_letter("never") };
    let subscription = consumer.bus().subscribe(&orders, handler).await.unwrap();
    assert_eq!(drained(&consumer, &orders, &billing).await.dead, 3);
    subscription.unsubscribe(PATIENCE).await;
    let retention = DeadLetterRetention::forever().with_max_age(Duration::from_millis(1));
    let options = SubscribeOptions::new().with_dead_letter_retention(retention);
    let _subscription = consumer
        .bus()
        .subscribe_with(&orders, options, handler)
        .await
        .unwrap();
    until("the dead letters to be removed", async || {
        (status(&consumer, &orders, &billing).await.dead == 0).then_some(())
    })
    .await;
    finish(consumer).await;
    assert_eq!(roles.denied(), [""; 0], "the server's ACL LOG");
}

#[tokio::test]
async fn forbidden_commands_are_refused_to_every_role() {
    let roles = Roles::start().await;
    let _: String = roles
        .server
        .command(&["XADD", "{shop:orders}:log", "*", "json", "{}"]);
    let _: String = roles
        .server
        .command(&["XGROUP", "CREATE", "{shop:orders}:log", "g", "0"]);
    let never = [
        "EVAL return 0",
        "EVAL_RO return 0",
        "KEYS *",
        "SCAN 0",
        "CONFIG GET *",
        "CONFIG SET maxmemory 1",
        "MONITOR",
        "DEBUG SLEEP 0",
        "ACL LIST",
        "ACL LOG",
        "FLUSHALL",
        "FLUSHDB",
        "SHUTDOWN NOSAVE",
        "CLIENT LIST",
        "CLIENT KILL ID 1",
        "SCRIPT FLUSH",
        "FUNCTION LIST",
        "REPLICAOF NO ONE",
        "XGROUP DESTROY {shop:orders}:log g",
        "XSETID {shop:orders}:log 9-9",
        "XDEL {shop:orders}:log 1-1",
        "DEL {shop:orders}:log",
        "RENAME {shop:orders}:log {shop:orders}:ids",
        "UNLINK {shop:orders}:log",
        "GET office:a",
        "XRANGE {office:orders}:log - +",
    ];
    let also = [
        (
            "producer",
            "XREADGROUP GROUP g me STREAMS {shop:orders}:log >",
        ),
        (
            "producer",
            "XADD {shop:orders}:group:billing:redo * parcel x",
        ),
        (
            "producer",
            "XADD {shop:orders}:group:billing:dead * record x",
        ),
        ("producer", "XGROUP SETID {shop:orders}:log g 0"),
        ("operator", "XGROUP SETID {shop:orders}:log g 0"),
        ("viewer", "XGROUP SETID {shop:orders}:log g 0"),
        ("janitor", "XGROUP SETID {shop:orders}:log g 0"),
        ("producer", "GET shop:a"),
        ("producer", "SMEMBERS {shop}:topics"),
        ("consumer", "XDEL {shop:orders}:group:billing:dead 1-1"),
        ("consumer", "HSET {shop}:schema dirty 1"),
        ("operator", "XADD {shop:orders}:log * json {}"),
        (
            "operator",
            "XREADGROUP GROUP g me STREAMS {shop:orders}:log >",
        ),
        ("operator", "SET shop:a 1"),
        ("viewer", "XADD {shop:orders}:log * json {}"),
        ("viewer", "SET shop:a 1"),
        ("viewer", "XTRIM {shop:orders}:log MAXLEN 0"),
        (
            "viewer",
            "EVALSHA 0123456789012345678901234567890123456789 0",
        ),
    ];
    for role in ROLES {
        let mut raw = redis::Client::open(roles.url(role))
            .unwrap()
            .get_connection()
            .unwrap();
        let own = also
            .iter()
            .filter(|(of, _)| *of == role)
            .map(|(_, command)| *command);
        for command in never.into_iter().chain(own) {
            let (name, rest) = command.split_once(' ').unwrap_or((command, ""));
            let mut called = redis::cmd(name);
            match (name, rest) {
                ("EVAL" | "EVAL_RO", script) => {
                    called.arg(script).arg(0);
                }
                (_, "") => {}
                (_, rest) => {
                    called.arg(rest.split(' ').collect::<Vec<_>>());
                }
            }
            let told = called.query::<Value>(&mut raw);
            let told = told
                .expect_err(&format!("{role} may {command}"))
                .to_string();
            assert!(
                told.to_lowercase().contains("noperm"),
                "{role}: {command}: {told}"
            );
        }
        assert!(roles.denied().len() > 10);
    }
    assert_eq!(
        roles.server.command::<u64>(&["XLEN", "{shop:orders}:log"]),
        1
    );
}

#[tokio::test]
async fn a_script_that_a_role_loads_itself_has_no_more_rights_than_the_role() {
    let roles = Roles::start().await;
    for role in ROLES {
        let mut raw = redis::Client::open(roles.url(role))
            .unwrap()
            .get_connection()
            .unwrap();
        for (text, by) in [
            ("return redis.call('FLUSHALL')", "EVALSHA"),
            ("return redis.call('DEL', '{shop:orders}:log')", "EVALSHA"),
            ("return redis.call('GET', 'office:a')", "EVALSHA"),
            ("return redis.call('GET', 'office:a')", "EVALSHA_RO"),
            ("return redis.call('SET', 'shop:a', 1)", "EVALSHA_RO"),
        ] {
            let sha: String = redis::cmd("SCRIPT")
                .arg("LOAD")
                .arg(text)
                .query(&mut raw)
                .unwrap();
            let told = redis::cmd(by).arg(sha).arg(0).query::<Value>(&mut raw);
            assert!(told.is_err(), "{role}: {text}");
        }
    }
}

#[tokio::test]
async fn the_first_topic_with_several_partitions_takes_an_operator() {
    let roles = Roles::start().await;
    let settings = TopicSettings::default().with_partitions(4);
    let create = async |role: &str, name: &str| {
        let container = roles.container(role, "billing").await;
        container.topics().create(&topic(name), settings).await
    };
    let refused = create("producer", "orders").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Refused);
    let told = refused.to_string();
    assert!(
        told.contains("orders") && told.contains("operator"),
        "{told}"
    );
    assert!(!roles.denied().is_empty());
    let names: Vec<String> = roles.server.command(&["SMEMBERS", "{shop}:topics"]);
    assert_eq!(names, [""; 0], "nothing was written");
    create("operator", "orders").await.unwrap();
    create("producer", "bills").await.unwrap();
    let publishing = roles.container("producer", "billing").await;
    for name in ["orders", "bills"] {
        let message = |n: u32| Envelope::new("n", &n).unwrap().with_key(n.to_string());
        let all: Vec<Envelope> = (0..20).map(message).collect();
        for done in publishing.bus().publish_all(&topic(name), &all).await {
            done.unwrap();
        }
        let consuming = roles.container("consumer", "billing").await;
        let (sender, mut received) = mpsc::unbounded_channel();
        let handler = move |Payload(n): Payload<u32>| {
            let _ = sender.send(n);
            std::future::ready(Outcome::Ack)
        };
        let bus = consuming.bus();
        let _subscription = bus.subscribe(&topic(name), handler).await.unwrap();
        for _ in 0..20 {
            next(&mut received).await;
        }
        finish(consuming).await;
    }
    let denied = roles.denied();
    assert!(denied.is_empty(), "{denied:?}");
}

#[tokio::test]
async fn a_process_that_publishes_and_consumes_has_the_rules_of_both() {
    let roles = Roles::start().await;
    let rules = |line: &'static str| line.split_once(" off ").unwrap().1.trim();
    let (own, selectors) = rules(PRODUCER).split_once(" (").unwrap();
    let both = format!("on >secret {} ({own}) ({selectors}", rules(CONSUMER));
    let words = ["ACL", "SETUSER", "both"]
        .into_iter()
        .chain(both.split(' '));
    let () = roles.server.command(&words.collect::<Vec<_>>());
    let url = roles
        .server
        .url()
        .replace("redis://", "redis://both:secret@");
    let container = roles
        .builder("consumer")
        .with_redis_url(url)
        .connect()
        .await
        .unwrap();
    let (sender, mut received) = mpsc::unbounded_channel();
    let _subscription = container
        .bus()
        .subscribe(
            &topic("orders"),
            move |Payload(n): Payload<u32>, _: Delivery| {
                let _ = sender.send(n);
                async {}
            },
        )
        .await
        .unwrap();
    let once = PublishOptions::new().with_deduplication(Duration::from_secs(60));
    let envelope = Envelope::new("n", &7).unwrap();
    for duplicate in [false, true] {
        let told = container
            .bus()
            .publish_with(&topic("orders"), &envelope, once)
            .await;
        assert_eq!(told.unwrap().duplicate, duplicate);
    }
    assert_eq!(next(&mut received).await, 7);
    finish(container).await;
    assert_eq!(roles.denied(), [""; 0], "the server's ACL LOG");
}

#[tokio::test]
async fn listing_keys_takes_one_right_more() {
    let roles = Roles::start().await;
    let administrator = crate::support::builder(&roles.server)
        .connect()
        .await
        .unwrap();
    administrator.kv().set("stock", &40).await.unwrap();
    for role in ["viewer", "operator"] {
        let kv = roles.container(role, "billing").await.kv();
        let error = kv.keys("", None, 10).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert!(error.to_string().contains("SCAN"), "{error}");
        let peeked = kv.port().peek_bytes(&["stock"], 10).await.unwrap();
        assert_eq!(peeked[0].as_ref().map(|one| one.len), Some(2));
        roles.denied();
        let user = format!("redstart-{role}");
        let _: String = roles.server.command(&["ACL", "SETUSER", &user, "+scan"]);
        let page = kv.keys("", None, 10).await.unwrap();
        assert_eq!(page.keys, ["stock"]);
        // The guide's rights to change values.
        let change = async || -> Result<bool, redstart::Error> {
            kv.cas("stock", Some(&40), &40, None).await?;
            kv.delete("other").await
        };
        assert!(change().await.is_err());
        roles.denied();
        let right = "(%RW~shop:* -@all +del +evalsha +get +set)";
        let _: String = roles.server.command(&["ACL", "SETUSER", &user, right]);
        change().await.unwrap();
        assert_eq!(roles.denied(), [""; 0], "the server's ACL LOG");
    }
}

#[tokio::test]
async fn a_consumer_gets_an_owned_group_once_an_operator_has_allowed_them() {
    let roles = Roles::start().await;
    let orders = topic("orders");
    let consumer = roles.container("consumer", "billing").await;
    let subscribe = async || {
        let options = SubscribeOptions::new().with_ownership(Ownership::new());
        let handler = async |_: Delivery| Outcome::Ack;
        let bus = consumer.bus();
        bus.subscribe_with(&orders, options, handler).await
    };
    let error = subscribe().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    let told = error.to_string();
    assert!(told.contains("migrate up --owned-groups"), "{told}");
    let migrations = roles.builder("operator").migrations().unwrap();
    assert_eq!(migrations.allow_owned_groups().await.unwrap(), [6]);
    subscribe().await.unwrap();
    finish(consumer).await;
}
