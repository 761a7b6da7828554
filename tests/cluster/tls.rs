//! A cluster behind TLS: the map, redirects and every connection.
#![cfg(feature = "tls")]

use std::collections::BTreeSet;
use std::net::TcpListener;

use redstart::container::TlsSettings;
use redstart::extract::Payload;
use redstart::topics::TopicSettings;
use redstart::{Envelope, Topic};

use crate::support::cluster::Cluster;
use crate::support::tls::{Authority, text};
use crate::support::{Server, finish, next, topic};

const PARTITIONS: u16 = 6;

/// A cluster whose nodes speak TLS to each other and to clients; each keeps a plain port for the test.
fn start(ca: &Authority) -> Cluster {
    let (certificate, key) = ca.certify_all("node", &["localhost", "127.0.0.1"], 2100);
    let authority = ca.ca();
    Cluster::start_by(3, 0, || {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port().to_string();
        let settings = [
            ["--tls-port", &port],
            ["--tls-cluster", "yes"],
            ["--tls-auth-clients", "no"],
            ["--tls-cert-file", text(&certificate)],
            ["--tls-key-file", text(&key)],
            ["--tls-ca-cert-file", text(&authority)],
        ];
        settings
            .as_flattened()
            .iter()
            .map(|one| (*one).to_owned())
            .collect()
    })
}

fn tls_port(node: &Server) -> String {
    let pair: Vec<String> = node.command(&["CONFIG", "GET", "tls-port"]);
    pair[1].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_reached_by_tls_alone() {
    let ca = Authority::new("ours");
    let cluster = start(&ca);
    let ports: Vec<String> = cluster.nodes.iter().map(tls_port).collect();
    let namespace = cluster.namespace();
    let url = format!(
        "rediss+cluster://localhost:{},localhost:{}",
        ports[0], ports[1]
    );
    let builder = || cluster.builder(&namespace).with_redis_url(&url);

    let tls = TlsSettings::new().with_ca_file(Authority::new("another").ca());
    let error = builder().with_tls(tls).connect().await.unwrap_err();
    let told = format!("{error:?}").to_lowercase();
    assert!(told.contains("certificate"), "{told}");

    let tls = TlsSettings::new().with_ca_file(ca.ca());
    let container = builder().with_tls(tls).connect().await.unwrap();
    let servers = container.store();
    let servers = servers.inspect().servers().await.unwrap();
    let found: BTreeSet<_> = servers.into_iter().filter_map(|one| one.address).collect();
    let expected = ports.iter().map(|port| format!("127.0.0.1:{port}"));
    assert_eq!(found, expected.collect());

    // A slot moves after the container has learned where it lies: its publish follows a redirect.
    let (orders, moved) = (topic("orders"), topic("moved"));
    let slot = cluster.slot(&format!("{{{namespace}:moved}}:log"));
    let from = cluster.owner(0, slot);
    cluster.move_slot(slot, from, (from + 1) % 3);
    let settings = TopicSettings::default().with_partitions(PARTITIONS);
    container.topics().create(&orders, settings).await.unwrap();
    let (sender, mut received) = tokio::sync::mpsc::unbounded_channel();
    let subscribe = async |topic: &Topic| {
        let sender = sender.clone();
        let handler = move |Payload(n): Payload<u32>| {
            let _ = sender.send(n);
            async {}
        };
        container.bus().subscribe(topic, handler).await.unwrap()
    };
    let _subscriptions = [subscribe(&orders).await, subscribe(&moved).await];
    let mut wanted = BTreeSet::new();
    for n in 0..60_u32 {
        let envelope = Envelope::new("n", &n).unwrap().with_key(n.to_string());
        let to = if n % 3 == 0 { &moved } else { &orders };
        container.bus().publish(to, &envelope).await.unwrap();
        wanted.insert(n);
        container.kv().set(&format!("v{n}"), &n).await.unwrap();
    }
    while !wanted.is_empty() {
        wanted.remove(&next(&mut received).await);
    }
    for (node, port) in cluster.nodes.iter().zip(&ports) {
        let clients: String = node.command(&["CLIENT", "LIST"]);
        let ours = clients
            .lines()
            .filter(|line| line.contains("name=redstart"));
        let ours: Vec<&str> = ours.collect();
        let by_tls = |line: &&str| line.contains(&format!("laddr=127.0.0.1:{port} "));
        assert!(!ours.is_empty() && ours.iter().all(by_tls), "{clients}");
    }
    assert!(container.health().await.ok);
    finish(container).await;
}
