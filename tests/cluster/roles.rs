//! The shipped roles have the rights that a cluster needs.

use std::time::Duration;

use redstart::extract::Payload;
use redstart::{
    Container, Delivery, Envelope, Namespace, Outcome, PublishOptions, RetryPolicy,
    SubscribeOptions,
};

use crate::support::cluster::Cluster;
use crate::support::{PATIENCE, drained, finish, group, letters, roles::acl_file, topic};

#[tokio::test]
async fn each_role_can_do_its_work_while_a_slot_moves() {
    let rules = acl_file();
    let path = rules.path().to_str().unwrap();
    let cluster = Cluster::start_with(3, 0, &["--aclfile", path]);
    // The rules are for this namespace.
    let shop = Namespace::new("shop").unwrap();
    let connect = async |role: &str| -> Container {
        let user = format!("redis+cluster://redstart-{role}:{role}-secret@");
        let url = cluster.url().replace("redis+cluster://", &user);
        let builder = cluster.builder(&shop).with_redis_url(url);
        builder.connect().await.unwrap()
    };
    let operator = connect("operator").await;
    let (producer, consumer, viewer) = (
        connect("producer").await,
        connect("consumer").await,
        connect("viewer").await,
    );
    let (orders, billing) = (topic("orders"), group("billing"));
    let retry = RetryPolicy::fixed(Duration::from_millis(5)).with_max_attempts(2);
    let options = SubscribeOptions::new().with_retry(retry);
    let handler = |Payload(n): Payload<u32>, _: Delivery| async move {
        match n % 5 {
            0 => Outcome::retry("always"),
            _ => Outcome::Ack,
        }
    };
    let bus = consumer.bus();
    let subscribing = bus.subscribe_with(&orders, options, handler);
    let subscription = subscribing.await.unwrap();

    let slot = cluster.slot("{shop:orders}:log");
    let (from, to) = (cluster.owner(0, slot), (cluster.owner(0, slot) + 1) % 3);
    let publish = async |n: u32, once: bool| {
        let envelope = Envelope::new("n", &n).unwrap();
        let mut options = PublishOptions::new();
        if once {
            options = options.with_deduplication(Duration::from_secs(60));
        }
        let bus = producer.bus();
        bus.publish_with(&orders, &envelope, options).await.unwrap();
    };
    for n in 0..20 {
        publish(n, n % 2 == 0).await;
    }
    cluster.begin_move(slot, from, to);
    cluster.move_key("{shop:orders}:log", from, to);
    for n in 20..40 {
        publish(n, false).await;
    }
    for key in cluster.keys(slot, from) {
        cluster.move_key(&key, from, to);
    }
    cluster.end_move(slot, from, to);
    for n in 40..60 {
        publish(n, n % 2 == 0).await;
    }
    drained(&viewer, &orders, &billing).await;
    assert_eq!(letters(&operator, &orders, &billing).await.len(), 12);
    viewer.store().inspect().ping().await.unwrap();
    for writer in [&producer, &consumer, &operator] {
        writer.store().inspect().try_write().await.unwrap();
    }
    let ended = subscription.unsubscribe(PATIENCE).await;
    assert!(ended.is_clean(), "{ended:?}");
    for (number, node) in cluster.nodes.iter().enumerate() {
        let denied: Vec<redis::Value> = node.command(&["ACL", "LOG", "100"]);
        let denied: Vec<String> = denied.iter().map(|entry| format!("{entry:?}")).collect();
        // Health asks whether a user may write to other topics, too.
        let expected = |entry: &String| entry.contains("redstart.health.");
        assert!(denied.iter().all(expected), "node {number}: {denied:?}");
    }
    for container in [producer, consumer, viewer, operator] {
        finish(container).await;
    }
}
