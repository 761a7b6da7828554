//! A private redis-server for a bench.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redstart::{Container, Group, Topic, TopicSettings};

pub(crate) struct Server {
    child: Child,
    pub(crate) url: String,
    topics: AtomicU64,
    _folder: tempfile::TempDir,
}

impl Server {
    pub(crate) fn start(fsync: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let mut command = Command::new("redis-server");
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
        let child = command
            .arg("--dir")
            .arg(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is needed; tests/run installs it");
        let url = format!("redis://127.0.0.1:{port}/");
        let deadline = Instant::now() + Duration::from_secs(30);
        while redis::Client::open(url.as_str())
            .and_then(|client| client.get_connection())
            .is_err()
        {
            assert!(Instant::now() < deadline, "redis-server did not come up");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self {
            child,
            url,
            topics: AtomicU64::new(0),
            _folder: folder,
        }
    }

    pub(crate) fn client(&self) -> redis::Client {
        redis::Client::open(self.url.as_str()).expect("the URL is ours")
    }

    pub(crate) async fn container(&self, topic: &Topic) -> Container {
        let container = Container::builder()
            .with_redis_url(&self.url)
            .with_service(Group::new("bench").expect("a name"))
            .connect()
            .await
            .expect("the server is up");
        let settings = TopicSettings::default().with_backlog_limit(u64::MAX);
        container
            .admin()
            .create_topic(topic, settings)
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

    /// What the server's process has spent, in user and system mode.
    pub(crate) fn cpu(&self) -> Duration {
        let mut connection = self.client().get_connection().expect("the server is up");
        let info: String = redis::cmd("INFO")
            .arg("cpu")
            .query(&mut connection)
            .expect("INFO");
        let seconds: f64 = info
            .lines()
            .filter_map(|line| {
                line.strip_prefix("used_cpu_user_main_thread:")
                    .or_else(|| line.strip_prefix("used_cpu_sys_main_thread:"))
            })
            .filter_map(|value| value.trim().parse::<f64>().ok())
            .sum();
        Duration::from_secs_f64(seconds)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
