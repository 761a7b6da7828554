//! A primary with a replica behind three sentinels. Both servers are known by the ports of their
//! proxies, to the sentinels, too.

use tokio::task::block_in_place;

use super::{clear_weather, set_weather, waits_for_failover};
use crate::history::Journal;
use crate::plan::{Fault, Step};
use crate::proxy::Proxy;
use crate::support::sentinel::{SERVICE, Watched};
use crate::support::{Server, signal};

const SETTINGS: [&str; 6] = [
    "--appendfsync",
    "everysec",
    // Replication goes through the proxies. A link that went silent has to end within a run.
    "--repl-timeout",
    "5",
    "--repl-ping-replica-period",
    "1",
];

pub(crate) struct Ground {
    watched: Watched,
    pub(super) proxies: Vec<Proxy>,
    /// The server that the present fault has hit.
    hit: usize,
}

impl Ground {
    pub(super) async fn start(seed: u64, journal: &Journal) -> Self {
        // Sentinels wait twice this time between two attempts.
        let lines = format!("sentinel failover-timeout {SERVICE} 2500\n");
        let runtime = tokio::runtime::Handle::current();
        let mut proxies: Vec<Proxy> = Vec::new();
        let watched = block_in_place(|| {
            Watched::start_behind(2, 3, &SETTINGS, &lines, |server| {
                let seed = seed ^ (proxies.len() as u64) << 40;
                let starting = Proxy::start(server.port(), seed, journal.clone());
                let proxy = runtime.block_on(starting);
                let port = proxy.port();
                proxies.push(proxy);
                port
            })
        });
        Self {
            watched,
            proxies,
            hit: 0,
        }
    }

    pub(super) fn url(&self) -> String {
        self.watched.url()
    }

    pub(super) fn ports(&self) -> Vec<u16> {
        self.watched.servers.iter().map(Server::port).collect()
    }

    pub(super) fn pids(&self) -> Vec<u32> {
        let servers = self.watched.servers.iter().map(Server::pid);
        let sentinels = self.watched.sentinels.iter().map(|one| one.pid());
        servers.chain(sentinels).collect()
    }

    fn primary(&self) -> usize {
        self.watched.number(self.watched.sentinels[0].primary())
    }

    pub(super) fn strike(&mut self, step: Step) {
        let primary = self.primary();
        match step.fault {
            Fault::KillServer => {
                self.hit = primary;
                self.watched.servers[primary].kill();
            }
            Fault::FreezeServer => {
                self.hit = primary;
                signal(self.watched.servers[primary].pid(), "STOP");
            }
            Fault::KillReplica => {
                self.hit = 1 - primary;
                self.watched.servers[self.hit].kill();
            }
            Fault::Failover => {
                let former = self.watched.fail_over(step.pick as usize % 3);
                self.watched.until_failed_over(former);
            }
            Fault::Weather(weather) => set_weather(&self.proxies, weather, step),
            other => unreachable!("{other:?} is not a fault behind sentinels"),
        }
    }

    pub(super) fn heal(&mut self, step: Step) {
        match step.fault {
            Fault::KillServer => {
                if waits_for_failover(step) {
                    self.watched.until_failed_over(self.hit);
                }
                // Its file still says that it is the primary, or a sentinel had written the new one.
                self.start_again(step.pick.is_multiple_of(2));
            }
            Fault::FreezeServer => {
                if waits_for_failover(step) {
                    self.watched.until_failed_over(self.hit);
                }
                signal(self.watched.servers[self.hit].pid(), "CONT");
            }
            Fault::KillReplica => self.start_again(true),
            Fault::Weather(_) => clear_weather(&self.proxies),
            _ => {}
        }
        self.watched.until_known();
    }

    fn start_again(&mut self, as_replica: bool) {
        let own = self.proxies[self.hit].port().to_string();
        let other = self.proxies[1 - self.hit].port().to_string();
        let mut settings = vec!["--replica-announce-port", &own];
        if as_replica && self.primary() != self.hit {
            settings.extend(["--replicaof", "127.0.0.1", &other]);
        }
        self.watched.servers[self.hit].start_again_with(&settings);
    }
}
