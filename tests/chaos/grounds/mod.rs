//! The environments of the workers, and their faults: one server, a cluster, or a primary behind
//! sentinels. A run uses the public methods only.

mod cluster;
mod sentinel;
mod watch;

use crate::crew::resident;
use crate::ground::OneServer;
use crate::history::Journal;
use crate::plan::{Fault, OF_CLUSTER, OF_GROUND, OF_SENTINEL, Step};
use crate::proxy::{Proxy, Weather};
use crate::shim::Shim;

pub(crate) use watch::Watcher;

/// What a ground consists of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Place {
    Server,
    Cluster,
    Sentinel,
}

impl Place {
    /// The faults that lose no data by definition.
    pub(crate) const fn faults(self) -> &'static [Fault] {
        match self {
            Self::Server => OF_GROUND,
            Self::Cluster => OF_CLUSTER,
            Self::Sentinel => OF_SENTINEL,
        }
    }

    /// Whether another server can take over during a fault of a name, without all that the former one
    /// acknowledged.
    pub(crate) fn takes_back(self) -> fn(&str) -> bool {
        let fails_over = |fault: &str| {
            let faults = [Fault::KillServer, Fault::FreezeServer, Fault::Failover];
            fault == watch::FAILOVER || faults.iter().any(|one| fault == format!("{one:?}"))
        };
        match self {
            Self::Server => |_| false,
            Self::Cluster => fails_over,
            // The sentinels take a primary behind bad weather for a dead one.
            Self::Sentinel => {
                |fault| fault.starts_with("Weather") || Self::Cluster.takes_back()(fault)
            }
        }
    }
}

pub(crate) enum Ground {
    Server(OneServer),
    Cluster(cluster::Ground),
    Sentinel(sentinel::Ground),
}

impl Ground {
    /// Starts the servers of a run whose topics have so many partitions.
    pub(crate) async fn start(
        place: Place,
        seed: u64,
        partitions: u16,
        shim: Shim,
        journal: &Journal,
    ) -> Self {
        match place {
            Place::Server => Self::Server(OneServer::start(seed, shim, journal).await),
            Place::Cluster => {
                Self::Cluster(cluster::Ground::start(seed, partitions, journal).await)
            }
            Place::Sentinel => Self::Sentinel(sentinel::Ground::start(seed, journal).await),
        }
    }

    /// What workers connect through: a proxy for each server.
    pub(crate) fn proxies(&self) -> Vec<Proxy> {
        match self {
            Self::Server(one) => vec![one.proxy()],
            Self::Cluster(cluster) => cluster.proxies.clone(),
            Self::Sentinel(watched) => watched.proxies.clone(),
        }
    }

    /// Where workers connect.
    pub(crate) fn url(&self) -> String {
        match self {
            Self::Server(one) => one.url(),
            Self::Cluster(cluster) => cluster.url(),
            Self::Sentinel(watched) => watched.url(),
        }
    }

    /// Where observers connect. One server has an address that bypasses its proxy.
    pub(crate) fn direct_url(&self) -> String {
        match self {
            Self::Server(one) => one.direct_url(),
            Self::Cluster(_) | Self::Sentinel(_) => self.url(),
        }
    }

    /// Looks at every server, past the proxies.
    pub(crate) fn watcher(&self) -> Watcher {
        Watcher::of(match self {
            Self::Server(one) => vec![one.port()],
            Self::Cluster(cluster) => cluster.ports(),
            Self::Sentinel(watched) => watched.ports(),
        })
    }

    pub(crate) fn connections(&self) -> u64 {
        self.proxies().iter().map(Proxy::connections).sum()
    }

    /// Resident memory of all servers, in KiB.
    pub(crate) fn memory(&self) -> u64 {
        let pids = match self {
            Self::Server(one) => vec![one.pid()],
            Self::Cluster(cluster) => cluster.pids(),
            Self::Sentinel(watched) => watched.pids(),
        };
        pids.into_iter().map(resident).sum()
    }

    /// Begins a fault. Blocks its thread.
    pub(crate) fn strike(&mut self, step: Step, journal: &Journal) {
        match self {
            Self::Server(one) => one.strike(step, journal),
            Self::Cluster(cluster) => cluster.strike(step),
            Self::Sentinel(watched) => watched.strike(step),
        }
    }

    /// Ends a fault. Blocks its thread until the servers answer again and all replicas follow.
    pub(crate) fn heal(&mut self, step: Step) {
        match self {
            Self::Server(one) => one.heal(step),
            Self::Cluster(cluster) => cluster.heal(step),
            Self::Sentinel(watched) => watched.heal(step),
        }
    }
}

/// Sets the weather in front of one server or, half of the time, in front of all.
fn set_weather(proxies: &[Proxy], weather: Weather, step: Step) {
    let one = (step.pick >> 1) as usize % proxies.len();
    for (number, proxy) in proxies.iter().enumerate() {
        if step.pick.is_multiple_of(2) || number == one {
            proxy.set(weather, step.pick);
        }
    }
}

fn clear_weather(proxies: &[Proxy]) {
    for proxy in proxies {
        proxy.set(Weather::Fine, 0);
    }
}

/// Whether a killed or stopped primary stays away until its replica has taken over: three times in four.
pub(crate) fn waits_for_failover(step: Step) -> bool {
    !(step.pick >> 4).is_multiple_of(4)
}
