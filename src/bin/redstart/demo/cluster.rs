//! A private Redis Cluster for the demo: three primaries with a replica each.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use redis::FromRedisValue;
use redstart::{Namespace, Topic};
use tempfile::TempDir;
use uuid::Uuid;

use super::server::last_line;
use super::server_process::ServerProcess;
use crate::failure::Failure;

const PRIMARIES: usize = 3;
const SLOTS: usize = 16_384;
/// How long the nodes may take to come up and to form a cluster.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);
/// How long a node may take to answer one command.
const ANSWER: Duration = Duration::from_secs(2);
/// A port that was free may be taken before the node binds it: the demo then tries others.
const ATTEMPTS: u32 = 3;

/// A running cluster. Dropping it kills its processes and removes their folders; both also go when
/// this process is killed.
#[derive(Debug)]
pub(super) struct PrivateCluster {
    nodes: Vec<Node>,
    password: String,
}

#[derive(Debug)]
struct Node {
    // Dropped before its folder: a server that is still alive would write into it.
    process: ServerProcess,
    folder: TempDir,
    port: u16,
    bus_port: u16,
    /// The demo has killed it.
    is_killed: bool,
}

/// The primary that the demo killed.
#[derive(Debug)]
pub(super) struct Fallen {
    pub(super) pid: u32,
    pub(super) port: u16,
    pub(super) when: Instant,
    /// The story has told that its replica took over.
    pub(super) is_replaced: bool,
}

impl PrivateCluster {
    /// Starts a cluster; it needs `redis-server` on the PATH.
    pub(super) async fn start() -> Result<Self, Failure> {
        let mut attempt = 1;
        loop {
            let mut cluster = Self::spawn()?;
            match cluster.form().await {
                Ok(()) => return Ok(cluster),
                Err(_) if attempt < ATTEMPTS && cluster.fault().is_some() => attempt += 1,
                Err(failure) => return Err(cluster.fault().unwrap_or(failure)),
            }
        }
    }

    fn spawn() -> Result<Self, Failure> {
        let password = Uuid::new_v4().simple().to_string();
        let count = 2 * PRIMARIES;
        let ports = free_ports(2 * count)?;
        let pairs = ports.iter().zip(&ports[count..]).take(count);
        let nodes = pairs.map(|(port, bus_port)| Node::spawn(*port, *bus_port, &password));
        Ok(Self {
            nodes: nodes.collect::<Result<_, _>>()?,
            password,
        })
    }

    async fn form(&mut self) -> Result<(), Failure> {
        let deadline = Instant::now() + PATIENCE;
        self.until(deadline, "answer", async |cluster| {
            for node in &cluster.nodes {
                if cluster.ask::<String>(node, &["PING"]).await.is_err() {
                    return false;
                }
            }
            true
        })
        .await?;
        let mut ids: Vec<String> = Vec::new();
        for (number, node) in self.nodes.iter().enumerate() {
            ids.push(self.ask(node, &["CLUSTER", "MYID"]).await?);
            let epoch = (number + 1).to_string();
            let set_epoch = ["CLUSTER", "SET-CONFIG-EPOCH", &epoch];
            self.ask::<()>(node, &set_epoch).await?;
            if number < PRIMARIES {
                let first = (number * SLOTS / PRIMARIES).to_string();
                let last = ((number + 1) * SLOTS / PRIMARIES - 1).to_string();
                let add = ["CLUSTER", "ADDSLOTSRANGE", &first, &last];
                self.ask::<()>(node, &add).await?;
            }
        }
        for node in &self.nodes[1..] {
            let (port, bus) = (node.port.to_string(), node.bus_port.to_string());
            let meet = ["CLUSTER", "MEET", "127.0.0.1", &port, &bus];
            self.ask::<()>(&self.nodes[0], &meet).await?;
        }
        // A node can follow a primary only once it knows that primary.
        for (number, node) in self.nodes.iter().enumerate().skip(PRIMARIES) {
            let replicate = ["CLUSTER", "REPLICATE", &ids[number % PRIMARIES]];
            self.until(deadline, "know each other", async |cluster| {
                cluster.ask::<()>(node, &replicate).await.is_ok()
            })
            .await?;
        }
        self.until(deadline, "form a cluster", async |cluster| {
            cluster.is_whole().await
        })
        .await?;
        Ok(())
    }

    /// Whether all nodes agree on all slots and every replica follows its primary.
    async fn is_whole(&self) -> bool {
        let mut following = 0;
        for node in &self.nodes {
            let info = self.ask::<String>(node, &["CLUSTER", "INFO"]).await;
            let links = self.ask::<String>(node, &["INFO", "replication"]).await;
            let (Ok(info), Ok(links)) = (info, links) else {
                return false;
            };
            let facts = [
                "cluster_state:ok",
                "cluster_slots_ok:16384",
                "cluster_known_nodes:6",
            ];
            if !facts.iter().all(|fact| info.contains(fact)) {
                return false;
            }
            following += usize::from(links.contains("master_link_status:up"));
        }
        following == self.nodes.len() - PRIMARIES
    }

    async fn until(
        &self,
        deadline: Instant,
        what: &str,
        mut holds: impl AsyncFnMut(&Self) -> bool,
    ) -> Result<(), Failure> {
        while !holds(self).await {
            if Instant::now() > deadline {
                let seconds = PATIENCE.as_secs();
                let text = format!("the private nodes did not {what} within {seconds} s");
                return Err(Failure::new(text));
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Asks a node, on a connection of its own.
    async fn ask<T: FromRedisValue>(&self, node: &Node, words: &[&str]) -> Result<T, Failure> {
        let url = format!("redis://:{}@127.0.0.1:{}/", self.password, node.port);
        let asking = async {
            let client = redis::Client::open(url)?;
            let mut connection = client.get_multiplexed_async_connection().await?;
            let mut command = redis::cmd(words[0]);
            command.arg(&words[1..]);
            command.query_async::<T>(&mut connection).await
        };
        let answer = tokio::time::timeout(ANSWER, asking).await;
        let problem = match answer {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer".to_owned(),
        };
        let (what, port) = (words.join(" "), node.port);
        Err(Failure::new(format!(
            "{what} at the private node {port}: {problem}"
        )))
    }

    pub(super) fn url(&self) -> String {
        let hosts: Vec<String> = self
            .nodes
            .iter()
            .map(|node| format!("127.0.0.1:{}", node.port))
            .collect();
        format!("redis+cluster://:{}@{}", self.password, hosts.join(","))
    }

    pub(super) fn pids(&self) -> Vec<String> {
        let pids = self.nodes.iter().map(|node| node.process.pid().to_string());
        pids.collect()
    }

    /// Kills the primary of a topic, without any warning.
    pub(super) async fn kill_primary_of(
        &mut self,
        namespace: &Namespace,
        topic: &Topic,
    ) -> Result<Fallen, Failure> {
        // With each placement of the namespace.
        let logs = [
            format!("{{{namespace}:{topic}}}:log"),
            format!("{{{namespace}}}:t:{topic}:log"),
        ];
        let mut owner = None;
        for (at, node) in self.nodes.iter().enumerate() {
            for log in &logs {
                // Every other node answers with a redirect.
                if let Ok(1) = self.ask::<u32>(node, &["EXISTS", log]).await {
                    owner = Some(at);
                }
            }
        }
        let owner = owner.and_then(|at| self.nodes.get_mut(at));
        let Some(node) = owner else {
            return Err(Failure::new("no private node says that it has the topic"));
        };
        node.is_killed = true;
        let pid = node.process.pid();
        let when = Instant::now();
        node.process.kill();
        Ok(Fallen {
            pid,
            port: node.port,
            when,
            is_replaced: false,
        })
    }

    /// Why a node has ended that the demo has not killed.
    pub(super) fn fault(&mut self) -> Option<Failure> {
        let mut running = self.nodes.iter_mut().filter(|node| !node.is_killed);
        running.find_map(|node| {
            let status = node.process.try_wait().ok()??;
            let said = last_line(&node.folder.path().join("redis.log"));
            let text = format!("a private redis-server stopped ({status}): {said}");
            Some(Failure::new(text))
        })
    }

    /// Lets the nodes run on. Returns the process ids of those that run, and all folders.
    pub(super) fn keep(self) -> (Vec<String>, Vec<String>) {
        let (mut pids, mut folders) = (Vec::new(), Vec::new());
        for mut node in self.nodes {
            if !node.is_killed {
                node.process.release();
                pids.push(node.process.pid().to_string());
            }
            folders.push(node.folder.keep().display().to_string());
        }
        (pids, folders)
    }
}

impl Node {
    fn spawn(port: u16, bus_port: u16, password: &str) -> Result<Self, Failure> {
        let folder = tempfile::Builder::new().prefix("redstart-").tempdir()?;
        let at = folder.path().display();
        // In a file, not among the arguments, which others on this machine can read.
        let settings = format!(
            "port {port}\nbind 127.0.0.1\nrequirepass {password}\nmasterauth {password}\n\
             cluster-enabled yes\ncluster-port {bus_port}\ncluster-node-timeout 1500\n\
             cluster-require-full-coverage no\ncluster-replica-validity-factor 0\n\
             repl-diskless-sync-delay 0\nappendonly yes\nsave \"\"\ndaemonize no\n\
             dir \"{at}\"\nlogfile \"{at}/redis.log\"\n"
        );
        let file = folder.path().join("redis.conf");
        fs::write(&file, settings)?;
        let mut command = match ServerProcess::bare_command(folder.path()) {
            Ok(command) => command,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let text = "--cluster needs redis-server on the PATH (apt install redis-server, \
                            brew install redis)";
                return Err(Failure::new(text));
            }
            Err(error) => return Err(error.into()),
        };
        command.arg(&file);
        super::own_group(&mut command);
        let process = ServerProcess::spawn(&mut command)
            .map_err(|error| Failure::new(format!("cannot start redis-server: {error}")))?;
        Ok(Self {
            process,
            folder,
            port,
            bus_port,
            is_killed: false,
        })
    }
}

/// Different ports that are free now.
fn free_ports(count: usize) -> io::Result<Vec<u16>> {
    let bound = (0..count).map(|_| TcpListener::bind("127.0.0.1:0"));
    let bound = bound.collect::<io::Result<Vec<_>>>()?;
    let ports = bound.iter().map(|one| one.local_addr());
    ports.map(|address| Ok(address?.port())).collect()
}
