//! A private redis-server for a bench.

#[path = "../src/bin/redstart/demo/server_process.rs"]
mod server_process;

use std::net::TcpListener;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redstart::{Container, Durability, Error, Group, Topic, topics::TopicSettings};
use server_process::ServerProcess;

pub(crate) struct Server {
    pub(crate) url: String,
    topics: AtomicU64,
    // Dropped before its folder.
    _process: ServerProcess,
    _folder: tempfile::TempDir,
}

impl Server {
    pub(crate) fn start(fsync: &str) -> Self {
        Self::start_with(fsync, &[])
    }

    /// Starts a server with further settings.
    pub(crate) fn start_with(fsync: &str, settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let mut command = ServerProcess::command(folder.path())
            .expect("redis-server is needed; tests/run installs it");
        command.args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
        ]);
        command.args(["--appendfsync", if fsync == "off" { "no" } else { fsync }]);
        command.args(["--appendonly", if fsync == "off" { "no" } else { "yes" }]);
        // A rewrite in the middle of a pair would be measured on one side only.
        command.args(["--auto-aof-rewrite-percentage", "0"]);
        command.args(settings);
        let mut process = ServerProcess::spawn(&mut command).expect("a shell");
        let url = format!("redis://127.0.0.1:{port}/");
        let deadline = Instant::now() + Duration::from_secs(30);
        while redis::Client::open(url.as_str())
            .and_then(|client| client.get_connection())
            .is_err()
        {
            let ended = process.try_wait().expect("the process is ours");
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "redis-server (pid {}) did not come up: {ended:?}",
                process.pid()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Self {
            url,
            topics: AtomicU64::new(0),
            _process: process,
            _folder: folder,
        }
    }

    pub(crate) fn client(&self) -> redis::Client {
        redis::Client::open(self.url.as_str()).expect("the URL is ours")
    }

    pub(crate) async fn connect(&self) -> Container {
        let connected = self.connect_at(Durability::Accepted).await;
        connected.expect("the server is up")
    }

    /// Connects with a level of durability, which the server may not be able to give.
    pub(crate) async fn connect_at(&self, level: Durability) -> Result<Container, Error> {
        Container::builder()
            .with_redis_url(&self.url)
            .with_service(bench_group())
            .with_durability(level)
            .connect()
            .await
    }

    /// Makes it a replica of another server.
    pub(crate) fn follow(&self, primary: &Self) {
        let mut connection = self.client().get_connection().expect("the server is up");
        redis::cmd("REPLICAOF")
            .arg("127.0.0.1")
            .arg(primary.port())
            .exec(&mut connection)
            .expect("a replica");
    }

    pub(crate) fn port(&self) -> &str {
        let port = self.url.trim_end_matches('/').rsplit(':').next();
        port.expect("a port")
    }

    /// A container, and a topic without a limit.
    pub(crate) async fn container(&self, topic: &Topic) -> Container {
        let container = self.connect().await;
        let settings = TopicSettings::default().with_backlog_limit(u64::MAX);
        container
            .topics()
            .create(topic, settings)
            .await
            .expect("a topic");
        container
    }

    pub(crate) fn fresh_topic(&self) -> Topic {
        let number = self.topics.fetch_add(1, Ordering::Relaxed);
        Topic::new(format!("bench-{number}")).expect("a name")
    }

    pub(crate) fn log(topic: &Topic) -> String {
        format!("{{{topic}}}:log")
    }

    pub(crate) fn drop_topic(&self, topic: &Topic) {
        let mut connection = self.client().get_connection().expect("the server is up");
        redis::cmd("UNLINK")
            .arg(Self::log(topic))
            .arg(format!("{{{topic}}}:ids"))
            .arg(format!("{{{topic}}}:ids:before"))
            .exec(&mut connection)
            .expect("unlinked");
    }

    /// Removes everything.
    pub(crate) fn flush(&self) {
        let mut connection = self.client().get_connection().expect("the server is up");
        redis::cmd("FLUSHALL")
            .exec(&mut connection)
            .expect("flushed");
    }

    /// The sum of some values of INFO.
    pub(crate) fn info(&self, section: &str, names: &[&str]) -> f64 {
        let mut connection = self.client().get_connection().expect("the server is up");
        let info: String = redis::cmd("INFO")
            .arg(section)
            .query(&mut connection)
            .expect("INFO");
        let lines = info.lines().filter_map(|line| line.split_once(':'));
        lines
            .filter(|(name, _)| names.contains(name))
            .filter_map(|(_, value)| value.trim().parse::<f64>().ok())
            .sum()
    }

    /// Processor time of the server's main thread, in user and system mode.
    pub(crate) fn cpu(&self) -> Duration {
        let names = ["used_cpu_user_main_thread", "used_cpu_sys_main_thread"];
        Duration::from_secs_f64(self.info("cpu", &names))
    }

    /// How many commands the server has done, those inside scripts included.
    pub(crate) fn commands(&self) -> f64 {
        self.info("stats", &["total_commands_processed"])
    }

    /// How many clients are connected, without the one that asks.
    pub(crate) fn connections(&self) -> f64 {
        self.info("clients", &["connected_clients"]) - 1.0
    }

    /// Memory of the server's data, in bytes.
    pub(crate) fn memory(&self) -> f64 {
        self.info("memory", &["used_memory"])
    }
}

/// The group of every subscription.
pub(crate) fn bench_group() -> Group {
    Group::new("bench").expect("a name")
}
