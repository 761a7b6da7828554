//! The plan of faults, made from a seed before the run begins.

use std::fmt;
use std::time::Duration;

use crate::crew::leases;
use crate::proxy::Weather;
use crate::worker::Role;

/// A fault.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fault {
    // Of a worker process.
    /// Killed, and replaced by another.
    Kill,
    /// Stopped beyond its lease, and continued.
    Freeze,
    /// Its runtime is dropped in the middle of its work.
    DropRuntime,
    /// The worker shuts its container down within milliseconds and connects a new one.
    Restart,
    /// Shut down, and replaced by a worker with another lease, as in a rolling deployment.
    Redeploy,
    /// Its clock is set forward or back by an hour, and then right again.
    ClientClock,
    /// Killed, and the connections break in which others claim its deliveries, after the claims.
    LostClaims,
    /// Messages that end the process of their handler, each time.
    Poison,

    // Of the server.
    KillServer,
    FreezeServer,
    Loading,
    ScriptFlush,
    KillClients,
    MaxClients,
    Pause,
    Busy,
    ReadOnly,
    MemoryFull,
    /// Its memory is full for a moment, whenever a consumer settles a failed attempt.
    FullAtRetry,
    /// It cannot save, and refuses to write.
    Misconf,
    /// It cannot write to its append-only file, and ends.
    FullDisk,
    /// It rewrites its append-only file.
    Rewrite,
    /// Its clock is set forward by an hour.
    ClockForward,
    /// Undecodable entries are added to the log.
    Malformed,
    FlushAll,

    // Of several servers.
    /// A replica is killed.
    KillReplica,
    /// A primary hands over to its replica, as planned.
    Failover,
    /// The slot of a topic moves to another primary, key by key.
    MoveSlot,

    // Of the network.
    Weather(Weather),
}

pub(crate) const OF_WORKERS: &[Fault] = &[
    Fault::Kill,
    Fault::Freeze,
    Fault::DropRuntime,
    Fault::Restart,
    Fault::Redeploy,
    Fault::ClientClock,
    Fault::LostClaims,
    Fault::Poison,
];

/// The faults around the workers that lose no data by definition.
pub(crate) const OF_GROUND: &[Fault] = &[
    Fault::KillServer,
    Fault::FreezeServer,
    Fault::Loading,
    Fault::ScriptFlush,
    Fault::KillClients,
    Fault::MaxClients,
    Fault::Pause,
    Fault::Busy,
    Fault::ReadOnly,
    Fault::MemoryFull,
    Fault::FullAtRetry,
    Fault::Misconf,
    Fault::FullDisk,
    Fault::Rewrite,
    Fault::ClockForward,
    Fault::Malformed,
    Fault::Weather(Weather::Slow),
    Fault::Weather(Weather::Bytewise),
    Fault::Weather(Weather::Narrow),
    Fault::Weather(Weather::Cut),
    Fault::Weather(Weather::Reset),
    Fault::Weather(Weather::HalfOpen),
    Fault::Weather(Weather::Refuse),
];

/// The faults around the workers of a cluster. A server is a primary.
pub(crate) const OF_CLUSTER: &[Fault] = &[
    Fault::KillServer,
    Fault::FreezeServer,
    Fault::KillReplica,
    Fault::Failover,
    Fault::MoveSlot,
    Fault::MoveSlot,
    Fault::Weather(Weather::Slow),
    Fault::Weather(Weather::Cut),
    Fault::Weather(Weather::Reset),
    Fault::Weather(Weather::HalfOpen),
    Fault::Weather(Weather::Refuse),
];

/// The same behind sentinels.
pub(crate) const OF_SENTINEL: &[Fault] = &[
    Fault::KillServer,
    Fault::FreezeServer,
    Fault::KillReplica,
    Fault::Failover,
    Fault::Weather(Weather::Cut),
    Fault::Weather(Weather::Reset),
    Fault::Weather(Weather::HalfOpen),
    Fault::Weather(Weather::Refuse),
];

impl Fault {
    /// Whether the fault ends at once.
    pub(crate) fn is_momentary(self) -> bool {
        let momentary = [
            Self::ScriptFlush,
            Self::KillClients,
            Self::Rewrite,
            Self::ClockForward,
            Self::Malformed,
            Self::FlushAll,
            Self::Failover,
            Self::Poison,
        ];
        momentary.contains(&self)
    }

    /// The shortest time that shows the fault: that of a worker's lease, where it must expire.
    fn least(self) -> Duration {
        let [_, lease] = leases(Role::Consumer);
        match self {
            Self::Freeze => lease.mul_f64(1.2),
            // Others claim after the lease, every quarter of it.
            Self::LostClaims => lease.mul_f64(1.5),
            _ => Duration::ZERO,
        }
    }
}

/// One fault of a plan.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    /// After the step before it is over.
    pub(crate) wait: Duration,
    pub(crate) fault: Fault,
    pub(crate) lasts: Duration,
    /// Chooses, where there is something to choose from.
    pub(crate) pick: u32,
}

/// Two concurrent sequences of faults.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) workers: Vec<Step>,
    pub(crate) ground: Vec<Step>,
}

impl Plan {
    /// A plan for a time, with about one fault of each sequence in every `every`.
    pub(crate) fn new(
        seed: u64,
        time: Duration,
        every: Duration,
        of_workers: &[Fault],
        of_ground: &[Fault],
    ) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        Self {
            workers: steps(&mut random.fork(), time, every, of_workers),
            ground: steps(&mut random, time, every, of_ground),
        }
    }

    /// A plan with each fault of a deck around the workers once.
    pub(crate) fn once(
        seed: u64,
        time: Duration,
        every: Duration,
        of_workers: &[Fault],
        of_ground: &[Fault],
    ) -> Self {
        let long = every * 4 * of_ground.len() as u32;
        let mut plan = Self::new(seed, long, every, &[], of_ground);
        plan.ground.truncate(of_ground.len());
        plan.workers = Self::new(seed, time, every, of_workers, &[]).workers;
        plan
    }

    /// How often a fault is in the plan.
    pub(crate) fn count(&self, fault: Fault) -> usize {
        let steps = self.workers.iter().chain(&self.ground);
        steps.filter(|step| step.fault == fault).count()
    }
}

/// Deals from a shuffled deck: every fault occurs before one occurs again.
fn steps(random: &mut fastrand::Rng, time: Duration, every: Duration, deck: &[Fault]) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut left = Vec::new();
    let mut at = Duration::ZERO;
    while !deck.is_empty() {
        if left.is_empty() {
            left = deck.to_vec();
            random.shuffle(&mut left);
        }
        let Some(fault) = left.pop() else { break };
        // Mostly about as long as half of the time between two, now and then much longer.
        let longer = if random.u8(0..10) == 0 { 3.0 } else { 1.0 };
        let lasts = every.mul_f64((0.2 + 0.6 * random.f64()) * longer);
        let lasts = lasts.min(Duration::from_secs(8)).max(fault.least());
        let wait = every.mul_f64(0.2 + 0.6 * random.f64());
        at += wait + lasts;
        if at > time {
            break;
        }
        steps.push(Step {
            wait,
            fault,
            lasts,
            pick: random.u32(..),
        });
    }
    steps
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, steps) in [("workers", &self.workers), ("ground", &self.ground)] {
            write!(f, "  {name}:")?;
            for step in steps {
                let (wait, lasts) = (step.wait.as_millis(), step.lasts.as_millis());
                write!(f, " +{wait} {:?}/{lasts}", step.fault)?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
