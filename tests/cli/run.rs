//! Running the tool, and waiting for what it says.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::PATIENCE;

#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// The last line of the output, as JSON.
    pub(crate) fn json(&self) -> Value {
        let last = self.out.lines().last().unwrap_or_default();
        serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    pub(crate) fn failed(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }
}

/// The tool, on a server or on none. Where the system can, it ends with the thread that starts it,
/// and so with a killed test.
pub(crate) fn redstart(url: Option<&str>, args: &[&str]) -> Command {
    // By its path: a test may take the PATH away.
    static ENDS_WITH_PARENT: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
        let path = std::env::var_os("PATH")?;
        let mut all = std::env::split_paths(&path).map(|folder| folder.join("setpriv"));
        all.find(|program| program.exists())
    });
    let tool = env!("CARGO_BIN_EXE_redstart");
    let mut command = match &*ENDS_WITH_PARENT {
        Some(program) => {
            let mut command = Command::new(program);
            command.args(["--pdeathsig", "KILL", tool]);
            command
        }
        None => Command::new(tool),
    };
    command.args(args);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("REDSTART_") {
            command.env_remove(name);
        }
    }
    if let Some(url) = url {
        command.env("REDSTART_REDIS_URL", url);
        command.env("REDSTART_NAMESPACE", "shop");
    }
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs a command to its end, feeding it an input.
pub(crate) fn run_with(mut command: Command, input: impl Into<Vec<u8>>) -> Ran {
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.into();
    // A command that ends early leaves the rest unread.
    let feed = thread::spawn(move || drop(stdin.write_all(&input)));
    let out = read_all(child.stdout.take().unwrap());
    let err = read_all(child.stderr.take().unwrap());
    let status = wait(&mut child);
    feed.join().unwrap();
    Ran {
        code: status.code(),
        out: out.join().unwrap(),
        err: err.join().unwrap(),
    }
}

pub(crate) fn run(url: Option<&str>, args: &[&str]) -> Ran {
    run_with(redstart(url, args), "")
}

pub(crate) fn publish(url: &str, args: &[&str], input: &str) -> Ran {
    let mut all = vec!["publish", "orders"];
    all.extend(args);
    run_with(redstart(Some(url), &all), input)
}

pub(crate) fn read_all(
    mut from: impl std::io::Read + Send + 'static,
) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        String::from_utf8(bytes).expect("output is UTF-8")
    })
}

pub(crate) fn wait(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("the command does not end");
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Reads lines until one has a text in it.
pub(crate) fn line_with(
    lines: &mut impl Iterator<Item = std::io::Result<String>>,
    text: &str,
) -> String {
    lines
        .map(Result::unwrap)
        .find(|line| line.contains(text))
        .unwrap_or_else(|| panic!("no line with {text:?}"))
}

pub(crate) fn processes(format: &str) -> String {
    let listed = Command::new("ps").args(["-eo", format]).output().unwrap();
    String::from_utf8_lossy(&listed.stdout).into_owned()
}

/// Whether a process still does something; one that only waits to be buried does not.
pub(crate) fn is_running(pid: &str) -> bool {
    processes("pid=,stat=").lines().any(|line| {
        let mut words = line.split_whitespace();
        words.next() == Some(pid) && words.next().is_some_and(|stat| !stat.starts_with('Z'))
    })
}

#[test]
#[cfg(target_os = "linux")]
fn the_tool_ends_with_the_thread_that_started_it() {
    let server = crate::support::Server::start();
    let url = server.url();
    let start = move || {
        let args = ["tail", "orders", "--follow"];
        let mut child = redstart(Some(&url), &args).spawn().unwrap();
        let err = std::io::BufReader::new(child.stderr.take().unwrap());
        line_with(&mut std::io::BufRead::lines(err), "waiting for it");
        child
    };
    let mut child = thread::spawn(start).join().unwrap();
    assert_eq!(wait(&mut child).code(), None, "a signal ended it");
}
