//! Migrations of a namespace.

use redstart::{
    Delivery, ErrorKind, Outcome, SubscribeOptions, migrations::MigrationState,
    ownership::Ownership, topics::TopicSettings,
};

use crate::support::{Server, builder, finish, topic, until};

const SCHEMA: &str = "{shop}:schema";

#[tokio::test]
async fn a_new_namespace_is_set_up_once_by_the_first_container() {
    let server = Server::start();
    let starts: Vec<_> = (0..8)
        .map(|_| tokio::spawn(builder(&server).connect()))
        .collect();
    for start in starts {
        start.await.unwrap().unwrap();
    }
    let migrations = builder(&server).migrations().unwrap();
    let all = migrations.status().await.unwrap();
    assert_eq!(all.len(), 2);
    assert_eq!((all[0].number, all[0].name.as_str()), (1, "layout"));
    let MigrationState::Applied(at) = all[0].state else {
        panic!("{all:?}");
    };
    assert!(at.as_millis() > 1_700_000_000_000);
    assert!(
        migrations.up(false).await.unwrap().is_empty(),
        "nothing is left to do"
    );
    let layout: String = server.command(&["HGET", SCHEMA, "layout"]);
    assert_eq!(layout, "2");
}

#[tokio::test]
async fn a_read_only_connection_sets_nothing_up_and_applies_the_same_checks() {
    let server = Server::start();
    let looking = || {
        builder(&server)
            .with_namespace_creation(false)
            .with_migrate_on_connect(true)
    };
    let container = looking().connect().await.unwrap();
    assert_eq!(container.topics().list().await.unwrap(), []);
    assert!(container.health().await.ok);
    assert_eq!(server.command::<u64>(&["DBSIZE"]), 0);
    let _: u64 = server.command(&["HSET", SCHEMA, "applied:0009", "beef"]);
    let error = looking().connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Layout);
}

#[tokio::test]
async fn a_newer_or_changed_namespace_is_refused() {
    let server = Server::start();
    builder(&server).connect().await.unwrap();
    let checksum: String = server.command(&["HGET", SCHEMA, "applied:0001"]);
    assert_eq!(checksum.len(), 40);
    let _: u64 = server.command(&["HSET", SCHEMA, "applied:0009", "beef"]);
    let error = builder(&server).connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Layout);
    assert!(error.to_string().contains("0009"), "{error}");
    let migrations = builder(&server).migrations().unwrap();
    assert_eq!(
        migrations.status().await.unwrap()[2].state,
        MigrationState::Unknown
    );
    assert_eq!(
        migrations.up(true).await.unwrap_err().kind(),
        ErrorKind::Layout
    );

    let _: u64 = server.command(&["HDEL", SCHEMA, "applied:0009"]);
    let _: u64 = server.command(&["HSET", SCHEMA, "applied:0001", "beef"]);
    let error = builder(&server).connect().await.unwrap_err();
    assert!(error.to_string().contains("another form"), "{error}");
    assert_eq!(
        migrations.status().await.unwrap()[0].state,
        MigrationState::Changed
    );
}

#[tokio::test]
async fn an_unfinished_migration_is_found_and_can_be_repaired() {
    let server = Server::start();
    // The lock of a process that died has run out; the dirty mark has not.
    let _: u64 = server.command(&[
        "HSET",
        SCHEMA,
        "dirty",
        "0001",
        "lock",
        "gone",
        "lockUntil",
        "1",
    ]);
    let error = builder(&server).connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Layout);
    assert!(error.to_string().contains("--repair"), "{error}");
    let migrations = builder(&server).migrations().unwrap();
    assert_eq!(
        migrations.status().await.unwrap()[0].state,
        MigrationState::Dirty
    );
    assert_eq!(
        migrations.up(false).await.unwrap_err().kind(),
        ErrorKind::Layout
    );
    assert_eq!(migrations.up(true).await.unwrap(), [1, 2]);
    builder(&server).connect().await.unwrap();
}

#[tokio::test]
async fn connecting_waits_for_another_process_that_is_at_a_migration() {
    // On demand, and of a new namespace between its two migrations.
    for (set, unset) in [(["dirty", "0006"], "none"), (["tag", "x"], "applied:0002")] {
        waits_for_another_process(set, unset).await;
    }
}

async fn waits_for_another_process(set: [&str; 2], unset: &str) {
    let server = Server::start();
    finish(builder(&server).connect().await.unwrap()).await;
    let applied: Option<String> = server.command(&["HGET", SCHEMA, unset]);
    server.command::<()>(&["HDEL", SCHEMA, unset]);
    // In the year 2100.
    let lock = ["lock", "another", "lockUntil", "4102444800000"];
    server.command::<()>(&[&["HSET", SCHEMA], &set[..], &lock].concat());
    server.command::<()>(&["CONFIG", "RESETSTAT"]);
    let connecting = tokio::spawn(builder(&server).connect());
    until("connecting to look again", async || {
        let seen: String = server.command(&["INFO", "commandstats"]);
        let looks = seen.lines().find_map(|line| {
            let calls = line.strip_prefix("cmdstat_hgetall:calls=")?;
            calls.split(',').next()?.parse::<u32>().ok()
        });
        (looks > Some(1) || connecting.is_finished()).then_some(())
    })
    .await;
    assert!(!connecting.is_finished(), "{:?}", connecting.await);
    if let Some(applied) = applied {
        server.command::<()>(&["HSET", SCHEMA, unset, &applied]);
    }
    server.command::<()>(&["HDEL", SCHEMA, set[0], "lock", "lockUntil"]);
    finish(connecting.await.unwrap().unwrap()).await;
}

#[tokio::test]
async fn an_older_layout_waits_for_an_operator() {
    let server = Server::start();
    finish(builder(&server).connect().await.unwrap()).await;
    let _: u64 = server.command(&["HDEL", SCHEMA, "applied:0002"]);
    let error = builder(&server).connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Layout);
    assert!(
        error.to_string().contains("`redstart migrate up`"),
        "{error}"
    );
    let migrations = builder(&server).migrations().unwrap();
    assert_eq!(migrations.up(false).await.unwrap(), [2]);
    finish(builder(&server).connect().await.unwrap()).await;
}

#[tokio::test]
async fn a_repair_leaves_no_lock() {
    let server = Server::start();
    finish(builder(&server).connect().await.unwrap()).await;
    let _: u64 = server.command(&["HDEL", SCHEMA, "applied:0001"]);
    server.command::<()>(&["HSET", SCHEMA, "dirty", "0001"]);
    let migrations = builder(&server).migrations().unwrap();
    assert_eq!(migrations.up(true).await.unwrap(), [1]);
    let lock: Option<String> = server.command(&["HGET", SCHEMA, "lock"]);
    assert_eq!(lock, None);
}

#[tokio::test]
async fn a_migration_that_fails_leaves_its_mark_and_says_why() {
    let server = Server::start();
    let _: String = server.command(&["SET", "{shop}:topics", "mine"]);
    let error = builder(&server).connect().await.unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("is a string"), "{cause}");
    let migrations = builder(&server).migrations().unwrap();
    assert_eq!(
        migrations.status().await.unwrap()[0].state,
        MigrationState::Dirty
    );
}

#[tokio::test]
async fn a_topic_with_several_partitions_sets_the_layout_that_older_versions_refuse() {
    let server = Server::start();
    let container = builder(&server).connect().await.unwrap();
    let (migrations, topics) = (builder(&server).migrations().unwrap(), container.topics());
    let create = async |name: &str, partitions: u16| {
        let settings = TopicSettings::default().with_partitions(partitions);
        topics.create(&topic(name), settings).await.unwrap();
    };
    create("one", 1).await;
    assert!(migrations.up(false).await.unwrap().is_empty());
    assert_eq!(migrations.status().await.unwrap().len(), 2);
    create("four", 4).await;
    let all = migrations.status().await.unwrap();
    assert_eq!(all.len(), 3);
    assert_eq!(all[2].name, "partitions");
    assert!(matches!(all[2].state, MigrationState::Applied(_)));
    let layout: String = server.command(&["HGET", SCHEMA, "layout"]);
    assert_eq!(layout, "4");
    let third = "{shop:four/3}:meta";
    let number: String = server.command(&["HGET", third, "partition"]);
    assert_eq!(number, "3");
    assert!(migrations.up(false).await.unwrap().is_empty());
    builder(&server).connect().await.unwrap();
}

#[tokio::test]
async fn an_owned_group_sets_the_layout_that_older_versions_refuse() {
    let server = Server::start();
    let container = builder(&server).connect().await.unwrap();
    let migrations = builder(&server).migrations().unwrap();
    let subscribe = async |name: &str, options: SubscribeOptions| {
        let handler = async |_: Delivery| Outcome::Ack;
        let bus = container.bus();
        bus.subscribe_with(&topic(name), options, handler).await
    };
    let names = async || -> Vec<String> {
        let all = migrations.status().await.unwrap();
        all.into_iter().map(|one| one.name).collect()
    };
    subscribe("shared", SubscribeOptions::new()).await.unwrap();
    assert_eq!(names().await, ["layout", "claims"]);
    let owned = SubscribeOptions::new().with_ownership(Ownership::new());
    subscribe("owned", owned).await.unwrap();
    assert_eq!(names().await, ["layout", "claims", "owned-groups"]);
    let layout: String = server.command(&["HGET", SCHEMA, "layout"]);
    assert_eq!(layout, "6");
    assert!(migrations.up(false).await.unwrap().is_empty());
    // Partitions come after it, and both stay.
    let settings = TopicSettings::default().with_partitions(2);
    container
        .topics()
        .create(&topic("two"), settings)
        .await
        .unwrap();
    assert_eq!(
        names().await,
        ["layout", "claims", "partitions", "owned-groups"]
    );
    assert!(migrations.allow_owned_groups().await.unwrap().is_empty());
    builder(&server).connect().await.unwrap();
    finish(container).await;
}
