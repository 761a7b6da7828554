//! A private Redis Cluster for a bench. Its primaries share the slots evenly.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use redis::FromRedisValue;
use redstart::{Container, Namespace};

use crate::server::{Server, bench_group};

const SLOTS: usize = 16_384;
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Cluster {
    primaries: Vec<Server>,
    replicas: Vec<Server>,
}

impl Cluster {
    /// Starts primaries. Each gets `replicas` replicas.
    pub(crate) fn start(fsync: &str, primaries: u16, replicas: u16) -> Self {
        let start = |_| start_node(fsync);
        let cluster = Self {
            primaries: (0..primaries).map(start).collect(),
            replicas: (0..primaries * replicas).map(start).collect(),
        };
        cluster.form();
        cluster
    }

    fn form(&self) {
        let count = self.primaries.len();
        let first = &self.primaries[0];
        let mut ids = Vec::new();
        for (number, (node, bus)) in self.nodes().enumerate() {
            let epoch = (number + 1).to_string();
            ask::<()>(node, &["CLUSTER", "SET-CONFIG-EPOCH", &epoch]);
            if number < count {
                let from = (number * SLOTS / count).to_string();
                let to = ((number + 1) * SLOTS / count - 1).to_string();
                ask::<()>(node, &["CLUSTER", "ADDSLOTSRANGE", &from, &to]);
                ids.push(ask::<String>(node, &["CLUSTER", "MYID"]));
            }
            if number > 0 {
                ask::<()>(first, &["CLUSTER", "MEET", "127.0.0.1", node.port(), &bus]);
            }
        }
        for (number, replica) in self.replicas.iter().enumerate() {
            until("a replica to know its primary", || {
                let replicate = ["CLUSTER", "REPLICATE", &*ids[number % count]];
                try_ask::<()>(replica, &replicate).is_some()
            });
        }
        until("the cluster to be whole", || {
            let mut following = 0;
            let is_whole = self.nodes().all(|(node, _)| {
                let known: Option<String> = try_ask(node, &["CLUSTER", "INFO"]);
                let links: Option<String> = try_ask(node, &["INFO", "replication"]);
                let links = links.unwrap_or_default();
                following += usize::from(links.contains("master_link_status:up"));
                known.is_some_and(|known| {
                    known.contains("cluster_state:ok")
                        && known.contains(&format!("cluster_known_nodes:{}", self.nodes().count()))
                })
            });
            is_whole && following == self.replicas.len()
        });
    }

    /// The nodes with the ports of their bus; the primaries come first.
    fn nodes(&self) -> impl Iterator<Item = (&Server, String)> {
        self.primaries.iter().chain(&self.replicas).map(|node| {
            let config: Vec<String> = ask(node, &["CONFIG", "GET", "cluster-port"]);
            (node, config[1].clone())
        })
    }

    pub(crate) async fn connect(&self) -> Container {
        let hosts = self.primaries.iter();
        let hosts: Vec<String> = hosts
            .map(|node| format!("127.0.0.1:{}", node.port()))
            .collect();
        let connecting = Container::builder()
            .with_redis_url(format!("redis+cluster://{}", hosts.join(",")))
            .with_namespace(Namespace::new("bench").expect("a name"))
            .with_service(bench_group())
            .connect();
        connecting.await.expect("the cluster is up")
    }

    /// The sum of some values of INFO, over all primaries.
    pub(crate) fn info(&self, section: &str, names: &[&str]) -> f64 {
        let primaries = self.primaries.iter();
        primaries.map(|node| node.info(section, names)).sum()
    }
}

fn start_node(fsync: &str) -> Server {
    // The usual one, 10,000 above the port, may be no port at all.
    let bus = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let bus = bus.expect("a free port").port().to_string();
    let settings = [
        "--cluster-enabled",
        "yes",
        "--cluster-port",
        &bus,
        // On a busy machine nobody may take a primary for dead.
        "--cluster-node-timeout",
        "60000",
        "--repl-diskless-sync-delay",
        "0",
        // A replica that is behind is never cut off and started over.
        "--client-output-buffer-limit",
        "replica 0 0 0",
    ];
    Server::start_with(fsync, &settings)
}

fn ask<T: FromRedisValue>(node: &Server, words: &[&str]) -> T {
    try_ask(node, words).unwrap_or_else(|| panic!("a node refused {words:?}"))
}

fn try_ask<T: FromRedisValue>(node: &Server, words: &[&str]) -> Option<T> {
    let mut connection = node.client().get_connection().ok()?;
    redis::cmd(words[0])
        .arg(&words[1..])
        .query(&mut connection)
        .ok()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "timed out waiting for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
