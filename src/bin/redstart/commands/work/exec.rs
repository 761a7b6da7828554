//! Runs a command for a message: payload to its standard input, the end of its process to an outcome.

use std::io;
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use redstart::{Delivery, Outcome};
use serde_json::value::RawValue;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::end::End;
use super::metadata::{optional_variables, variables};
use super::told::Told;

/// How much of the standard error becomes the error of the attempt, in bytes.
const TOLD: usize = 4096;
/// How long a command may take to end after SIGTERM.
const KINDNESS: Duration = Duration::from_secs(5);
/// How long the rest of the standard error may take after the end: a process that the command left
/// behind can hold it open.
const REST: Duration = Duration::from_millis(200);

/// A command that handles messages.
#[derive(Debug)]
pub(super) struct Program {
    command: String,
    limit: Duration,
    /// Takes the reason when the command cannot run.
    stop: mpsc::Sender<String>,
    told: Told,
}

impl Program {
    pub(super) fn new(
        command: &str,
        limit: Duration,
        stop: mpsc::Sender<String>,
        told: Told,
    ) -> Self {
        Self {
            command: command.to_owned(),
            limit,
            stop,
            told,
        }
    }

    /// Runs the command for one message.
    pub(super) async fn handle(&self, payload: &RawValue, delivery: &Delivery) -> Outcome {
        let variables = match variables(delivery) {
            Ok(variables) => variables,
            Err(rule) => return Outcome::dead_letter(rule),
        };
        let started = self.start(variables);
        let (mut child, group) = match started {
            Ok(child) => child,
            Err(error) if error.kind() == io::ErrorKind::ArgumentListTooLong => {
                let rule = "the message's headers are longer than an environment may be";
                return Outcome::dead_letter(format!("{rule}: {error}"));
            }
            // The system lacks processes or memory: later.
            Err(error) => return Outcome::back_off(format!("cannot start /bin/sh: {error}")),
        };
        let (input, errors) = (child.stdin.take(), child.stderr.take());
        let feed = async {
            if let Some(mut input) = input {
                // A command need not read its input.
                let _ = input.write_all(payload.get().as_bytes()).await;
            }
        };
        let running = async {
            let mut end = pin!(ended(&mut child, errors, &self.told));
            let (status, told) = tokio::select! {
                end = &mut end => end,
                // A process that the command left behind can hold the input open: the end of the
                // command counts, not that of its input.
                () = feed => end.await,
            };
            status.map(|status| End::of(status, &told))
        };
        let end = tokio::select! {
            biased;
            () = delivery.cancelled() => None,
            end = timeout(self.limit, running) => Some(end),
        };
        match end {
            Some(Ok(Ok(End::Of(outcome)))) => {
                group.settle();
                outcome
            }
            Some(Ok(Ok(End::CannotRun(why)))) => {
                group.settle();
                let told = format!("{:?} cannot run: {why}", self.command);
                let _ = self.stop.try_send(told);
                Outcome::back_off(why)
            }
            Some(Ok(Err(error))) => Outcome::retry(format!("cannot wait for the command: {error}")),
            Some(Err(_)) => {
                group.end(&mut child).await;
                Outcome::retry(format!("timed out after {:?}", self.limit))
            }
            // The outcome is discarded. Dropping the group kills the command.
            None => Outcome::retry("cancelled"),
        }
    }

    fn start(&self, variables: Vec<(String, String)>) -> io::Result<(Child, ProcessGroup)> {
        let mut command = std::process::Command::new("/bin/sh");
        command.args(["-c", &self.command]);
        for name in optional_variables() {
            command.env_remove(name);
        }
        command.envs(variables);
        // A signal of the terminal is for the worker, which lets the command finish.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut command = Command::from(command);
        command.stdin(Stdio::piped()).stderr(Stdio::piped());
        let child = command.kill_on_drop(true).spawn()?;
        let group = ProcessGroup::of(&child);
        Ok((child, group))
    }
}

/// Waits for the end of a command; passes its standard error on, and returns the end of that.
async fn ended(
    child: &mut Child,
    errors: Option<ChildStderr>,
    out: &Told,
) -> (io::Result<ExitStatus>, String) {
    let mut told = Vec::new();
    let Some(mut errors) = errors else {
        return (child.wait().await, String::new());
    };
    let mut part = [0; 1024];
    let mut read = async |told: &mut Vec<u8>| {
        let count = errors.read(&mut part).await.unwrap_or(0);
        out.pass(&part[..count]);
        told.extend_from_slice(&part[..count]);
        let surplus = told.len().saturating_sub(TOLD);
        told.drain(..surplus);
        count > 0
    };
    let mut is_open = true;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            more = read(&mut told), if is_open => is_open = more,
        }
    };
    let rest = async { while is_open && read(&mut told).await {} };
    let _ = timeout(REST, rest).await;
    (status, String::from_utf8_lossy(&told).into_owned())
}

/// The processes of a command. Dropping it kills them, unless the command is over.
#[derive(Debug)]
struct ProcessGroup {
    #[cfg(unix)]
    leader: Option<rustix::process::Pid>,
    is_over: bool,
}

impl ProcessGroup {
    fn of(child: &Child) -> Self {
        #[cfg(not(unix))]
        let _ = child;
        Self {
            #[cfg(unix)]
            leader: child
                .id()
                .and_then(|id| i32::try_from(id).ok())
                .and_then(rustix::process::Pid::from_raw),
            is_over: false,
        }
    }

    /// The command has ended: its process id may belong to another process soon.
    fn settle(mut self) {
        self.is_over = true;
    }

    /// Asks the command to end, and waits for it a while.
    async fn end(self, child: &mut Child) {
        #[cfg(unix)]
        self.send(rustix::process::Signal::TERM);
        let _ = timeout(KINDNESS, child.wait()).await;
    }

    #[cfg(unix)]
    fn send(&self, signal: rustix::process::Signal) {
        if let Some(leader) = self.leader {
            // It may have ended just now.
            let _ = rustix::process::kill_process_group(leader, signal);
        }
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        #[cfg(unix)]
        if !self.is_over {
            self.send(rustix::process::Signal::KILL);
        }
    }
}
