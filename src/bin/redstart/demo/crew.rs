//! The worker processes, seen from the demo.

use std::collections::HashSet;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use redstart::{Group, Namespace, Topic};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::report::Report;

/// What all workers are told.
pub(super) struct Orders<'a> {
    pub(super) url: &'a str,
    pub(super) namespace: &'a Namespace,
    pub(super) topic: &'a Topic,
    pub(super) group: &'a Group,
    pub(super) work: Duration,
    pub(super) log: String,
}

/// Something that a worker did.
#[derive(Debug)]
pub(super) enum Event {
    Reported(Report),
    /// A line of its error output.
    Complained(String),
    /// Its output has ended: it is dead, or about to be.
    Ended,
}

/// One worker process. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Worker {
    /// Counted from 1.
    pub(super) number: usize,
    pub(super) pid: u32,
    /// Messages that it has begun and not ended.
    pub(super) hands: HashSet<Uuid>,
    pub(super) alive: bool,
    child: Child,
    /// Closed to tell the worker to stop.
    input: Option<ChildStdin>,
}

/// The workers, and the one channel on which all of them are heard.
#[derive(Debug)]
pub(super) struct Crew {
    pub(super) workers: Vec<Worker>,
    events: mpsc::Receiver<(usize, Event)>,
}

impl Crew {
    pub(super) fn start(count: usize, orders: &Orders<'_>) -> io::Result<Self> {
        let program = std::env::current_exe()?;
        let (sender, events) = mpsc::channel(4096);
        let mut workers = Vec::with_capacity(count);
        for at in 0..count {
            let mut command = std::process::Command::new(&program);
            command
                .args(["demo-worker", "--topic", orders.topic.as_str()])
                .args(["--group", orders.group.as_str(), "--work"])
                .arg(orders.work.as_micros().to_string())
                // Not as arguments: the URL may hold a password.
                .env("REDSTART_REDIS_URL", orders.url)
                .env("REDSTART_NAMESPACE", orders.namespace.as_str())
                .env("REDSTART_LOG", &orders.log)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            super::own_group(&mut command);
            let mut child = Command::from(command).kill_on_drop(true).spawn()?;
            listen(at, &mut child, &sender);
            workers.push(Worker {
                number: at + 1,
                pid: child.id().unwrap_or_default(),
                hands: HashSet::new(),
                alive: true,
                input: child.stdin.take(),
                child,
            });
        }
        Ok(Self { workers, events })
    }

    /// The next event, with the worker's place. The workers' hands are kept up to date.
    pub(super) async fn next(&mut self) -> Option<(usize, Event)> {
        let (at, event) = self.events.recv().await?;
        if let Some(worker) = self.workers.get_mut(at) {
            match &event {
                Event::Reported(Report::Begun(id)) => {
                    worker.hands.insert(*id);
                }
                Event::Reported(report) => {
                    if let Some(id) = report.ended() {
                        worker.hands.remove(&id);
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

    /// The worker with the most work in its hands.
    pub(super) fn busiest(&self) -> Option<usize> {
        let alive = self.workers.iter().enumerate().filter(|(_, w)| w.alive);
        alive.max_by_key(|(_, w)| w.hands.len()).map(|(at, _)| at)
    }

    /// Tells all workers to finish and go.
    pub(super) fn dismiss(&mut self) {
        for worker in &mut self.workers {
            worker.input = None;
        }
    }
}

impl Worker {
    /// Kills it, without any warning to the process.
    pub(super) fn kill(&mut self) -> io::Result<()> {
        self.child.start_kill()
    }

    /// How it ended.
    pub(super) async fn end(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }
}

fn listen(at: usize, child: &mut Child, sender: &mpsc::Sender<(usize, Event)>) {
    if let Some(out) = child.stdout.take() {
        let sender = sender.clone();
        tokio::spawn(async move {
            let mut lines = BufReader::new(out).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                // The last line of a killed process may be half a line.
                if let Ok(report) = line.parse()
                    && sender.send((at, Event::Reported(report))).await.is_err()
                {
                    return;
                }
            }
            let _ = sender.send((at, Event::Ended)).await;
        });
    }
    if let Some(err) = child.stderr.take() {
        let sender = sender.clone();
        tokio::spawn(async move {
            let mut lines = BufReader::new(err).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if sender.send((at, Event::Complained(line))).await.is_err() {
                    return;
                }
            }
        });
    }
}
