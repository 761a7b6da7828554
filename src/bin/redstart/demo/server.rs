//! A private redis-server for the demo.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use redstart::{Container, ErrorKind, container::ContainerBuilder};
use tempfile::TempDir;

use super::server_process::ServerProcess;
use crate::failure::{Failure, chain};

/// How long the server may take to come up.
const PATIENCE: Duration = Duration::from_secs(20);
/// A socket's path must fit into 104 bytes on macOS and 108 on Linux.
const LONGEST_PATH: usize = 100;

/// A running server. Dropping it kills the process and removes its folder; both also go when this
/// process is killed.
#[derive(Debug)]
pub(super) struct PrivateServer {
    running: Option<(ServerProcess, TempDir)>,
    url: String,
    pid: u32,
}

impl PrivateServer {
    /// Starts a server; `None` when there is no `redis-server` on the PATH.
    pub(super) fn start() -> Result<Option<Self>, Failure> {
        let folder = folder()?;
        let socket = folder.path().join("redis.sock");
        let mut command = match ServerProcess::command(folder.path()) {
            Ok(command) => command,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        command
            .args(["--port", "0", "--unixsocketperm", "700", "--save", ""])
            .args(["--appendonly", "yes", "--daemonize", "no"])
            .arg("--unixsocket")
            .arg(&socket)
            .arg("--logfile")
            .arg(folder.path().join("redis.log"));
        super::own_group(&mut command);
        let process = ServerProcess::spawn(&mut command)
            .map_err(|error| Failure::new(format!("cannot start redis-server: {error}")))?;
        Ok(Some(Self {
            url: format!("unix://{}", socket.display()),
            pid: process.pid(),
            running: Some((process, folder)),
        }))
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Connects as soon as the server is up.
    pub(super) async fn connect(
        &mut self,
        builder: impl Fn() -> Result<ContainerBuilder, Failure>,
    ) -> Result<Container, Failure> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // Starting up, a server refuses or answers that it is loading.
            let error = match builder()?.connect().await {
                Ok(container) => return Ok(container),
                Err(error) if error.kind() == ErrorKind::Unavailable => error,
                Err(error) => return Err(error.into()),
            };
            let Some((process, folder)) = &mut self.running else {
                return Err(error.into());
            };
            if let Some(status) = process.try_wait()? {
                let said = last_line(&folder.path().join("redis.log"));
                return Err(Failure::new(format!(
                    "redis-server stopped ({status}): {said}"
                )));
            }
            if Instant::now() > deadline {
                let text = format!("redis-server does not answer: {}", chain(&error));
                return Err(Failure::new(text));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Whether the process is still there.
    pub(super) fn is_running(&mut self) -> bool {
        let running = self.running.as_mut();
        running.is_some_and(|(process, _)| matches!(process.try_wait(), Ok(None)))
    }

    /// Lets it run on, and says in which folder.
    pub(super) fn keep(mut self) -> String {
        let kept = self.running.take();
        kept.map_or_else(String::new, |(mut process, folder)| {
            process.release();
            folder.keep().display().to_string()
        })
    }
}

impl Drop for PrivateServer {
    fn drop(&mut self) {
        if let Some((process, folder)) = self.running.take() {
            // Before its folder goes: a server that is still alive would write into it.
            drop(process);
            drop(folder);
        }
    }
}

fn folder() -> io::Result<TempDir> {
    let make = |builder: &mut tempfile::Builder<'_, '_>| builder.tempdir();
    let folder = make(tempfile::Builder::new().prefix("redstart-"))?;
    if folder.path().as_os_str().len() + "/redis.sock".len() <= LONGEST_PATH {
        return Ok(folder);
    }
    tempfile::Builder::new()
        .prefix("redstart-")
        .tempdir_in("/tmp")
}

/// The last line of a server's log.
pub(super) fn last_line(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let last = text.lines().rfind(|line| !line.trim().is_empty());
    last.unwrap_or("its log is empty").to_owned()
}
