//! Shared by the suite: private servers, and waiting for conditions.

// Each layer is a program of its own and uses a part of this.
#![allow(dead_code)]

pub(crate) mod batches;
pub(crate) mod cluster;
pub(crate) mod numbered;
pub(crate) mod roles;
pub(crate) mod sentinel;
#[path = "../../src/bin/redstart/demo/server_process.rs"]
mod server_process;
pub(crate) mod soon;
pub(crate) mod tls;
pub(crate) mod worker;

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::pin::pin;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redstart::{
    Container, Envelope, Group, Namespace, Topic,
    container::{ContainerBuilder, NativeCommands},
    dead_letters::{DeadLetter, DeadLetterFilter},
    envelope::EntryId,
    topics::GroupStatus,
};
use server_process::ServerProcess;

/// How long a test waits for a condition. Long, because the machine may be busy; not a measure of
/// speed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until a condition holds.
///
/// # Panics
///
/// When the condition does not hold within [`PATIENCE`]; the message names it.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "timed out waiting for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Receives, with patience.
pub(crate) async fn next<T>(receiver: &mut tokio::sync::mpsc::UnboundedReceiver<T>) -> T {
    tokio::time::timeout(PATIENCE, receiver.recv())
        .await
        .expect("timed out waiting for a message")
        .expect("the sender is there")
}

/// Receives `count` values and sorts them.
pub(crate) async fn some<T: Ord>(
    receiver: &mut tokio::sync::mpsc::UnboundedReceiver<T>,
    count: usize,
) -> Vec<T> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(next(receiver).await);
    }
    all.sort();
    all
}

/// Measures the longest time for which this process ran no task: it adds to each limit. Returns a function
/// that tells it.
pub(crate) fn watch_stalls() -> impl Fn() -> Duration {
    let longest = Arc::new(AtomicU64::new(0));
    let seen = Arc::downgrade(&longest);
    tokio::spawn(async move {
        let pause = Duration::from_millis(5);
        loop {
            let began = Instant::now();
            tokio::time::sleep(pause).await;
            let Some(longest) = seen.upgrade() else {
                return;
            };
            let late = began.elapsed().saturating_sub(pause);
            longest.fetch_max(late.as_millis() as u64, Ordering::Relaxed);
        }
    });
    move || Duration::from_millis(longest.load(Ordering::Relaxed))
}

/// Runs a part of a test until it succeeds. A failure counts only if this process and the server were fast
/// enough meanwhile to keep a lease.
pub(crate) async fn steadily<T>(
    container: &Container,
    lease: Duration,
    what: &str,
    mut part: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    until(what, async || {
        let (mut part, mut slowest) = (pin!(part()), Duration::ZERO);
        let ended = loop {
            let began = Instant::now();
            let lap = async {
                tokio::time::sleep(Duration::from_millis(5)).await;
                let _ = container.store().inspect().ping().await;
            };
            let ended = tokio::select! {
                ended = &mut part => Some(ended),
                () = lap => None,
            };
            slowest = slowest.max(began.elapsed());
            if let Some(ended) = ended {
                break ended;
            }
        };
        ended
            .map_err(|error| assert!(slowest > lease / 3, "{what}: {error}"))
            .ok()
    })
    .await
}

pub(crate) fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

pub(crate) fn group(name: &str) -> Group {
    Group::new(name).unwrap()
}

/// Settings for a container of service `billing` in namespace `shop`.
/// Settings with the native commands of `REDSTART_NATIVE`: `tests/servers` runs conformance once more with
/// them, and chaos can run with them.
pub(crate) fn settings() -> ContainerBuilder {
    let builder = Container::builder();
    match std::env::var("REDSTART_NATIVE") {
        Ok(names) => builder.with_native(names.parse::<NativeCommands>().unwrap()),
        Err(_) => builder,
    }
}

pub(crate) fn builder(server: &Server) -> ContainerBuilder {
    settings()
        .with_redis_url(server.url())
        .with_namespace(Namespace::new("shop").unwrap())
        .with_service(group("billing"))
}

pub(crate) async fn container(server: &Server) -> Container {
    builder(server).connect().await.unwrap()
}

/// Publishes numbers, all of them.
pub(crate) async fn publish(container: &Container, on: &Topic, numbers: std::ops::Range<u32>) {
    let all: Vec<Envelope> = numbers.map(|n| Envelope::new("n", &n).unwrap()).collect();
    for result in container.bus().publish_all(on, &all).await {
        result.unwrap();
    }
}

/// The status of a group.
pub(crate) async fn status(container: &Container, on: &Topic, of: &Group) -> GroupStatus {
    let groups = container.topics().groups(on).await.unwrap();
    groups
        .into_iter()
        .find(|status| status.group == *of)
        .expect("the group exists")
}

/// Waits until a group has no lag, no in-flight and no scheduled messages. The patience begins again with each
/// message that is settled: a busy machine may need long for many.
pub(crate) async fn drained(container: &Container, on: &Topic, of: &Group) -> GroupStatus {
    let (mut fewest, mut deadline) = (u64::MAX, Instant::now());
    loop {
        let status = status(container, on, of).await;
        let left = status.lag + status.in_flight + status.scheduled;
        if left == 0 {
            return status;
        }
        if left < fewest {
            (fewest, deadline) = (left, Instant::now() + PATIENCE);
        }
        assert!(
            Instant::now() < deadline,
            "timed out waiting for the group to drain: {status:?}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Shuts a container down and expects a clean report.
pub(crate) async fn finish(container: Container) {
    let report = container.shutdown(PATIENCE).await;
    assert!(report.is_clean(), "{report:?}");
}

/// Sends a process a signal by its name.
pub(crate) fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill")
        .args(["-s", name, &pid.to_string()])
        .status()
        .unwrap();
    assert!(sent.success(), "kill -s {name} {pid}");
}

/// A running server. Dropping it kills the process and removes its folder; both also go when the
/// test's process is killed.
pub(crate) struct Server {
    process: ServerProcess,
    port: u16,
    folder: tempfile::TempDir,
    settings: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Server {
    /// Starts a server with an append-only file.
    ///
    /// # Panics
    ///
    /// When `redis-server` is missing or does not come up: a failure, never a skip.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server with further settings, as `redis-server` takes them.
    pub(crate) fn start_with(settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self::start_in(folder, settings, &[])
    }

    /// Starts a server on a folder, with further settings and environment variables.
    pub(crate) fn start_in(
        folder: tempfile::TempDir,
        settings: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let settings = settings.iter().map(|one| (*one).to_owned()).collect();
        Self::start_by_in(folder, || Vec::clone(&settings), environment)
    }

    /// Starts a server whose settings are made anew for each attempt.
    pub(crate) fn start_by(settings: impl Fn() -> Vec<String>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self::start_by_in(folder, settings, &[])
    }

    fn start_by_in(
        folder: tempfile::TempDir,
        settings: impl Fn() -> Vec<String>,
        environment: &[(&str, &str)],
    ) -> Self {
        let environment: Vec<(String, String)> = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        // A port that was free may be taken before the server binds it: try another then.
        for _ in 0..20 {
            let port = TcpListener::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap()
                .port();
            let settings = settings();
            let mut process = spawn(port, folder.path(), &settings, &environment);
            if comes_up(&mut process, port) {
                return Self {
                    process,
                    port,
                    folder,
                    settings,
                    environment,
                };
            }
        }
        panic!("redis-server did not come up on twenty ports");
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// Kills the server. It loses no acknowledged write, because it syncs every write.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again on the same data and port.
    pub(crate) fn start_again(&mut self) {
        self.start_again_with(&[]);
    }

    /// The same, with further settings for this time.
    pub(crate) fn start_again_with(&mut self, settings: &[&str]) {
        let settings = settings.iter().map(|one| (*one).to_owned());
        let all: Vec<String> = self.settings.iter().cloned().chain(settings).collect();
        self.process = spawn(self.port, self.folder.path(), &all, &self.environment);
        assert!(
            comes_up(&mut self.process, self.port),
            "the server did not come back"
        );
    }

    /// Kills the server and starts it again.
    pub(crate) fn restart(&mut self) {
        self.kill();
        self.start_again();
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Where it keeps its data.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Whether the process has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.process.try_wait().unwrap().is_some()
    }

    /// Runs a command on a raw connection.
    pub(crate) fn command<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        self.try_command(words).unwrap()
    }

    /// The same, of a server that may not be able to.
    pub(crate) fn try_command<T: redis::FromRedisValue>(
        &self,
        words: &[&str],
    ) -> redis::RedisResult<T> {
        let mut connection = redis::Client::open(self.url())?.get_connection()?;
        redis::cmd(words[0]).arg(&words[1..]).query(&mut connection)
    }

    /// A raw connection, to inspect the server without the library.
    pub(crate) fn raw(&self) -> redis::Connection {
        redis::Client::open(self.url())
            .unwrap()
            .get_connection()
            .unwrap()
    }
}

fn spawn(
    port: u16,
    folder: &Path,
    settings: &[String],
    environment: &[(String, String)],
) -> ServerProcess {
    let mut command = ServerProcess::command(folder).expect("tests/run installs redis-server");
    command
        .args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
        ])
        .args(["--appendonly", "yes", "--appendfsync", "always"])
        .args(settings)
        .envs(environment.iter().map(|(name, value)| (name, value)));
    ServerProcess::spawn(&mut command).expect("a shell")
}

fn comes_up(process: &mut ServerProcess, port: u16) -> bool {
    let deadline = Instant::now() + Duration::from_secs(30);
    while Instant::now() < deadline {
        if process.try_wait().unwrap().is_some() {
            return false;
        }
        match process_at(port) {
            Some(answering) if answering == process.pid() => return true,
            // Another server has taken the port before ours could.
            Some(_) => {
                process.kill();
                return false;
            }
            None => {}
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}

/// The process of the server that answers on a port and has loaded its data.
fn process_at(port: u16) -> Option<u32> {
    TcpStream::connect(("127.0.0.1", port)).ok()?;
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}/")).ok()?;
    let mut connection = client.get_connection().ok()?;
    redis::cmd("PING").exec(&mut connection).ok()?;
    let info: String = redis::cmd("INFO")
        .arg("server")
        .query(&mut connection)
        .ok()?;
    let pid = info
        .lines()
        .find_map(|line| line.strip_prefix("process_id:"))?;
    pid.trim().parse().ok()
}

/// A group's dead letters, up to a thousand.
pub(crate) async fn letters(
    container: &Container,
    topic: &Topic,
    group: &Group,
) -> Vec<DeadLetter> {
    let dead = container.dead_letters();
    let all = DeadLetterFilter::default();
    let page = dead.list(topic, group, &all, None, 1000).await.unwrap();
    let ids: Vec<EntryId> = page.items.iter().map(|(id, _)| *id).collect();
    dead.get(topic, group, &ids).await.unwrap()
}
