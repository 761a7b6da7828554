//! Power cuts: how many acknowledged messages remain after the server has lost all data that was not
//! synced.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redstart::{Container, Durability, Envelope, topics::TopicSettings};
use serde::Serialize;
use tokio::sync::Mutex;

use crate::history::Fate;
use crate::load::fate;
use crate::shim::Shim;
use crate::support::{Server, group, topic};

/// How many publish at once, and how many messages each hands over together.
const PUBLISHERS: u64 = 8;
const BATCH: u64 = 64;

/// The losses of some power cuts.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Loss {
    pub(crate) fsync: String,
    /// The level of durability of the publishes.
    pub(crate) level: String,
    pub(crate) cuts: u32,
    pub(crate) published: u64,
    pub(crate) unknown: u64,
    pub(crate) unknown_there: u64,
    pub(crate) lost: u64,
    /// Publishing, between the cuts.
    pub(crate) seconds: f64,
    /// Certainly not published, and there.
    pub(crate) invented: u64,
}

/// Publishes at least `messages` messages at a level over some power cuts, and for at least `least` before each:
/// with a sync per second, a shorter time shows nothing.
pub(crate) async fn cut(
    (fsync, level): (&str, Durability),
    messages: u64,
    cuts: u32,
    least: Duration,
) -> Loss {
    let shim = Shim::build();
    let environment = shim.environment();
    let environment = environment
        .each_ref()
        .map(|(name, value)| (*name, &**value));
    // A rewrite renames files; the shim does not follow renames.
    let settings = ["--appendfsync", fsync, "--auto-aof-rewrite-percentage", "0"];
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start_in(folder, &settings, &environment);
    let mut loss = Loss {
        fsync: fsync.to_owned(),
        level: level.to_string(),
        cuts,
        ..Loss::default()
    };
    let mut first = 0;
    for cut in 0..cuts {
        let name = format!("orders-{cut}");
        let goal = messages / u64::from(cuts);
        let began = Instant::now();
        let told = publish((&server, level), &name, first, (goal, least)).await;
        server.kill();
        loss.seconds += began.elapsed().as_secs_f64();
        let told = told.finish().await;
        shim.cut_power(&server.folder().join("appendonlydir"));
        server.start_again();
        let there = there(&server, &name);
        for (n, fate) in told {
            first = first.max(n + 1);
            match (fate, there.contains(&n)) {
                (Fate::Ok, true) => loss.published += 1,
                (Fate::Ok, false) => {
                    loss.published += 1;
                    loss.lost += 1;
                }
                (Fate::Unknown, there) => {
                    loss.unknown += 1;
                    loss.unknown_there += u64::from(there);
                }
                (Fate::No, true) => loss.invented += 1,
                (Fate::No, false) => {}
            }
        }
        let _: String = redis::cmd("FLUSHALL").query(&mut server.raw()).unwrap();
    }
    loss
}

/// Running publishers.
struct UnderWay {
    told: Arc<Mutex<Vec<(u64, Fate)>>>,
    publishers: Vec<tokio::task::JoinHandle<()>>,
    container: Container,
}

/// Returns while publishing continues, after a number of replies and a time.
async fn publish(
    (server, level): (&Server, Durability),
    name: &str,
    first: u64,
    goal: (u64, Duration),
) -> UnderWay {
    let container = Container::builder()
        .with_redis_url(server.url())
        .with_service(group("power"))
        .with_durability(level)
        .connect()
        .await
        .unwrap();
    let settings = TopicSettings::default().with_backlog_limit(100_000_000);
    let admin = container.topics();
    admin.create(&topic(name), settings).await.unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let mut publishers = Vec::new();
    for publisher in 0..PUBLISHERS {
        let (container, told) = (container.clone(), Arc::clone(&told));
        let name = name.to_owned();
        publishers.push(tokio::spawn(async move {
            let numbers = (0_u64..).map(|batch| {
                let from = first + (batch * PUBLISHERS + publisher) * BATCH;
                from..from + BATCH
            });
            for numbers in numbers {
                let envelopes: Vec<Envelope> = numbers
                    .clone()
                    .map(|n| Envelope::new("power", &n).unwrap())
                    .collect();
                let results = container.bus().publish_all(&topic(&name), &envelopes).await;
                let fates: Vec<(u64, Fate)> = numbers.zip(results.iter().map(fate)).collect();
                let ended = fates.iter().any(|(_, fate)| *fate != Fate::Ok);
                told.lock().await.extend(fates);
                if ended {
                    return;
                }
            }
        }));
    }
    let began = Instant::now();
    while (told.lock().await.len() as u64) < goal.0 || began.elapsed() < goal.1 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    UnderWay {
        told,
        publishers,
        container,
    }
}

impl UnderWay {
    async fn finish(self) -> Vec<(u64, Fate)> {
        for publisher in self.publishers {
            publisher.await.unwrap();
        }
        self.container.shutdown(Duration::ZERO).await;
        std::mem::take(&mut *self.told.lock().await)
    }
}

/// The messages that the log holds, looked up past the library.
fn there(server: &Server, name: &str) -> BTreeSet<u64> {
    let mut raw = server.raw();
    let mut there = BTreeSet::new();
    let mut from = "-".to_owned();
    loop {
        type Entry = (String, Vec<(String, Vec<u8>)>);
        let mut range = redis::cmd("XRANGE");
        range.arg(format!("{{{name}}}:log")).arg(&from).arg("+");
        let page: Vec<Entry> = range.arg("COUNT").arg(10_000).query(&mut raw).unwrap();
        let Some((last, _)) = page.last() else {
            return there;
        };
        from = format!("({last}");
        for (_, fields) in &page {
            let value: serde_json::Value = rmp_serde::from_slice(&fields[0].1).unwrap();
            there.insert(value["payload"].as_u64().unwrap());
        }
    }
}
