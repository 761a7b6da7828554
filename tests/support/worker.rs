//! Workers that are processes of their own, and what they say.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};

use tokio::sync::mpsc::UnboundedSender;

use super::signal;

/// One line in one write, so that lines of several tasks never mix.
pub(crate) fn say(text: &str) {
    let line = format!("@{text}\n");
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes()).unwrap();
    out.flush().unwrap();
}

/// A worker process. Dropping it kills the process.
pub(crate) struct Worker {
    child: Child,
    orders: Option<ChildStdin>,
}

impl Worker {
    /// Starts this very program as a worker: the arguments and the environment variable make
    /// it one. What it [says](say) goes to `sender` with its number.
    pub(crate) fn start(
        arguments: &[&str],
        environment: (&str, &str),
        number: u32,
        sender: UnboundedSender<(u32, String)>,
    ) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(arguments)
            .env(environment.0, environment.1)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                // The test harness puts its own words before the first line.
                if let Some((_, text)) = line.split_once('@') {
                    let _ = sender.send((number, text.to_owned()));
                }
            }
        });
        let orders = child.stdin.take();
        Self { child, orders }
    }

    /// Sends it a line. One that has died gets none.
    pub(crate) fn order(&mut self, line: &str) {
        if let Some(orders) = &mut self.orders {
            let _ = writeln!(orders, "{line}").and_then(|()| orders.flush());
        }
    }

    /// Kills it at once.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn freeze(&self) {
        signal(self.child.id(), "STOP");
    }

    pub(crate) fn thaw(&self) {
        signal(self.child.id(), "CONT");
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Closes the pipe by which it gets its orders: it ends by itself.
    pub(crate) fn dismiss(&mut self) {
        self.orders = None;
    }

    /// How it ended, once it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Lets it end by itself and expects that it says that all is well.
    pub(crate) fn end(mut self) {
        self.dismiss();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
