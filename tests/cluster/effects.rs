//! Effects in a cluster: within one slot, and refused across several.

use redstart::extract::Payload;
use redstart::{Effects, Envelope, Error, ErrorKind, Namespace};

use crate::support::cluster::Cluster;
use crate::support::{drained, finish, group, publish, roles::acl_file, topic};

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
