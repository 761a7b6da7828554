//! URLs, health and the doctor.

use redstart::doctor::Severity;
use redstart::{Container, ErrorKind, Namespace};

use crate::support::cluster::Cluster;
use crate::support::{Server, finish, group};

/// The error of a connect with its causes.
async fn refused(url: &str, namespace: Option<&str>) -> (ErrorKind, String) {
    let mut builder = Container::builder()
        .with_redis_url(url)
        .with_service(group("billing"));
    if let Some(namespace) = namespace {
        builder = builder.with_namespace(Namespace::new(namespace).unwrap());
    }
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
async fn a_cluster_needs_its_own_url_and_a_namespace() {
    let (kind, told) = refused("redis+cluster://127.0.0.1:1", None).await;
    assert_eq!(kind, ErrorKind::Invalid);
    assert!(
        told.contains("in a cluster a namespace is required"),
        "{told}"
    );

    let server = Server::start();
    let url = server.url().replace("redis://", "redis+cluster://");
    let (kind, told) = refused(url.trim_end_matches('/'), Some("shop")).await;
    assert_ne!(kind, ErrorKind::Unavailable, "{told}");
    assert!(told.contains("is not a node of a cluster"), "{told}");

    let cluster = Cluster::start(3, 0);
    // A node that does not hold the namespace's slot.
    let slot = cluster.slot("{shop}:schema");
    let other = (cluster.owner(0, slot) + 1) % 3;
    let (kind, told) = refused(&cluster.nodes[other].url(), Some("shop")).await;
    assert_eq!(kind, ErrorKind::Refused, "{told}");
    assert!(told.contains("begins with redis+cluster://"), "{told}");
}

#[tokio::test]
async fn health_and_the_doctor_ask_every_primary() {
    let mut cluster = Cluster::start(3, 0);
    let namespace = cluster.namespace();
    let container = cluster.builder(&namespace).connect().await.unwrap();
    let inspect = container.store();
    inspect.inspect().try_write().await.unwrap();
    let servers = inspect.inspect().servers().await.unwrap();
    let mut addresses: Vec<_> = servers
        .into_iter()
        .map(|one| one.address.unwrap())
        .collect();
    let address = |node: &Server| format!("127.0.0.1:{}", node.port());
    let mut expected: Vec<_> = cluster.nodes.iter().map(address).collect();
    addresses.sort();
    expected.sort();
    assert_eq!(addresses, expected);

    let report = cluster.builder(&namespace).doctor().unwrap().run().await;
    let coverage = report.findings.iter().find(|one| one.check == "cluster");
    let coverage = coverage.expect("a finding on the cluster");
    assert_eq!(coverage.severity, Severity::Warning, "{coverage:?}");
    assert!(coverage.what.contains("cluster-require-full-coverage"));

    // Each primary in turn refuses writes, and health says so.
    for node in &cluster.nodes {
        let full = ["CONFIG", "SET", "maxmemory", "1"];
        node.command::<()>(&full);
        let error = inspect.inspect().try_write().await.unwrap_err();
        assert!(error.to_string().contains("memory is full"), "{error}");
        node.command::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
        inspect.inspect().try_write().await.unwrap();
    }
    // Each primary in turn is dead.
    cluster.nodes[1].kill();
    inspect.inspect().ping().await.unwrap_err();
    cluster.nodes[1].start_again();
    cluster.until_whole();
    finish(container).await;
}
