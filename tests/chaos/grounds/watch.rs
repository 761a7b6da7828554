//! Looks at servers past their proxies: for failovers that nobody planned, and at their logs.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::history::{Event, Journal};

/// What the history calls the moment in which a new primary was found.
pub(super) const FAILOVER: &str = "a new primary";

/// How long a server may take to answer. A stopped one does not.
const PATIENCE: Duration = Duration::from_millis(500);

pub(crate) struct Watcher {
    ports: Vec<u16>,
    /// The servers that said last that they are primaries.
    primaries: BTreeSet<u16>,
    /// How many primaries the first look found.
    count: usize,
    /// A former primary has not yet become a replica: clients may still use it.
    is_open: bool,
}

impl Watcher {
    pub(super) fn of(ports: Vec<u16>) -> Self {
        Self {
            ports,
            primaries: BTreeSet::new(),
            count: 0,
            is_open: false,
        }
    }

    /// Writes to the history when a server has become a primary, and when the former one is none any
    /// more: a busy machine can cause a failover.
    pub(crate) fn look(&mut self, journal: &Journal) {
        let mut primaries = self.primaries.clone();
        for port in &self.ports {
            match is_primary(*port) {
                Some(true) => drop(primaries.insert(*port)),
                Some(false) => drop(primaries.remove(port)),
                // Stopped or dead: it may come back as what it was.
                None => {}
            }
        }
        if self.count == 0 {
            self.count = primaries.len();
        } else if !self.is_open && !primaries.is_subset(&self.primaries) {
            journal.write(Event::fault(FAILOVER));
            self.is_open = true;
        }
        if self.is_open && primaries.len() <= self.count {
            journal.write(Event::healed(FAILOVER));
            self.is_open = false;
        }
        self.primaries = primaries;
    }

    /// Counts the entries that are missing from the logs of a topic although a group has not settled
    /// them, at each server that has the log.
    pub(crate) fn probe(&self, topic: &str, partitions: u16) -> Vec<u64> {
        let logs = (0..partitions).map(|partition| log(topic, partition));
        let looks =
            logs.flat_map(|log| self.ports.iter().filter_map(move |port| probe(*port, &log)));
        looks.collect()
    }
}

fn is_primary(port: u16) -> Option<bool> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut raw = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
    raw.set_read_timeout(Some(PATIENCE)).ok()?;
    raw.write_all(b"INFO replication\r\n").ok()?;
    let mut answer = String::new();
    let mut piece = [0; 4096];
    while !answer.contains("role:") {
        match raw.read(&mut piece).ok()? {
            0 => return None,
            length => answer.push_str(&String::from_utf8_lossy(&piece[..length])),
        }
    }
    Some(answer.contains("role:master"))
}

/// The key of the log of a partition.
pub(super) fn log(topic: &str, partition: u16) -> String {
    match partition {
        0 => format!("{{chaos:{topic}}}:log"),
        _ => format!("{{chaos:{topic}/{partition}}}:log"),
    }
}

fn probe(port: u16, log: &str) -> Option<u64> {
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}/")).ok()?;
    let patience = Duration::from_secs(2);
    let mut raw = client.get_connection_with_timeout(patience).ok()?;
    raw.set_read_timeout(Some(patience)).ok()?;
    let mut probe = redis::cmd("EVAL");
    probe.arg(include_str!("../probe.lua")).arg(1);
    probe.arg(log);
    probe.query(&mut raw).ok()
}
