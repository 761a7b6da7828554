//! Effects in a cluster: within one slot, refused across several, and everywhere with placement
//! `together`.

use redstart::extract::Payload;
use std::time::Duration;

use redstart::{Effects, Envelope, Error, ErrorKind, Namespace, Placement};

use crate::support::cluster::Cluster;
use crate::support::roles::{acl_file, acl_file_for};
use crate::support::{PATIENCE, drained, finish, group, publish, topic, until};

#[tokio::test]
async fn effects_stay_within_one_slot() {
    let rules = acl_file();
    let path = rules.path().to_str().unwrap();
    let cluster = Cluster::start_with(3, 0, &["--aclfile", path]);
    let shop = Namespace::new("shop").unwrap();
    let operator = "redis+cluster://redstart-operator:operator-secret@";
    let url = cluster.url().replace("redis+cluster://", operator);
    let setup = cluster.builder(&shop).with_redis_url(url).connect().await;
    finish(setup.unwrap()).await;
    let stage = "redis+cluster://redstart-stage:stage-secret@";
    let url = cluster.url().replace("redis+cluster://", stage);
    let builder = cluster.builder(&shop).with_redis_url(url);
    let container = builder.connect().await.unwrap();
    let (orders, kv) = (topic("orders"), container.kv());

    // The topic and a value that shares its slot.
    let mut effects = Effects::new();
    let message = |n: u32| Envelope::new("n", &n).unwrap();
    effects
        .publish(&orders, message(1))
        .incr("sent{shop:orders}", 1);
    container.commit(effects.clone()).await.unwrap();
    effects.incr("sent", 1);
    let refused = container.commit(effects).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    let told = refused.to_string();
    assert!(
        told.contains("2 Cluster slots: {shop:orders}:log ("),
        "{told}"
    );
    let slot = cluster.slot("shop:sent");
    let value = format!("shop:sent ({slot}); a namespace set up with Placement::Together has one");
    assert!(told.ends_with(&value), "{told}");

    // Braces in keys: the session of a call lies beside each.
    for key in ["cart}7", "user:{}", "stock{7}", "a{b"] {
        let mut effects = Effects::new();
        effects.incr(key, 1);
        container.commit(effects).await.unwrap();
    }

    // Commits of different slots, side by side: none refuses the others.
    let commits = (0..40).map(|n| {
        let mut effects = Effects::new();
        effects.incr(&format!("counter:{n}"), 1);
        container.commit(effects)
    });
    for done in futures_util::future::join_all(commits).await {
        done.unwrap();
    }
    let first: Option<u32> = kv.get("counter:7").await.unwrap();
    assert_eq!(first, Some(1));

    // A handler changes values beside its topic.
    let handler = |Payload(_): Payload<u32>| async {
        let mut effects = Effects::new();
        effects.incr("handled{shop:orders}", 1);
        Ok::<_, Error>(effects)
    };
    let bus = container.bus();
    bus.subscribe(&orders, handler).await.unwrap();
    publish(&container, &orders, 2..50).await;
    let billing = group("billing");
    drained(&container, &orders, &billing).await;
    let handled: Option<u32> = kv.get("handled{shop:orders}").await.unwrap();
    assert_eq!(handled, Some(49));
    finish(container).await;
}

#[tokio::test]
async fn together_effects_reach_every_topic_and_value() {
    let rules = acl_file_for(Placement::Together);
    let path = rules.path().to_str().unwrap();
    let cluster = Cluster::start_with(3, 0, &["--aclfile", path]);
    let shop = Namespace::new("shop").unwrap();
    let connect = async |role: &str| {
        let user = format!("redis+cluster://redstart-{role}:{role}-secret@");
        let url = cluster.url().replace("redis+cluster://", &user);
        let builder = cluster.builder(&shop).with_redis_url(url);
        builder.with_placement(Placement::Together).connect().await
    };
    let operator = connect("operator").await.unwrap();
    let container = connect("stage").await.unwrap();
    let (orders, bills) = (topic("orders"), topic("bills"));
    let handler = |Payload(n): Payload<u32>| async move {
        let mut effects = Effects::new();
        effects
            .incr("handled", 1)
            .set(&format!("order:{n}"), &n)
            .publish(&topic("bills"), Envelope::new("n", &n)?)
            .publish_after(
                Duration::from_secs(900),
                &topic("mails"),
                Envelope::new("n", &n)?,
            );
        Ok::<_, Error>(effects)
    };
    let bus = container.bus();
    let subscription = bus.subscribe(&orders, handler).await.unwrap();
    publish(&container, &orders, 0..50).await;
    drained(&operator, &orders, &group("billing")).await;
    let mut effects = Effects::new();
    let more = Envelope::new("n", &50_u32).unwrap();
    effects.publish(&bills, more.clone()).incr("handled", 1);
    container
        .commit(effects.publish(&orders, more).clone())
        .await
        .unwrap();
    let kv = container.kv();
    let length = async |topic: &redstart::Topic| {
        let all = operator.topics().list().await.unwrap();
        let found = all.into_iter().find(|one| one.topic == *topic);
        found.map_or((0, 0), |one| (one.entries, one.later))
    };
    until("both messages", async || {
        let bills = length(&bills).await.0;
        let handled: Option<u32> = kv.get("handled").await.unwrap();
        (bills == 52 && handled == Some(52)).then_some(())
    })
    .await;
    assert_eq!(length(&topic("mails")).await, (0, 51));
    let one: Option<u32> = kv.get("order:7").await.unwrap();
    assert_eq!(one, Some(7));
    assert!(subscription.unsubscribe(PATIENCE).await.is_clean());
    finish(container).await;
    finish(operator).await;

    // All of it has one slot, on one primary.
    let slot = cluster.slot("{shop}:schema");
    let owner = cluster.owner(0, slot);
    for (number, node) in cluster.nodes.iter().enumerate() {
        let keys: u64 = node.command(&["DBSIZE"]);
        assert_eq!(keys > 0, number == owner, "node {number}");
        let denied: Vec<redis::Value> = node.command(&["ACL", "LOG", "100"]);
        assert!(denied.is_empty(), "node {number}: {denied:?}");
    }
}
