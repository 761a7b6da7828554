//! Three primaries with a replica each. Every node is known by the port of its proxy.

use tokio::task::block_in_place;

use super::watch::log;
use super::{clear_weather, set_weather, waits_for_failover};
use crate::history::Journal;
use crate::nature::{ORDERED, ORDERS, TOXIC};
use crate::plan::{Fault, Step};
use crate::proxy::Proxy;
use crate::support::cluster::Cluster;
use crate::support::{Server, signal};

const PRIMARIES: usize = 3;
const SETTINGS: [&str; 6] = [
    "--cluster-require-full-coverage",
    "no",
    // Replication goes through the proxies. A link that went silent has to end within a run.
    "--repl-timeout",
    "5",
    "--repl-ping-replica-period",
    "1",
];

pub(crate) struct Ground {
    cluster: Cluster,
    pub(super) proxies: Vec<Proxy>,
    /// The slots of the topics' partitions.
    slots: [Vec<u16>; 3],
    /// The node that the present fault has hit, and the slot for which it was chosen.
    hit: usize,
    slot: u16,
    /// A slot on its way from one node to another.
    moving: Option<(u16, usize, usize)>,
}

impl Ground {
    pub(super) async fn start(seed: u64, partitions: u16, journal: &Journal) -> Self {
        let cluster = block_in_place(|| Cluster::start_with(PRIMARIES, 1, &SETTINGS));
        let mut proxies = Vec::new();
        for (number, node) in cluster.nodes.iter().enumerate() {
            let seed = seed ^ (number as u64) << 40;
            proxies.push(Proxy::start(node.port(), seed, journal.clone()).await);
        }
        let slots = [ORDERS, ORDERED, TOXIC].map(|topic| {
            let logs = (0..partitions).map(|partition| log(topic, partition));
            logs.map(|log| cluster.slot(&log)).collect::<Vec<_>>()
        });
        let ground = Self {
            cluster,
            proxies,
            slot: slots[0][0],
            slots,
            hit: 0,
            moving: None,
        };
        block_in_place(|| ground.announce());
        ground
    }

    fn announce(&self) {
        let nodes = &self.cluster.nodes;
        for (node, proxy) in nodes.iter().zip(&self.proxies) {
            let port = proxy.port().to_string();
            node.command::<()>(&["CONFIG", "SET", "cluster-announce-port", &port]);
        }
        self.cluster
            .until("all nodes to know the ports of the proxies", || {
                nodes.iter().all(|node| {
                    let known: String = node.command(&["CLUSTER", "NODES"]);
                    let mut proxies = self.proxies.iter();
                    proxies.all(|proxy| known.contains(&format!("127.0.0.1:{}@", proxy.port())))
                })
            });
        self.cluster.until_whole();
    }

    pub(super) fn url(&self) -> String {
        let hosts = self.proxies.iter();
        let hosts: Vec<String> = hosts
            .map(|proxy| format!("127.0.0.1:{}", proxy.port()))
            .collect();
        format!("redis+cluster://{}", hosts.join(","))
    }

    pub(super) fn ports(&self) -> Vec<u16> {
        self.cluster.nodes.iter().map(Server::port).collect()
    }

    pub(super) fn pids(&self) -> Vec<u32> {
        self.cluster.nodes.iter().map(Server::pid).collect()
    }

    /// The owner of a slot, as a node says that runs.
    fn owner(&self, slot: u16) -> usize {
        let running = (0..self.cluster.nodes.len()).find(|node| *node != self.hit);
        self.cluster.owner(running.expect("several nodes"), slot)
    }

    fn replica_of(&self, primary: usize) -> usize {
        let id = self.cluster.id(primary);
        let known: String = self.cluster.nodes[primary].command(&["CLUSTER", "NODES"]);
        // `<id> <address> <flags> <primary> …`
        let replica = known
            .lines()
            .find(|line| line.split(' ').nth(3) == Some(&id))
            .and_then(|line| line.split(' ').next())
            .expect("a replica of the primary");
        let nodes = 0..self.cluster.nodes.len();
        let mut found = nodes.filter(|node| self.cluster.id(*node) == replica);
        found.next().expect("a node of this cluster")
    }

    pub(super) fn strike(&mut self, step: Step) {
        // Half of the time that of the busiest topic.
        let slots = &self.slots[[0, 0, 1, 2][(step.pick >> 8) as usize % 4]];
        let slot = slots[(step.pick >> 16) as usize % slots.len()];
        let owner = self.owner(slot);
        self.slot = slot;
        match step.fault {
            Fault::KillServer => {
                self.hit = owner;
                self.cluster.nodes[owner].kill();
            }
            Fault::FreezeServer => {
                self.hit = owner;
                signal(self.cluster.nodes[owner].pid(), "STOP");
            }
            Fault::KillReplica => {
                self.hit = self.replica_of(owner);
                self.cluster.nodes[self.hit].kill();
            }
            Fault::Failover => self.fail_over(slot, owner),
            Fault::MoveSlot => {
                let to = self.another_primary(owner);
                self.cluster.begin_move(slot, owner, to);
                // The other keys stay behind while the fault lasts.
                let keys = self.cluster.keys(slot, owner);
                for key in &keys[..keys.len() / 2] {
                    self.cluster.move_key(key, owner, to);
                }
                self.moving = Some((slot, owner, to));
            }
            Fault::Weather(weather) => set_weather(&self.proxies, weather, step),
            other => unreachable!("{other:?} is not a fault of a cluster"),
        }
    }

    fn another_primary(&self, one: usize) -> usize {
        // The slots between the topics' own never move.
        let thirds = [2730, 8192, 13_653].map(|slot| self.owner(slot));
        let other = thirds.into_iter().find(|owner| *owner != one);
        other.expect("several primaries")
    }

    fn fail_over(&self, slot: u16, owner: usize) {
        let replica = self.replica_of(owner);
        let mut looks = 0;
        self.cluster.until("a planned failover", || {
            // A replica gives up a failover after five seconds; a look comes every 20 ms.
            if looks % 300 == 0 {
                let asked = ["CLUSTER", "FAILOVER"];
                self.cluster.nodes[replica].command::<()>(&asked);
            }
            looks += 1;
            self.cluster.owner(replica, slot) == replica
        });
        self.cluster.until_whole();
    }

    pub(super) fn heal(&mut self, step: Step) {
        match step.fault {
            Fault::KillServer => {
                self.until_failed_over(step);
                self.start_again();
            }
            Fault::FreezeServer => {
                self.until_failed_over(step);
                signal(self.cluster.nodes[self.hit].pid(), "CONT");
            }
            Fault::KillReplica => self.start_again(),
            Fault::MoveSlot => {
                let (slot, from, to) = self.moving.take().expect("a slot that moves");
                loop {
                    let keys = self.cluster.keys(slot, from);
                    if keys.is_empty() {
                        break;
                    }
                    for key in keys {
                        self.cluster.move_key(&key, from, to);
                    }
                }
                self.cluster.end_move(slot, from, to);
            }
            Fault::Weather(_) => clear_weather(&self.proxies),
            _ => {}
        }
        self.cluster.until_whole();
    }

    fn until_failed_over(&self, step: Step) {
        if waits_for_failover(step) {
            self.cluster
                .until("a failover", || self.owner(self.slot) != self.hit);
        }
    }

    fn start_again(&mut self) {
        let port = self.proxies[self.hit].port().to_string();
        self.cluster.nodes[self.hit].start_again_with(&["--cluster-announce-port", &port]);
    }
}
