//! Private servers behind sentinels. Each ends with the test as every server does.

use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use redstart::{Namespace, container::ContainerBuilder};

use super::server_process::ServerProcess;
use super::{PATIENCE, Server, comes_up, group, settings};

/// The service that the sentinels watch.
pub(crate) const SERVICE: &str = "shop-redis";

/// How long a server may be silent before a sentinel calls it down.
const DOWN_AFTER: Duration = Duration::from_secs(1);
/// A line for the sentinels of a test in which no server dies: a busy machine then changes no primary.
pub(crate) const CALM: &str = "sentinel down-after-milliseconds shop-redis 60000\n";

/// A running sentinel. Dropping it ends the process.
pub(crate) struct Sentinel {
    process: ServerProcess,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Sentinel {
    fn start(primary: u16, quorum: usize, settings: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for _ in 0..20 {
            let free = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = free.local_addr().unwrap().port();
            drop(free);
            let mut process = spawn(folder.path(), port, primary, quorum, settings);
            if comes_up(&mut process, port) {
                return Self {
                    process,
                    port,
                    _folder: folder,
                };
            }
        }
        panic!("the sentinel did not come up on twenty ports");
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Runs a command on a raw connection.
    pub(crate) fn command<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = redis::cmd(words[0]);
        for word in &words[1..] {
            command.arg(*word);
        }
        command.query(&mut self.raw()).unwrap()
    }

    fn raw(&self) -> redis::Connection {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}/", self.port)).unwrap();
        client.get_connection().unwrap()
    }

    /// The port of the primary, as this sentinel knows it.
    pub(crate) fn primary(&self) -> u16 {
        let command = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE];
        let (_, port): (String, u16) = self.command(&command);
        port
    }

    /// What this sentinel knows about the service.
    fn facts(&self) -> Facts {
        let facts: Vec<String> = self.command(&["SENTINEL", "MASTER", SERVICE]);
        let fact = |name: &str| {
            let at = facts.iter().position(|one| one == name).expect("the fact");
            &*facts[at + 1]
        };
        Facts {
            replicas: fact("num-slaves").parse().unwrap(),
            others: fact("num-other-sentinels").parse().unwrap(),
            epoch: fact("config-epoch").parse().unwrap(),
            is_calm: fact("flags") == "master",
        }
    }
}

struct Facts {
    replicas: usize,
    others: usize,
    /// Grows with each failover.
    epoch: u64,
    /// The primary answers, and no failover is under way.
    is_calm: bool,
}

fn spawn(folder: &Path, port: u16, primary: u16, quorum: usize, settings: &str) -> ServerProcess {
    // A sentinel keeps what it knows in its configuration file.
    let path = folder.join("sentinel.conf");
    let down_after = DOWN_AFTER.as_millis();
    let shown = folder.display();
    let text = format!(
        "port {port}\nbind 127.0.0.1\ndir {shown}\n\
         sentinel monitor {SERVICE} 127.0.0.1 {primary} {quorum}\n\
         sentinel down-after-milliseconds {SERVICE} {down_after}\n\
         sentinel failover-timeout {SERVICE} 4000\n{settings}"
    );
    std::fs::write(&path, text).unwrap();
    let mut command = ServerProcess::bare_command(folder).expect("tests/run installs redis-server");
    command.arg(path).arg("--sentinel");
    ServerProcess::spawn(&mut command).expect("a shell")
}

/// One primary, its replicas and their sentinels.
pub(crate) struct Watched {
    pub(crate) servers: Vec<Server>,
    /// The ports by which the servers are known.
    ports: Vec<u16>,
    pub(crate) sentinels: Vec<Sentinel>,
    namespaces: AtomicU32,
}

impl Watched {
    /// Starts servers, of which the first is the primary, and sentinels.
    pub(crate) fn start(servers: usize, sentinels: usize) -> Self {
        Self::start_with(servers, sentinels, &[], "")
    }

    /// The same, with settings of each server and lines for the file of each sentinel.
    ///
    /// # Panics
    ///
    /// When they do not come up or do not find each other: a failure, never a skip.
    pub(crate) fn start_with(
        servers: usize,
        sentinels: usize,
        settings: &[&str],
        lines: &str,
    ) -> Self {
        Self::start_behind(servers, sentinels, settings, lines, Server::port)
    }

    /// The same, with servers that are known by other ports than their own: those of proxies.
    pub(crate) fn start_behind(
        servers: usize,
        sentinels: usize,
        settings: &[&str],
        lines: &str,
        known_by: impl FnMut(&Server) -> u16,
    ) -> Self {
        let own = ["--repl-diskless-sync-delay", "0", "--repl-timeout", "10"];
        let all: Vec<&str> = own.iter().chain(settings).copied().collect();
        let servers: Vec<Server> = (0..servers).map(|_| Server::start_with(&all)).collect();
        let ports: Vec<u16> = servers.iter().map(known_by).collect();
        let primary = ports[0];
        for (server, port) in servers.iter().zip(&ports) {
            let port = port.to_string();
            server.command::<()>(&["CONFIG", "SET", "replica-announce-port", &port]);
        }
        for replica in &servers[1..] {
            replica.command::<()>(&["REPLICAOF", "127.0.0.1", &primary.to_string()]);
        }
        let quorum = sentinels / 2 + 1;
        let sentinels = (0..sentinels)
            .map(|_| Sentinel::start(primary, quorum, lines))
            .collect();
        let watched = Self {
            servers,
            ports,
            sentinels,
            namespaces: AtomicU32::new(0),
        };
        watched.until_known();
        watched
    }

    /// Waits until every sentinel knows the others and all replicas, these follow the primary, and no
    /// failover is under way that could change the primary later.
    pub(crate) fn until_known(&self) {
        let replicas = self.servers.len() - 1;
        wait("all replicas to follow the primary", || {
            let follows = self.servers.iter().filter(|server| follows(server));
            follows.count() == replicas
        });
        wait("the sentinels to know everybody", || {
            let facts = self.sentinels.iter().map(Sentinel::facts);
            let facts: Vec<Facts> = facts.collect();
            facts.iter().all(|one| {
                one.replicas == replicas
                    && one.others == self.sentinels.len() - 1
                    && one.epoch == facts[0].epoch
                    && one.is_calm
            })
        });
    }

    /// The URL of the service.
    pub(crate) fn url(&self) -> String {
        let hosts: Vec<String> = self
            .sentinels
            .iter()
            .map(|one| format!("127.0.0.1:{}", one.port()))
            .collect();
        format!("redis+sentinel://{}/{SERVICE}", hosts.join(","))
    }

    /// The number of the server at a port.
    pub(crate) fn number(&self, port: u16) -> usize {
        let found = self.ports.iter().position(|one| *one == port);
        found.expect("a server of this service")
    }

    /// A namespace that nobody has used.
    pub(crate) fn namespace(&self) -> Namespace {
        let number = self.namespaces.fetch_add(1, Ordering::Relaxed);
        Namespace::new(format!("shop{number}")).unwrap()
    }

    /// Settings for a container of service `billing`.
    pub(crate) fn builder(&self, namespace: &Namespace) -> ContainerBuilder {
        settings()
            .with_redis_url(self.url())
            .with_namespace(namespace.clone())
            .with_service(group("billing"))
    }

    /// Lets the primary hand over as planned, until this sentinel names another one. Returns the number of the
    /// former primary.
    ///
    /// The sentinel must have heard of the replicas lately. It gives a failover up when it does not hear of
    /// the promotion in time, as on a busy machine; then it is asked again.
    pub(crate) fn fail_over(&self, by: usize) -> usize {
        let sentinel = &self.sentinels[by];
        let mut former = None;
        wait("a planned failover", || {
            let primary = sentinel.primary();
            if former.is_some_and(|former| former != primary) {
                return true;
            }
            let mut command = redis::cmd("SENTINEL");
            command.arg("FAILOVER").arg(SERVICE);
            if sentinel.facts().is_calm && command.exec(&mut sentinel.raw()).is_ok() {
                former = Some(primary);
            }
            false
        });
        self.number(former.expect("the former primary"))
    }

    /// Waits until all sentinels name the same other primary. Returns its number.
    pub(crate) fn until_failed_over(&self, from: usize) -> usize {
        let old = self.ports[from];
        let mut new = old;
        wait("the failover", || {
            new = self.sentinels[0].primary();
            new != old && self.sentinels.iter().all(|one| one.primary() == new)
        });
        self.number(new)
    }

    /// Waits until a server follows the primary.
    pub(crate) fn until_replica(&self, number: usize) {
        wait("the former primary to be a replica", || {
            follows(&self.servers[number])
        });
    }

    /// Says when the first sentinel tells of the end of a failover.
    pub(crate) fn first_switch(&self) -> mpsc::Receiver<Instant> {
        let (sender, receiver) = mpsc::channel();
        for sentinel in &self.sentinels {
            let (mut connection, sender) = (sentinel.raw(), sender.clone());
            let (ready, is_ready) = mpsc::channel();
            thread::spawn(move || {
                let mut listening = connection.as_pubsub();
                listening.subscribe("+switch-master").unwrap();
                ready.send(()).unwrap();
                // The sentinel may die with the test.
                if listening.get_message().is_ok() {
                    let _ = sender.send(Instant::now());
                }
            });
            is_ready.recv().unwrap();
        }
        receiver
    }
}

/// Whether a server follows a primary. One that is told to ends its connections.
fn follows(server: &Server) -> bool {
    let asked = redis::Client::open(server.url()).and_then(|client| {
        let mut connection = client.get_connection()?;
        redis::cmd("INFO")
            .arg("replication")
            .query::<String>(&mut connection)
    });
    asked.is_ok_and(|info| info.contains("role:slave") && info.contains("master_link_status:up"))
}

/// Waits for the sentinels and servers. A sentinel that a busy machine has held up does nothing for
/// thirty seconds (it calls this tilt), and that can happen more than once.
fn wait(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + 3 * PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "timed out waiting for {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
