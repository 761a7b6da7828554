//! Log-ins, unknown services, sentinels that are gone, health and the doctor.

use std::time::Duration;

use redstart::container::ContainerBuilder;
use redstart::doctor::Severity;
use redstart::{Envelope, ErrorKind, Kv};

use crate::support::sentinel::{CALM, SERVICE, Watched};
use crate::support::{finish, signal, topic, until};

/// The error of a connect with its causes.
async fn refused(builder: ContainerBuilder) -> (ErrorKind, String) {
    let error = builder.connect().await.unwrap_err();
    let mut told = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(next) = cause {
        told = format!("{told}: {next}");
        cause = next.source();
    }
    (error.kind(), told)
}

#[tokio::test]
async fn sentinels_and_servers_have_log_ins_of_their_own() {
    let lines = format!("sentinel auth-pass {SERVICE} of-servers\n");
    let watched = Watched::start_with(1, 1, &[], &lines);
    watched.servers[0].command::<()>(&["CONFIG", "SET", "requirepass", "of-servers"]);
    watched.sentinels[0].command::<()>(&[
        "ACL",
        "SETUSER",
        "default",
        "resetpass",
        ">of-sentinels",
    ]);
    let namespace = watched.namespace();
    let with_password = watched
        .url()
        .replace("redis+sentinel://", "redis+sentinel://:of-servers@");
    let builder = |url: &str| watched.builder(&namespace).with_redis_url(url);

    let (kind, told) = refused(builder(&with_password)).await;
    assert_eq!(kind, ErrorKind::Refused, "{told}");
    assert!(told.contains("requires a password"), "{told}");
    let wrong = builder(&with_password).with_sentinel_password("wrong");
    let (kind, told) = refused(wrong).await;
    assert_eq!(kind, ErrorKind::Refused, "{told}");
    let no_server = builder(&watched.url()).with_sentinel_password("of-sentinels");
    let (kind, told) = refused(no_server).await;
    assert_eq!(kind, ErrorKind::Refused, "{told}");

    let both = builder(&with_password).with_sentinel_password("of-sentinels");
    finish(both.connect().await.unwrap()).await;
}

#[tokio::test]
async fn a_service_that_nobody_knows_is_refused_at_once() {
    let watched = Watched::start(1, 1);
    let url = watched.url().replace(SERVICE, "other");
    let began = std::time::Instant::now();
    let builder = watched.builder(&watched.namespace()).with_redis_url(url);
    let (kind, told) = refused(builder).await;
    assert_eq!(kind, ErrorKind::Invalid, "{told}");
    assert!(told.contains("know no service `other`"), "{told}");
    // Not repeated until the limit of a call.
    assert!(began.elapsed() < Duration::from_secs(5));

    // A server is no sentinel.
    let port = watched.servers[0].port();
    let url = format!("redis+sentinel://127.0.0.1:{port}/{SERVICE}");
    let builder = watched.builder(&watched.namespace()).with_redis_url(url);
    let (kind, told) = refused(builder).await;
    assert_eq!(kind, ErrorKind::Refused, "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_that_are_gone_do_not_stop_a_process_that_knows_the_primary() {
    let mut watched = Watched::start_with(2, 3, &[], CALM);
    let namespace = watched.namespace();
    // One of three is enough to begin with; the others are learned from it.
    let (one, rest) = watched.sentinels.split_at(1);
    let gone = "127.0.0.1:1";
    let url = format!(
        "redis+sentinel://{gone},127.0.0.1:{}/{SERVICE}",
        one[0].port()
    );
    let builder = watched.builder(&namespace).with_redis_url(url);
    let container = builder.connect().await.unwrap();
    let orders = topic("orders");
    let publish = async |n: u32| {
        let envelope = Envelope::new("n", &n).unwrap();
        container.bus().publish(&orders, &envelope).await.unwrap();
    };
    publish(1).await;
    until("the other sentinels to be heard", async || {
        rest.iter()
            .all(|one| {
                let clients: String = one.command(&["CLIENT", "LIST"]);
                clients.contains("redstart:watch")
            })
            .then_some(())
    })
    .await;
    // The sentinel of the URL stands still, and a failover comes.
    signal(watched.sentinels[0].pid(), "STOP");
    watched.fail_over(1);
    publish(2).await;
    until("the publish at the new primary", async || {
        publish(3).await;
        let info: String = watched.servers[1].command(&["CLIENT", "LIST"]);
        info.contains("redstart:pub").then_some(())
    })
    .await;
    for sentinel in &mut watched.sentinels {
        sentinel.kill();
    }
    publish(4).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    publish(5).await;
    assert!(container.health().await.ok);
    let report = container.shutdown(Duration::from_secs(30)).await;
    assert!(report.is_clean(), "{report:?}");

    let (kind, told) = refused(watched.builder(&namespace)).await;
    assert_eq!(kind, ErrorKind::Unavailable, "{told}");
    assert!(told.contains("no sentinel answers"), "{told}");
}

#[tokio::test]
async fn the_doctor_warns_where_an_old_primary_takes_writes_alone() {
    let watched = Watched::start_with(2, 1, &[], CALM);
    let namespace = watched.namespace();
    let finding = async || {
        let report = watched.builder(&namespace).doctor().unwrap().run().await;
        let mut findings = report.findings.into_iter();
        findings.find(|one| one.check == "sentinels").unwrap()
    };
    let warned = finding().await;
    assert_eq!(warned.severity, Severity::Warning, "{warned:?}");
    assert!(warned.what.contains("min-replicas-to-write"), "{warned:?}");
    watched.servers[0].command::<()>(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    let sound = finding().await;
    assert_eq!(sound.severity, Severity::Ok, "{sound:?}");
}

#[tokio::test]
async fn a_primary_without_its_replica_is_not_ready() {
    let watched = Watched::start_with(2, 1, &[], CALM);
    let namespace = watched.namespace();
    let container = watched.builder(&namespace).connect().await.unwrap();
    let (orders, kv) = (topic("orders"), container.kv());
    let publish = async |n: u32| {
        let envelope = Envelope::new("n", &n).unwrap();
        container.bus().publish(&orders, &envelope).await
    };
    publish(1).await.unwrap();
    let [primary, replica] = &watched.servers[..] else {
        panic!("two servers");
    };
    primary.command::<()>(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    primary.command::<()>(&["CONFIG", "SET", "min-replicas-max-lag", "2"]);
    // A refusal before this would say nothing of the replica that stands still.
    until("the replica to be heard of", async || {
        let shown: String = primary.command(&["INFO", "replication"]);
        shown.contains("min_slaves_good_slaves:1").then_some(())
    })
    .await;
    signal(replica.pid(), "STOP");
    until("the primary to refuse", async || {
        let set = redis::cmd("SET").arg("x").arg(1).exec(&mut primary.raw());
        set.is_err().then_some(())
    })
    .await;
    let waiting = async {
        let published = publish(2).await;
        (published, std::time::Instant::now())
    };
    let continuing = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let at = std::time::Instant::now();
        signal(replica.pid(), "CONT");
        at
    };
    let ((published, ended), continued) = tokio::join!(waiting, continuing);
    published.unwrap();
    assert!(ended > continued, "the publish waits for the replica");
    kv.set("a", &1).await.unwrap();
    finish(container).await;
}

#[tokio::test]
async fn a_value_store_alone_follows_the_primary() {
    let watched = Watched::start_with(2, 1, &[], CALM);
    let kv = Kv::connect(&watched.url(), Some(watched.namespace())).unwrap();
    kv.set("a", &1).await.unwrap();
    watched.fail_over(0);
    watched.until_failed_over(0);
    until("the value at the new primary", async || {
        // A command whose connection is cut may have been done.
        let _ = kv.set("a", &2).await;
        let clients: String = watched.servers[1].command(&["CLIENT", "LIST"]);
        clients.contains("redstart:base").then_some(())
    })
    .await;
    kv.set("a", &3).await.unwrap();
    assert_eq!(kv.get::<u32>("a").await.unwrap(), Some(3));
}
