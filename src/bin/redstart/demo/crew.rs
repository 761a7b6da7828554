//! The workers, as the demo sees them.

use std::collections::HashSet;
use std::fmt;
use std::io;

use tokio::sync::mpsc;
use uuid::Uuid;

use super::ground::Place;
use super::orders::{Event, Orders};
use super::process::ProcessWorker;
use super::report::Report;
use super::thread::ThreadWorker;

/// One worker. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Worker {
    /// Counted from 1.
    pub(super) number: usize,
    /// Messages that the worker has begun and not finished.
    pub(super) unfinished: HashSet<Uuid>,
    pub(super) alive: bool,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Process(ProcessWorker),
    Thread(ThreadWorker),
}

/// The workers, and the one channel on which all of them are heard.
#[derive(Debug)]
pub(super) struct Crew {
    pub(super) workers: Vec<Worker>,
    events: mpsc::Receiver<(usize, Event)>,
}

impl Crew {
    pub(super) fn start(count: usize, orders: &Orders<'_>) -> io::Result<Self> {
        let (sender, events) = mpsc::channel(4096);
        let mut workers = Vec::with_capacity(count);
        for at in 0..count {
            let body = match orders.place {
                Place::Given(url) => Body::Process(ProcessWorker::start(at, url, orders, &sender)?),
                Place::Private(server) => {
                    Body::Process(ProcessWorker::start(at, server.url(), orders, &sender)?)
                }
                Place::Cluster(cluster) => {
                    Body::Process(ProcessWorker::start(at, &cluster.url(), orders, &sender)?)
                }
                Place::Memory(store) => {
                    Body::Thread(ThreadWorker::start(at, store, orders, &sender)?)
                }
            };
            workers.push(Worker {
                number: at + 1,
                unfinished: HashSet::new(),
                alive: true,
                body,
            });
        }
        Ok(Self { workers, events })
    }

    /// What the workers are, in words.
    pub(super) fn describe(&self) -> String {
        let pids: Vec<String> = self
            .workers
            .iter()
            .filter_map(|worker| Some(worker.pid()?.to_string()))
            .collect();
        let count = self.workers.len();
        if pids.is_empty() {
            format!("{count} worker threads")
        } else {
            format!("{count} worker processes (pids {})", pids.join(", "))
        }
    }

    /// The next event, with the worker's place. Keeps the workers' unfinished messages up to date.
    pub(super) async fn next(&mut self) -> Option<(usize, Event)> {
        let (at, event) = self.events.recv().await?;
        if let Some(worker) = self.workers.get_mut(at) {
            match &event {
                Event::Reported(Report::Begun(id)) => {
                    worker.unfinished.insert(*id);
                }
                Event::Reported(report) => {
                    if let Some(id) = report.ended() {
                        worker.unfinished.remove(&id);
                    }
                }
                Event::Ended => worker.alive = false,
                Event::Complained(_) => {}
            }
        }
        Some((at, event))
    }

    pub(super) fn alive(&self) -> usize {
        self.workers.iter().filter(|worker| worker.alive).count()
    }

    /// The worker with the most unfinished messages.
    pub(super) fn busiest(&self) -> Option<usize> {
        let alive = self.workers.iter().enumerate().filter(|(_, w)| w.alive);
        alive
            .max_by_key(|(_, w)| w.unfinished.len())
            .map(|(at, _)| at)
    }

    /// Tells all workers to finish and go.
    pub(super) fn dismiss(&mut self) {
        for worker in &mut self.workers {
            match &mut worker.body {
                Body::Process(process) => process.dismiss(),
                Body::Thread(thread) => thread.dismiss(),
            }
        }
    }
}

impl Worker {
    fn pid(&self) -> Option<u32> {
        match &self.body {
            Body::Process(process) => Some(process.pid),
            Body::Thread(_) => None,
        }
    }

    /// How it was killed, in words.
    pub(super) fn cause_of_death(&self) -> &'static str {
        match &self.body {
            Body::Process(_) => "SIGKILL",
            Body::Thread(_) => "its runtime was dropped",
        }
    }

    /// Kills it, without any warning.
    pub(super) fn kill(&mut self) -> io::Result<()> {
        match &mut self.body {
            Body::Process(process) => process.kill(),
            Body::Thread(thread) => {
                thread.kill();
                Ok(())
            }
        }
    }

    /// How it ended: what is wrong with that, where something is.
    pub(super) async fn end(&mut self) -> io::Result<Result<(), String>> {
        match &mut self.body {
            Body::Process(process) => process.end().await,
            Body::Thread(thread) => Ok(thread.end().await),
        }
    }
}

/// `worker 2 (pid 4711)`.
impl fmt::Display for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker {}", self.number)?;
        match self.pid() {
            Some(pid) => write!(f, " (pid {pid})"),
            None => Ok(()),
        }
    }
}
