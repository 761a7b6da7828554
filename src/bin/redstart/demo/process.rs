//! A worker of the demo that is a process of its own.

use std::io;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;

use super::orders::{Event, Orders};

/// A running process. Dropping it kills it.
#[derive(Debug)]
pub(super) struct ProcessWorker {
    pub(super) pid: u32,
    child: Child,
    /// Closed to tell the worker to stop.
    input: Option<ChildStdin>,
}

impl ProcessWorker {
    pub(super) fn start(
        at: usize,
        url: &str,
        orders: &Orders<'_>,
        sender: &mpsc::Sender<(usize, Event)>,
    ) -> io::Result<Self> {
        let mut command = std::process::Command::new(std::env::current_exe()?);
        command
            .args(["demo-worker", "--topic", orders.topic.as_str()])
            .args(["--group", orders.group.as_str(), "--work"])
            .arg(orders.work.as_micros().to_string())
            // Not as arguments: the URL may hold a password.
            .env("REDSTART_REDIS_URL", url)
            .env("REDSTART_NAMESPACE", orders.namespace.as_str())
            .env("REDSTART_LOG", &orders.log)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        super::own_group(&mut command);
        let mut child = Command::from(command).kill_on_drop(true).spawn()?;
        listen(at, &mut child, sender);
        Ok(Self {
            pid: child.id().unwrap_or_default(),
            input: child.stdin.take(),
            child,
        })
    }

    pub(super) fn dismiss(&mut self) {
        self.input = None;
    }

    pub(super) fn kill(&mut self) -> io::Result<()> {
        self.child.start_kill()
    }

    pub(super) async fn end(&mut self) -> io::Result<Result<(), String>> {
        let status = self.child.wait().await?;
        Ok(if status.success() {
            Ok(())
        } else {
            Err(status.to_string())
        })
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
