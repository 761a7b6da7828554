//! Health says what publishing and storing would meet now.

use redstart::{Container, ErrorKind, container::Health};

use crate::support::roles::Roles;
use crate::support::{Server, builder, container, finish, publish, topic, until};

async fn envelope_is_refused(container: &Container) {
    let envelope = redstart::Envelope::new("n", &1).unwrap();
    let published = container.bus().publish(&topic("orders"), &envelope).await;
    assert!(published.is_err(), "this server takes writes");
    assert!(container.kv().set("k", &1).await.is_err());
}

/// Waits until health is not ok, and says why: both parts are, for the same reason.
async fn unwell(container: &Container, reason: &str) {
    let health = until("health to notice", async || {
        let health = container.health().await;
        (!health.ok).then_some(health)
    })
    .await;
    for check in [&health.bus, &health.kv] {
        let text = check.reasons.join("; ");
        assert!(!check.ok && text.contains(reason), "{reason}: {health:?}");
    }
}

async fn well(container: &Container) {
    until("health to come back", async || {
        container.health().await.ok.then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_server_that_refuses_writes_is_not_healthy_and_the_reason_is_named() {
    let server = Server::start();
    let container = container(&server).await;
    publish(&container, &topic("orders"), 0..1).await;
    container.kv().set("k", &1).await.unwrap();
    let keys: u64 = server.command(&["DBSIZE"]);
    for (setting, bad, good, reason) in [
        ("maxmemory", "1mb", "0", "memory is full"),
        ("min-replicas-to-write", "1", "0", "min-replicas-to-write"),
    ] {
        let () = server.command(&["CONFIG", "SET", setting, bad]);
        envelope_is_refused(&container).await;
        unwell(&container, reason).await;
        let () = server.command(&["CONFIG", "SET", setting, good]);
        well(&container).await;
    }
    let () = server.command(&["REPLICAOF", "127.0.0.1", "1"]);
    envelope_is_refused(&container).await;
    unwell(&container, "replica").await;
    // Such a replica takes writes, and loses them with the next copy of its primary.
    let () = server.command(&["CONFIG", "SET", "replica-read-only", "no"]);
    let health = container.health().await;
    assert!(!health.ok, "{health:?}");
    let () = server.command(&["REPLICAOF", "NO", "ONE"]);
    well(&container).await;
    assert_eq!(
        server.command::<u64>(&["DBSIZE"]),
        keys,
        "nothing is written"
    );
    finish(container).await;
}

#[tokio::test]
async fn a_server_that_cannot_save_is_not_healthy() {
    let server = Server::start_with(&["--save", "3600 1"]);
    let container = container(&server).await;
    well(&container).await;
    // The snapshot cannot take the place of a folder.
    std::fs::create_dir(server.folder().join("dump.rdb")).unwrap();
    until("saving to fail", async || {
        let _ = redis::cmd("BGSAVE").exec(&mut server.raw());
        let info: String = server.command(&["INFO", "persistence"]);
        info.contains("rdb_last_bgsave_status:err").then_some(())
    })
    .await;
    envelope_is_refused(&container).await;
    unwell(&container, "cannot save").await;
}

#[tokio::test]
async fn a_user_who_may_only_read_is_not_healthy_unless_the_process_only_reads() {
    let server = Server::start();
    container(&server).await;
    let () = server.command(&[
        "ACL", "SETUSER", "viewer", "on", ">secret", "~*", "+@all", "-@write",
    ]);
    let url = server.url().replace("redis://", "redis://viewer:secret@");
    let viewer = || builder(&server).with_redis_url(&url);
    let container = viewer().connect().await.unwrap();
    envelope_is_refused(&container).await;
    unwell(&container, "this user may not write").await;
    let reading = viewer().with_read_only(true).connect().await.unwrap();
    let health = reading.health().await;
    assert!(health.ok, "{health:?}");
}

#[tokio::test]
async fn a_user_of_values_only_has_a_healthy_key_value_store() {
    let server = Server::start();
    container(&server).await;
    let user = |rights: &[&str]| {
        let set = ["ACL", "SETUSER", "clerk", "reset", "on", ">secret", "~*"];
        let () = server.command(&[&set[..], rights].concat());
    };
    user(&["+@all", "-xadd"]);
    let url = server.url().replace("redis://", "redis://clerk:secret@");
    let clerk = builder(&server)
        .with_redis_url(&url)
        .connect()
        .await
        .unwrap();
    let health = clerk.health().await;
    assert!(health.kv.ok && !health.bus.ok, "{health:?}");
    user(&["+@all", "-set"]);
    let health = until("health to notice", async || {
        let health = clerk.health().await;
        (!health.kv.ok).then_some(health)
    })
    .await;
    let reasons = health.kv.reasons.join("; ");
    assert!(reasons.contains("this user may not write"), "{reasons}");
    assert!(reasons.contains("'set'"), "{reasons}");
    finish(clerk).await;
}

#[tokio::test]
async fn every_role_that_writes_may_ask_and_the_viewer_only_reads() {
    let roles = Roles::start().await;
    for role in ["producer", "consumer", "operator"] {
        let health = roles.container(role, "billing").await.health().await;
        assert!(health.ok, "{role}: {health:?}");
    }
    let viewer = roles.builder("viewer").with_read_only(true);
    let health = viewer.connect().await.unwrap().health().await;
    assert!(health.ok, "{health:?}");
    assert_eq!(roles.denied(), [""; 0], "the server's ACL LOG");
    let health = roles.container("viewer", "billing").await.health().await;
    assert!(!health.bus.ok && !health.kv.ok, "{health:?}");
}

#[tokio::test]
async fn a_node_that_does_not_serve_all_keys_is_not_healthy() {
    let server = Server::start_with(&["--cluster-enabled", "yes"]);
    let add = |from: &str, to: &str| {
        let () = server.command(&["CLUSTER", "ADDSLOTSRANGE", from, to]);
    };
    add("0", "16383");
    let container = until("the cluster to serve", async || {
        builder(&server).connect().await.ok()
    })
    .await;
    well(&container).await;
    let slot: u64 = server.command(&["CLUSTER", "KEYSLOT", "{shop}:health"]);
    let () = server.command(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]);
    for gone in (0..16384_u64).filter(|n| n.abs_diff(slot) > 5000) {
        let () = server.command(&["CLUSTER", "DELSLOTS", &gone.to_string()]);
    }
    let health = until("health to notice", async || {
        let health = container.health().await;
        (!health.bus.ok).then_some(health)
    })
    .await;
    assert!(
        health.bus.reasons[0].contains("Redis Cluster"),
        "{health:?}"
    );
}

async fn look(server: &Server) -> Result<Health, redstart::Error> {
    let looking = builder(server).with_namespace_creation(false);
    Ok(looking.connect().await?.health().await)
}

#[tokio::test]
async fn a_layout_that_lets_no_process_connect_is_not_healthy() {
    let server = Server::start();
    let container = container(&server).await;
    let schema = "{shop}:schema";
    let unwell = async |reason: &str| {
        let health = container.health().await;
        let text = health.bus.reasons.join("; ");
        assert!(!health.ok && text.contains(reason), "{health:?}");
        let error = look(&server).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Layout);
        assert!(error.to_string().contains(reason), "{error}");
    };
    let _: u64 = server.command(&["HSET", schema, "applied:0099", "beef"]);
    unwell("0099").await;
    let _: u64 = server.command(&["HDEL", schema, "applied:0099"]);
    assert!(look(&server).await.unwrap().ok);
    let _: u64 = server.command(&["HSET", schema, "dirty", "0001"]);
    let _: u64 = server.command(&["HDEL", schema, "applied:0001"]);
    unwell("--repair").await;
    let _: u64 = server.command(&["HDEL", schema, "applied:0002"]);
    unwell("--repair").await;
}
