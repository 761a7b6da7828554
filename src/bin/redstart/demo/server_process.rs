//! A redis-server that ends with the process that started it, also when that process is killed.
//!
//! The demo, the tests and the benches share this file. It uses the standard library only.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};

/// The shell leaves a watchdog behind and becomes redis-server, so that the process id is the
/// server's own.
///
/// The watchdog reads the pipe that the starting process holds. A line releases it. The end of the
/// pipe without a line means that the starting process died: the watchdog then kills the server and
/// removes its folder. The watchdog ignores the signals of a terminal, because they also reach the
/// starting process and may end the watchdog first. Two subshells make the watchdog a child of
/// init: Redis would report an unknown child.
const LAUNCH: &str = r#"
exec 3<&0 </dev/null
( (
  trap '' HUP INT QUIT TERM
  IFS= read -r line <&3 && exit
  kill -9 $$
  sleep 1
  rm -rf -- "$0"
) >/dev/null 2>&1 & )
exec 3<&-
exec "$@"
"#;

/// A running redis-server. Dropping it kills the server, unless it was [released](Self::release).
#[derive(Debug)]
pub(crate) struct ServerProcess {
    child: Child,
    /// Holds the watchdog back. `None` once the watchdog is released.
    lifeline: Option<ChildStdin>,
}

impl ServerProcess {
    /// A command that starts redis-server on a folder; the caller adds the server's arguments.
    /// The watchdog removes the folder.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::NotFound`] when the PATH has no redis-server.
    pub(crate) fn command(folder: &Path) -> io::Result<Command> {
        let mut command = Self::bare_command(folder)?;
        command.arg("--dir").arg(folder);
        Ok(command)
    }

    /// The same without any argument for the server: a configuration file has to come first.
    ///
    /// # Errors
    ///
    /// As [`command`](Self::command).
    pub(crate) fn bare_command(folder: &Path) -> io::Result<Command> {
        let mut command = Command::new("/bin/sh");
        command
            .arg("-c")
            .arg(LAUNCH)
            .arg(folder)
            .arg(redis_server()?)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Ok(command)
    }

    /// Starts what [`command`](Self::command) prepared.
    pub(crate) fn spawn(command: &mut Command) -> io::Result<Self> {
        let mut child = command.spawn()?;
        let lifeline = child.stdin.take();
        Ok(Self { child, lifeline })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The exit status, once the server has ended.
    pub(crate) fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        let status = self.child.try_wait()?;
        if status.is_some() {
            self.release();
        }
        Ok(status)
    }

    /// Kills the server and waits for its end.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        // Between the kill and the wait: the process id is not yet free for another process.
        self.release();
        let _ = self.child.wait();
    }

    /// Lets the server run on after this process has ended.
    pub(crate) fn release(&mut self) {
        if let Some(mut lifeline) = self.lifeline.take() {
            let _ = lifeline.write_all(b"released\n");
        }
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        if self.lifeline.is_some() {
            self.kill();
        }
    }
}

fn redis_server() -> io::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join("redis-server"))
        .find(|program| program.is_file())
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the PATH has no redis-server"))
}
