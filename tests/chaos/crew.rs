//! The worker processes of a run, and the faults that hit them.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use crate::plan::{Fault, Step};
use crate::support::PATIENCE;
use crate::support::worker::Worker;
use crate::worker::{Role, Spec, VARIABLE};

pub(crate) struct Crew {
    /// The settings that every worker starts with; role and number differ.
    model: Spec,
    members: Vec<(Role, Worker)>,
    started: u32,
    sender: UnboundedSender<(u32, String)>,
    heard: UnboundedReceiver<(u32, String)>,
}

impl Crew {
    pub(crate) fn new(
        url: String,
        journal: PathBuf,
        seed: u64,
        rate: u32,
        lease: Duration,
    ) -> Self {
        let (sender, heard) = mpsc::unbounded_channel();
        Self {
            model: Spec {
                url,
                journal,
                role: Role::Consumer,
                number: 0,
                seed,
                rate,
                lease,
            },
            members: Vec::new(),
            started: 0,
            sender,
            heard,
        }
    }

    pub(crate) fn start(&mut self, role: Role) {
        let worker = self.spawn(role);
        self.members.push((role, worker));
    }

    fn spawn(&mut self, role: Role) -> Worker {
        self.started += 1;
        let number = self.started;
        let spec = Spec {
            role,
            number,
            seed: self.model.seed ^ u64::from(number),
            ..self.model.clone()
        };
        let text = serde_json::to_string(&spec).unwrap();
        Worker::start(&[], (VARIABLE, &text), number, self.sender.clone())
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

    fn target_of(&self, step: Step) -> usize {
        step.pick as usize % self.members.len()
    }

    /// Begins a fault of one worker.
    pub(crate) fn strike(&mut self, step: Step) {
        let target = self.target_of(step);
        let worker = &mut self.members[target].1;
        match step.fault {
            Fault::Kill => worker.kill(),
            Fault::Freeze => worker.freeze(),
            Fault::DropRuntime => worker.order("drop"),
            Fault::Restart => worker.order("restart"),
            _ => unreachable!("a fault of the ground"),
        }
    }

    /// How long the fault lasts. A freeze lasts longer than the lease.
    pub(crate) fn lasts(&self, step: Step) -> Duration {
        match step.fault {
            Fault::Freeze => step.lasts.max(self.model.lease.mul_f64(1.5)),
            _ => step.lasts,
        }
    }

    pub(crate) fn heal(&mut self, step: Step) {
        let target = self.target_of(step);
        match step.fault {
            Fault::Kill => {
                let role = self.members[target].0;
                self.members[target].1 = self.spawn(role);
            }
            Fault::Freeze => self.members[target].1.thaw(),
            _ => {}
        }
    }

    /// Dismisses the workers of some roles and waits for their end.
    pub(crate) async fn dismiss(&mut self, which: impl Fn(Role) -> bool) {
        let (mut going, staying): (Vec<_>, Vec<_>) =
            self.members.drain(..).partition(|(role, _)| which(*role));
        self.members = staying;
        for (_, worker) in &mut going {
            worker.dismiss();
        }
        for (role, mut worker) in going {
            let ended = crate::support::until("a worker to end", async || worker.ended()).await;
            assert!(ended.success(), "{role:?}: {ended}");
        }
    }

    /// Resident memory of all workers, in KiB.
    pub(crate) fn memory(&self) -> u64 {
        let workers = self.members.iter();
        workers.map(|(_, worker)| resident(worker.pid())).sum()
    }
}

/// Resident memory of a process in KiB; 0 where the system does not report it.
pub(crate) fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.unwrap_or(0)
}
