//! Overload of the server or of the consumers: refused messages, memory, and the time to recover.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use redstart::extract::Payload;
use redstart::{Container, Delivery, Envelope, ErrorKind, SubscribeOptions, topics::TopicSettings};
use serde::Serialize;

use crate::crew::resident;
use crate::history::Fate;
use crate::load::fate;
use crate::nature::Message;
use crate::run::LEASE;
use crate::shim::Shim;
use crate::support::{PATIENCE, Server, container, drained, group, signal, topic, until};

/// The backlog limit.
pub(crate) const BACKLOG: u64 = 6000;
const BATCH: u64 = 50;

/// The kind of overload.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Overload {
    /// Publishers are ten times faster than consumers, until the backlog limit holds them.
    SlowConsumers,
    /// The same, and the server's memory is full before the limit is reached.
    FullMemory,
    /// The server accepts no connection and closes the existing ones.
    MaxClients,
    /// Each sync takes 200 ms longer.
    SlowDisk,
    /// Nothing can be written to the append-only file, which is synced every second.
    FullDisk,
    /// The server stops for longer than leases and time limits, then continues.
    FrozenServer,
}

pub(crate) const OVERLOADS: [Overload; 6] = [
    Overload::SlowConsumers,
    Overload::FullMemory,
    Overload::MaxClients,
    Overload::SlowDisk,
    Overload::FullDisk,
    Overload::FrozenServer,
];

#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Figures {
    pub(crate) seconds: f64,
    pub(crate) published: u64,
    /// Certainly not published, by kind.
    pub(crate) refused: BTreeMap<String, u64>,
    pub(crate) unknown: u64,
    pub(crate) lost: u64,
    /// Certainly not published, and handled.
    pub(crate) invented: u64,
    pub(crate) duplicates: u64,
    pub(crate) most_backlog: u64,
    pub(crate) server_peak_kib: u64,
    pub(crate) process_peak_kib: u64,
    /// From the end of the overload to the first message published after it.
    pub(crate) publishing_again_ms: u64,
    /// From the end of publishing until the group has drained.
    pub(crate) drained_ms: u64,
}

#[derive(Debug, Default)]
struct Seen {
    fates: HashMap<u64, Fate>,
    handled: HashMap<u64, u64>,
    refused: BTreeMap<String, u64>,
    most_backlog: u64,
    server_peak: u64,
    process_peak: u64,
    last_ok: Option<Instant>,
}

type Shared = Arc<Mutex<Seen>>;

pub(crate) async fn run(overload: Overload, lasts: Duration) -> Figures {
    let shim = Shim::build();
    let environment = shim.environment();
    let environment = environment
        .each_ref()
        .map(|(name, value)| (*name, &**value));
    // One that syncs always would end when it cannot.
    let fsync: &[&str] = match overload {
        Overload::FullDisk => &["--appendfsync", "everysec"],
        _ => &[],
    };
    let mut server = Server::start_in(tempfile::tempdir().unwrap(), fsync, &environment);
    let bus = container(&server).await;
    let settings = TopicSettings::default().with_backlog_limit(BACKLOG);
    let admin = bus.topics();
    admin.create(&topic("orders"), settings).await.unwrap();
    let (seen, calm) = (Shared::default(), Arc::new(AtomicBool::new(false)));
    // Some 1,300 a second, of ten times as many that could be published.
    consume(&bus, &seen).await;
    let publishing = tokio::spawn(publish(bus.clone(), Arc::clone(&seen), Arc::clone(&calm)));
    let sampling = tokio::spawn(sample(bus.clone(), Arc::clone(&seen), server.pid()));

    let begun = Instant::now();
    until("publishing to begin", async || seen.lock().unwrap().last_ok).await;
    make(overload, &mut server, &shim, lasts).await;
    let over = Instant::now();
    let publishing_again = until("publishing to work", async || {
        seen.lock().unwrap().last_ok.filter(|at| *at > over)
    })
    .await;
    calm.store(true, Ordering::Release);
    publishing.await.unwrap();
    let ended = Instant::now();
    drained(&bus, &topic("orders"), &group("billing")).await;
    let drained_ms = millis(ended.elapsed());
    sampling.abort();
    let report = bus.shutdown(PATIENCE).await;
    assert!(report.is_clean(), "{report:?}");

    let mut seen = seen.lock().unwrap();
    let mut figures = Figures {
        seconds: begun.elapsed().as_secs_f64(),
        refused: std::mem::take(&mut seen.refused),
        most_backlog: seen.most_backlog,
        server_peak_kib: seen.server_peak,
        process_peak_kib: seen.process_peak,
        publishing_again_ms: millis(publishing_again - over),
        drained_ms,
        ..Figures::default()
    };
    for (n, fate) in &seen.fates {
        let handled = seen.handled.get(n).copied().unwrap_or(0);
        figures.duplicates += handled.saturating_sub(1);
        match fate {
            Fate::Ok => {
                figures.published += 1;
                figures.lost += u64::from(handled == 0);
            }
            Fate::No => figures.invented += handled,
            Fate::Unknown => figures.unknown += 1,
        }
    }
    figures
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap()
}

/// Begins an overload and ends it.
async fn make(overload: Overload, server: &mut Server, shim: &Shim, lasts: Duration) {
    match overload {
        Overload::SlowConsumers => tokio::time::sleep(lasts).await,
        Overload::FullMemory => {
            let info: String = server.command(&["INFO", "memory"]);
            let used = info
                .lines()
                .find_map(|line| line.strip_prefix("used_memory:"));
            let used: u64 = used.unwrap().trim().parse().unwrap();
            let limit = (used + 3 * 1024 * 1024).to_string();
            let _: String = server.command(&["CONFIG", "SET", "maxmemory", &limit]);
            tokio::time::sleep(lasts).await;
            let _: String = server.command(&["CONFIG", "SET", "maxmemory", "0"]);
        }
        Overload::MaxClients => {
            let mut admin = server.raw();
            let set = |admin: &mut redis::Connection, most: u32| {
                let mut set = redis::cmd("CONFIG");
                set.arg("SET")
                    .arg("maxclients")
                    .arg(most)
                    .exec(admin)
                    .unwrap();
            };
            set(&mut admin, 1);
            let mut kill = redis::cmd("CLIENT");
            kill.arg("KILL").arg("TYPE").arg("normal");
            kill.exec(&mut admin).unwrap();
            // A new connection gets the reason.
            let error = crate::support::builder(server).connect().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
            tokio::time::sleep(lasts).await;
            set(&mut admin, 10_000);
        }
        Overload::SlowDisk => {
            shim.slow(200);
            tokio::time::sleep(lasts).await;
            shim.slow(0);
        }
        Overload::FullDisk => {
            shim.full(true);
            tokio::time::sleep(lasts).await;
            shim.full(false);
        }
        Overload::FrozenServer => {
            signal(server.pid(), "STOP");
            tokio::time::sleep(lasts.max(LEASE * 3)).await;
            signal(server.pid(), "CONT");
        }
    }
}

async fn consume(bus: &Container, seen: &Shared) {
    let seen = Arc::clone(seen);
    let options = SubscribeOptions::new()
        .with_concurrency(8)
        .with_lease(LEASE);
    let handler = move |Payload(message): Payload<Message>, _: Delivery| {
        let seen = Arc::clone(&seen);
        async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            *seen.lock().unwrap().handled.entry(message.n).or_default() += 1;
        }
    };
    let subscribed = bus
        .bus()
        .subscribe_with(&topic("orders"), options, handler)
        .await;
    let _subscription = subscribed.unwrap();
}

async fn publish(bus: Container, seen: Shared, calm: Arc<AtomicBool>) {
    for batch in 0_u64.. {
        if calm.load(Ordering::Acquire) {
            return;
        }
        let numbers = batch * BATCH..(batch + 1) * BATCH;
        let envelopes: Vec<Envelope> = numbers
            .clone()
            .map(|n| Envelope::new("overload", &Message::new(n)).unwrap())
            .collect();
        let results = bus.bus().publish_all(&topic("orders"), &envelopes).await;
        let full = results.iter().any(Result::is_err);
        {
            let mut seen = seen.lock().unwrap();
            for (n, result) in numbers.zip(&results) {
                seen.fates.insert(n, fate(result));
                match result {
                    Ok(_) => seen.last_ok = Some(Instant::now()),
                    Err(error) if error.kind() == ErrorKind::OutcomeUnknown => {}
                    Err(error) => {
                        let kind = format!("{:?}", error.kind());
                        *seen.refused.entry(kind).or_default() += 1;
                    }
                }
            }
        }
        let pause = if full { 20 } else { 3 };
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}

async fn sample(bus: Container, seen: Shared, server: u32) {
    loop {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let groups = bus
            .topics()
            .groups(&topic("orders"))
            .await
            .unwrap_or_default();
        let backlog = groups
            .first()
            .map_or(0, |status| status.lag + status.in_flight);
        let (server, process) = (resident(server), resident(std::process::id()));
        let mut seen = seen.lock().unwrap();
        seen.most_backlog = seen.most_backlog.max(backlog);
        seen.server_peak = seen.server_peak.max(server);
        seen.process_peak = seen.process_peak.max(process);
    }
}
