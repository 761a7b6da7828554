//! Worker processes: this program, started again with an environment variable that makes it a worker.
//!
//! A test writes orders to the worker's standard input and reads reports from its standard output.
//! The end of standard input means that the test's process died; the worker then exits at once.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::signal;

/// Tells a worker to finish its work and exit.
pub(crate) const END: &str = "end";

/// Waits for a line or for the end of the pipe. Only the end of the pipe kills.
const KILL_AT_END_OF_INPUT: &str = r#"
trap '' HUP INT QUIT TERM
read -r line || kill -9 "$1"
"#;

/// Reports one line to the test. One write per line: lines of several tasks never mix.
pub(crate) fn say(text: &str) {
    let line = format!("@{text}\n");
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes()).unwrap();
    out.flush().unwrap();
}

/// The orders that the test sends to this worker. Exits the process when the test's process dies.
pub(crate) fn orders() -> UnboundedReceiver<String> {
    let (sender, orders) = unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
        std::process::exit(1);
    });
    orders
}

/// A worker process. Dropping it kills the process.
pub(crate) struct Worker {
    child: Child,
    orders: ChildStdin,
    /// Kills the frozen worker when the test's process dies: a frozen worker cannot notice it.
    watchdog: Option<Child>,
}

impl Worker {
    /// Starts this program as a worker, which the arguments and the environment variables select.
    /// `sender` gets each [reported](say) line with the worker's number.
    pub(crate) fn start(
        arguments: &[&str],
        environment: &[(&str, &str)],
        number: u32,
        sender: UnboundedSender<(u32, String)>,
    ) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                // The test harness prints its own text before the first line.
                if let Some((_, text)) = line.split_once('@') {
                    let _ = sender.send((number, text.to_owned()));
                }
            }
        });
        let orders = child.stdin.take().unwrap();
        Self {
            child,
            orders,
            watchdog: None,
        }
    }

    /// Sends an order. A worker that died gets none.
    pub(crate) fn order(&mut self, line: &str) {
        let _ = writeln!(self.orders, "{line}").and_then(|()| self.orders.flush());
    }

    /// Kills it at once.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        self.release();
        self.child.wait().unwrap();
    }

    pub(crate) fn freeze(&mut self) {
        let watchdog = Command::new("/bin/sh")
            .args(["-c", KILL_AT_END_OF_INPUT, "sh", &self.pid().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.watchdog = Some(watchdog);
        signal(self.pid(), "STOP");
    }

    pub(crate) fn thaw(&mut self) {
        signal(self.pid(), "CONT");
        self.release();
    }

    /// Ends the watchdog, which leaves the worker alone.
    fn release(&mut self) {
        if let Some(mut watchdog) = self.watchdog.take() {
            let mut lifeline = watchdog.stdin.take().unwrap();
            let _ = lifeline.write_all(b"released\n");
            let _ = watchdog.wait();
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Tells it to finish its work and exit.
    pub(crate) fn dismiss(&mut self) {
        self.order(END);
    }

    /// Its exit status, once it has ended.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Dismisses it and expects that it succeeds.
    pub(crate) fn end(mut self) {
        self.dismiss();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        self.release();
        let _ = self.child.wait();
    }
}
