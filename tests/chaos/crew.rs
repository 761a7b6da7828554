//! The worker processes of a run, and the faults that hit them.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use crate::grounds::Place;
use crate::history::{Event, Journal};
use crate::nature::TOXIC;
use crate::plan::{Fault, Step};
use crate::shim::Shim;
use crate::support::PATIENCE;
use crate::support::worker::Worker;
use crate::worker::{LEAVE, POISON, Role, Spec, VARIABLE};

/// The leases of a role's workers, the short one first. The worker with the long one extends its
/// deliveries less often than the short one lasts.
pub(crate) const fn leases(role: Role) -> [Duration; 2] {
    match role {
        // Each attempt at a poison message takes as long as the lease.
        Role::Victim => [Duration::from_millis(500), Duration::from_millis(1800)],
        _ => [Duration::from_millis(800), Duration::from_millis(2700)],
    }
}

/// The level of a publisher that asks for a replica.
const REPLICATED: &str = "replicated:1:1s";

struct Member {
    role: Role,
    worker: Worker,
    shim: Shim,
    has_long_lease: bool,
    /// A fault has ended it, and replaces it later.
    is_down: bool,
}

pub(crate) struct Crew {
    url: String,
    journal: PathBuf,
    seed: u64,
    /// Messages a second, of a publisher.
    rate: u32,
    /// Whether a group owns partitions.
    owned: bool,
    shim: Shim,
    place: Place,
    members: Vec<Member>,
    started: u32,
    sender: UnboundedSender<(u32, String)>,
    heard: UnboundedReceiver<(u32, String)>,
}

impl Crew {
    pub(crate) fn new(
        (place, url): (Place, String),
        journal: PathBuf,
        seed: u64,
        (rate, owned): (u32, bool),
        shim: Shim,
    ) -> Self {
        let (sender, heard) = mpsc::unbounded_channel();
        Self {
            url,
            journal,
            seed,
            rate,
            owned,
            shim,
            place,
            members: Vec::new(),
            started: 0,
            sender,
            heard,
        }
    }

    /// Starts a worker. Of two workers with one role, one has the long lease; the seed says which.
    pub(crate) fn start(&mut self, role: Role) {
        let before = self.members.iter().filter(|member| member.role == role);
        let has_long_lease = (before.count() as u64 + self.seed).is_multiple_of(2);
        let member = self.spawn(role, has_long_lease);
        self.members.push(member);
    }

    fn spawn(&mut self, role: Role, has_long_lease: bool) -> Member {
        self.started += 1;
        let number = self.started;
        // Of two publishers, one asks for a replica.
        let is_replicated = self.place != Place::Server && has_long_lease;
        let spec = Spec {
            url: self.url.clone(),
            journal: self.journal.clone(),
            role,
            number,
            seed: self.seed ^ u64::from(number),
            rate: self.rate,
            lease: leases(role)[usize::from(has_long_lease)],
            level: ["accepted", REPLICATED][usize::from(is_replicated)].to_owned(),
            may_lose: self.place != Place::Server && role == Role::Publisher && !is_replicated,
            owned: self.owned,
        };
        let text = serde_json::to_string(&spec).unwrap();
        let shim = self.shim.another();
        let [preload, control] = shim.environment();
        let environment = [
            (VARIABLE, &*text),
            (preload.0, &preload.1),
            (control.0, &control.1),
        ];
        Member {
            role,
            worker: Worker::start(&[], &environment, number, self.sender.clone()),
            shim,
            has_long_lease,
            is_down: false,
        }
    }

    /// Waits until every started worker has reported that it works.
    pub(crate) async fn all_work(&mut self) {
        let mut missing: BTreeSet<u32> = (1..=self.started).collect();
        while !missing.is_empty() {
            let heard = tokio::time::timeout(PATIENCE, self.heard.recv()).await;
            let (number, _) = heard.expect("workers begin").expect("the sender is here");
            missing.remove(&number);
        }
    }

    fn target(&mut self, step: Step) -> &mut Member {
        let can_be = |role| match step.fault {
            Fault::Poison => role == Role::Publisher,
            Fault::Redeploy => matches!(
                role,
                Role::Consumer | Role::Victim | Role::Single | Role::Stages
            ),
            // Another worker of the group is left, to claim.
            Fault::LostClaims => matches!(role, Role::Consumer | Role::Victim | Role::Stages),
            _ => true,
        };
        let targets = self.members.iter_mut().filter(|member| can_be(member.role));
        let mut targets: Vec<&mut Member> = targets.collect();
        let at = step.pick as usize % targets.len();
        targets.swap_remove(at)
    }

    /// Begins a fault of one worker.
    pub(crate) fn strike(&mut self, step: Step) {
        let Member {
            worker,
            shim,
            is_down,
            ..
        } = self.target(step);
        match step.fault {
            Fault::Kill | Fault::LostClaims => {
                worker.kill();
                *is_down = true;
            }
            Fault::Freeze => worker.freeze(),
            Fault::DropRuntime => worker.order("drop"),
            Fault::Restart => worker.order("restart"),
            Fault::Redeploy => {
                worker.order(LEAVE);
                *is_down = true;
            }
            Fault::ClientClock => {
                let hour = if step.pick >> 16 & 1 == 0 {
                    3600
                } else {
                    -3600
                };
                shim.clock(hour);
            }
            Fault::Poison => worker.order(&format!("{POISON}{}", 1 + (step.pick >> 16) % 3)),
            _ => unreachable!("a fault of the ground"),
        }
    }

    pub(crate) fn heal(&mut self, step: Step) {
        let target = self.target(step);
        let (role, has_long_lease) = (target.role, target.has_long_lease);
        match step.fault {
            Fault::Kill | Fault::LostClaims => {
                let next = self.spawn(role, has_long_lease);
                *self.target(step) = next;
            }
            Fault::Redeploy => {
                // It is killed if it has not left by now.
                let next = self.spawn(role, !has_long_lease);
                *self.target(step) = next;
            }
            Fault::Freeze => target.worker.thaw(),
            Fault::ClientClock => target.shim.clock(0),
            _ => {}
        }
    }

    /// Restarts a consumer.
    pub(crate) fn restart_consumer(&mut self) {
        let is_consumer = |member: &&mut Member| member.role == Role::Consumer;
        if let Some(member) = self.members.iter_mut().find(is_consumer) {
            member.worker.order("restart");
        }
    }

    /// Replaces the victims whose processes have ended.
    pub(crate) fn replace_victims(&mut self, journal: &Journal) {
        for at in 0..self.members.len() {
            let member = &mut self.members[at];
            if member.role != Role::Victim || member.is_down || member.worker.ended().is_none() {
                continue;
            }
            let name = format!("the end of victim {}", member.worker.pid());
            journal.write(Event::Fault {
                name: name.clone(),
                loses_data: false,
                topic: Some(TOXIC.to_owned()),
            });
            let has_long_lease = member.has_long_lease;
            self.members[at] = self.spawn(Role::Victim, has_long_lease);
            journal.write(Event::healed(&name));
        }
    }

    /// Dismisses the workers of some roles and waits for their end.
    pub(crate) async fn dismiss(&mut self, which: impl Fn(Role) -> bool) {
        let (mut going, staying): (Vec<_>, Vec<_>) = self
            .members
            .drain(..)
            .partition(|member| which(member.role));
        self.members = staying;
        for member in &mut going {
            member.worker.dismiss();
        }
        for Member {
            role, mut worker, ..
        } in going
        {
            let ended = crate::support::until("a worker to end", async || worker.ended()).await;
            assert!(ended.success(), "{role:?}: {ended}");
        }
    }

    /// Resident memory of all workers, in KiB.
    pub(crate) fn memory(&self) -> u64 {
        let workers = self.members.iter();
        workers.map(|member| resident(member.worker.pid())).sum()
    }
}

/// Resident memory of a process in KiB; 0 where the system does not report it.
pub(crate) fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.unwrap_or(0)
}
