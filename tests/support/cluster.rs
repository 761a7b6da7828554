//! Private clusters. Each node is a server of its own, so it ends with the test as every server does.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use redis::FromRedisValue as _;
use redstart::{Namespace, container::ContainerBuilder};

use super::{PATIENCE, Server, group, settings};

/// How long a primary may be silent before the others fail it over.
pub(crate) const NODE_TIMEOUT: Duration = Duration::from_secs(2);

/// The same where no replica can take over: a busy machine then stops no cluster.
const NO_TIMEOUT: Duration = Duration::from_secs(15);

/// A running cluster. The primaries come first, and each has as many replicas as was asked for.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Server>,
    /// The ids of the nodes, which they keep.
    ids: Vec<String>,
    primaries: usize,
    namespaces: AtomicU32,
}

impl Cluster {
    /// Starts primaries, which share the slots evenly, with as many replicas each.
    ///
    /// # Panics
    ///
    /// When the cluster does not come up: a failure, never a skip.
    pub(crate) fn start(primaries: usize, replicas: usize) -> Self {
        Self::start_with(primaries, replicas, &[])
    }

    /// The same, with further settings for each node.
    pub(crate) fn start_with(primaries: usize, replicas: usize, settings: &[&str]) -> Self {
        let settings = settings.iter().map(|one| (*one).to_owned());
        let settings: Vec<String> = settings.collect();
        Self::start_by(primaries, replicas, || settings.clone())
    }

    /// Like [`start`](Self::start), with further settings. Calls `settings` for each attempt to start a node,
    /// because a port may be taken meanwhile.
    pub(crate) fn start_by(
        primaries: usize,
        replicas: usize,
        settings: impl Fn() -> Vec<String>,
    ) -> Self {
        let timeout = if replicas == 0 {
            NO_TIMEOUT
        } else {
            NODE_TIMEOUT
        };
        let nodes: Vec<Server> = (0..primaries * (1 + replicas))
            .map(|_| start_node(timeout, &settings))
            .collect();
        let ids = nodes.iter().map(|node| node.command(&["CLUSTER", "MYID"]));
        let cluster = Self {
            ids: ids.collect(),
            nodes,
            primaries,
            namespaces: AtomicU32::new(0),
        };
        cluster.form();
        cluster
    }

    fn form(&self) {
        let count = self.primaries;
        for (number, node) in self.nodes.iter().enumerate() {
            let epoch = (number + 1).to_string();
            node.command::<()>(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch]);
            if number < count {
                let first = (number * 16_384 / count).to_string();
                let last = ((number + 1) * 16_384 / count - 1).to_string();
                node.command::<()>(&["CLUSTER", "ADDSLOTSRANGE", &first, &last]);
            }
        }
        let first = &self.nodes[0];
        for node in &self.nodes[1..] {
            let (port, bus) = (node.port().to_string(), bus_port(node));
            first.command::<()>(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]);
        }
        self.until("all nodes to know each other", || {
            let count = self.nodes.len();
            let knows = |node: &Server| lines(node).len() == count;
            self.nodes.iter().all(knows)
        });
        for (number, node) in self.nodes.iter().enumerate().skip(count) {
            let primary = self.id(number % count);
            node.command::<()>(&["CLUSTER", "REPLICATE", &primary]);
        }
        self.until_whole();
    }

    /// Waits until every node calls the cluster whole and every replica follows its primary.
    pub(crate) fn until_whole(&self) {
        self.until("the cluster to be whole", || {
            let mut following = 0;
            let whole = self.nodes.iter().all(|node| {
                // A replica that loads the data of its primary answers nothing else.
                let info = node.try_command::<String>(&["CLUSTER", "INFO"]);
                let links = node.try_command::<String>(&["INFO", "replication"]);
                let (Ok(info), Ok(links)) = (info, links) else {
                    return false;
                };
                let slots = "cluster_slots_ok:16384";
                let follows = links.contains("master_link_status:up");
                following += usize::from(follows);
                info.contains("cluster_state:ok")
                    && info.contains(slots)
                    && (links.contains("role:master") || follows)
            });
            // A former primary that has just come back still takes itself for one.
            whole && following == self.nodes.len() - self.primaries
        });
    }

    pub(crate) fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds() {
            assert!(Instant::now() < deadline, "timed out waiting for {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The URL of some nodes.
    pub(crate) fn url(&self) -> String {
        let hosts: Vec<String> = self
            .nodes
            .iter()
            .take(2)
            .map(|node| format!("127.0.0.1:{}", node.port()))
            .collect();
        format!("redis+cluster://{}", hosts.join(","))
    }

    /// The id of a node.
    pub(crate) fn id(&self, number: usize) -> String {
        self.ids[number].clone()
    }

    /// The first replica that a primary starts with.
    pub(crate) fn replica(&self, primary: usize) -> usize {
        primary + self.primaries
    }

    /// The number of the primary that holds a partition of the topic `orders`.
    pub(crate) fn owner_of(&self, namespace: &Namespace, partition: u16) -> usize {
        let key = match partition {
            0 => format!("{{{namespace}:orders}}:log"),
            _ => format!("{{{namespace}:orders/{partition}}}:log"),
        };
        self.owner(0, self.slot(&key))
    }

    /// The number of the primary that holds a slot, as `by` sees it.
    pub(crate) fn owner(&self, by: usize, slot: u16) -> usize {
        type Row = (u16, u16, (String, u16, String));
        let rows: Vec<redis::Value> = self.nodes[by].command(&["CLUSTER", "SLOTS"]);
        for row in rows {
            let mut row = Vec::<redis::Value>::from_redis_value(row).unwrap();
            row.truncate(3);
            let redis::Value::Array(node) = &mut row[2] else {
                panic!("a node is a list");
            };
            node.truncate(3);
            let (first, last, (_, _, id)) =
                Row::from_redis_value(redis::Value::Array(row)).unwrap();
            if (first..=last).contains(&slot) {
                let at = self.ids.iter().position(|known| *known == id);
                return at.expect("a node of this cluster");
            }
        }
        panic!("nobody serves slot {slot}");
    }

    /// The slot of a key.
    pub(crate) fn slot(&self, key: &str) -> u16 {
        self.nodes[0].command(&["CLUSTER", "KEYSLOT", key])
    }

    /// Marks a slot as moving from one node to another, the old way: key by key.
    pub(crate) fn begin_move(&self, slot: u16, from: usize, to: usize) {
        let slot = slot.to_string();
        let (source, target) = (self.id(from), self.id(to));
        self.nodes[to].command::<()>(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &source]);
        self.nodes[from].command::<()>(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &target]);
    }

    /// The keys of a slot at a node.
    pub(crate) fn keys(&self, slot: u16, at: usize) -> Vec<String> {
        self.nodes[at].command(&["CLUSTER", "GETKEYSINSLOT", &slot.to_string(), "1000"])
    }

    /// Moves one key of a moving slot.
    pub(crate) fn move_key(&self, key: &str, from: usize, to: usize) {
        let port = self.nodes[to].port().to_string();
        let answer: String =
            self.nodes[from].command(&["MIGRATE", "127.0.0.1", &port, key, "0", "5000"]);
        assert!(matches!(&*answer, "OK" | "NOKEY"), "{answer}");
    }

    /// Gives a slot whose keys have moved to its new owner.
    pub(crate) fn end_move(&self, slot: u16, from: usize, to: usize) {
        let (slot, target) = (slot.to_string(), self.id(to));
        for node in [to, from] {
            self.nodes[node].command::<()>(&["CLUSTER", "SETSLOT", &slot, "NODE", &target]);
        }
        // The new owner has a new epoch. Until all nodes know it, they may quarrel over the next move.
        let epoch = epoch_of(&self.nodes[to], &target);
        self.until("all nodes to know the new owner", || {
            let knows = |node: &Server| epoch_of(node, &target) == epoch;
            self.nodes.iter().all(knows)
        });
    }

    /// Moves a slot with all its keys, the old way.
    pub(crate) fn move_slot(&self, slot: u16, from: usize, to: usize) {
        self.begin_move(slot, from, to);
        loop {
            let keys = self.keys(slot, from);
            if keys.is_empty() {
                break;
            }
            for key in keys {
                self.move_key(&key, from, to);
            }
        }
        self.end_move(slot, from, to);
    }

    /// Whether the nodes can move a slot at once.
    pub(crate) fn moves_at_once(&self) -> bool {
        let help: Vec<String> = self.nodes[0].command(&["CLUSTER", "HELP"]);
        help.iter().any(|line| line.starts_with("MIGRATESLOTS"))
    }

    /// Moves a slot with all its keys at once, and waits until all nodes know its new owner.
    pub(crate) fn move_slot_at_once(&self, slot: u16, from: usize, to: usize) {
        let (range, target) = (slot.to_string(), self.id(to));
        let words = [
            "CLUSTER",
            "MIGRATESLOTS",
            "SLOTSRANGE",
            &range,
            &range,
            "NODE",
            &target,
        ];
        self.nodes[from].command::<()>(&words);
        self.until("all nodes to know the new owner", || {
            (0..self.nodes.len()).all(|by| self.owner(by, slot) == to)
        });
    }

    /// A namespace that nobody has used.
    pub(crate) fn namespace(&self) -> Namespace {
        let number = self.namespaces.fetch_add(1, Ordering::Relaxed);
        Namespace::new(format!("shop{number}")).unwrap()
    }

    /// Settings for a container of service `billing`.
    pub(crate) fn builder(&self, namespace: &Namespace) -> ContainerBuilder {
        settings()
            .with_redis_url(self.url())
            .with_namespace(namespace.clone())
            .with_service(group("billing"))
    }
}

fn bus_port(node: &Server) -> String {
    let lines = lines(node);
    let own = lines.iter().find(|line| line.contains("myself")).unwrap();
    // `<id> <ip>:<port>@<bus port> …`
    let address = own.split_whitespace().nth(1).unwrap();
    let bus = address.split_once('@').unwrap().1;
    bus.split(',').next().unwrap().to_owned()
}

/// What a node says of all nodes, with those that it is still shaking hands with left out.
fn lines(node: &Server) -> Vec<String> {
    let all: String = node.command(&["CLUSTER", "NODES"]);
    let known = all.lines().filter(|line| !line.contains("handshake"));
    known.map(str::to_owned).collect()
}

/// The configuration epoch of a node, as `by` knows it.
fn epoch_of(by: &Server, id: &str) -> String {
    let all: String = by.command(&["CLUSTER", "NODES"]);
    let line = all.lines().find(|line| line.starts_with(id));
    let epoch = line.and_then(|line| line.split(' ').nth(6));
    epoch.expect("a known node").to_owned()
}

fn start_node(timeout: Duration, settings: &impl Fn() -> Vec<String>) -> Server {
    let timeout = timeout.as_millis().to_string();
    Server::start_by(|| {
        // By default the bus has the port plus 10,000, which may be beyond the last port.
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let bus = free.local_addr().unwrap().port().to_string();
        let own = [
            ["--cluster-enabled", "yes"],
            ["--cluster-port", &bus],
            ["--cluster-node-timeout", &timeout],
            ["--cluster-replica-validity-factor", "0"],
            ["--repl-diskless-sync-delay", "0"],
            ["--appendfsync", "everysec"],
        ];
        let own = own.iter().flatten().map(|one| (*one).to_owned());
        own.chain(settings()).collect()
    })
}
