//! What a level of durability costs, beside level accepted on the same server.

use std::time::{Duration, Instant};

use redstart::{Durability, ErrorKind, Topic};

use crate::bench::Bench;
use crate::meter::{Meter, Spent};
use crate::ours;
use crate::pair::Side;
use crate::server::Server;
use crate::work::SIZE;

const RATE: &str = "messages/s";
const FSYNCED: &str = "durability/fsynced";
const REPLICATED: &str = "durability/replicated-1";

/// Publishing in batches that the server has synced. Needs `WAITAOF`: Redis 7.2 or later, or Valkey.
pub(super) async fn fsynced(bench: &mut Bench) {
    if !bench.options.wants(FSYNCED) {
        return;
    }
    if !gives(&bench.server, Durability::Fsynced).await {
        eprintln!("{FSYNCED}: not measured, the server cannot give this level");
        return;
    }
    measure(bench, FSYNCED, Durability::Fsynced).await;
}

/// Publishing in batches that a replica has.
pub(super) async fn replicated(bench: &mut Bench) {
    if !bench.options.wants(REPLICATED) {
        return;
    }
    let replica = Server::start("off");
    replica.follow(&bench.server);
    let level = Durability::replicated(1, Durability::MAX_TIMEOUT);
    let deadline = Instant::now() + Duration::from_secs(30);
    while !gives(&bench.server, level).await {
        assert!(Instant::now() < deadline, "the replica does not follow");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    measure(bench, REPLICATED, level).await;
}

/// Whether the server can give a level now.
async fn gives(server: &Server, level: Durability) -> bool {
    match server.connect_at(level).await {
        Ok(container) => {
            ours::finish(container).await;
            true
        }
        Err(error) => {
            let kinds = [ErrorKind::Unsupported, ErrorKind::Unavailable];
            assert!(kinds.contains(&error.kind()), "{error}");
            false
        }
    }
}

async fn measure(bench: &mut Bench, name: &str, level: Durability) {
    let count = bench.options.count(100_000);
    let server = &bench.server;
    bench
        .report
        .measure([(name, RATE)], async |side| {
            let topic = server.fresh_topic();
            let level = match side {
                Side::Ours => level,
                Side::Raw => Durability::Accepted,
            };
            let spent = publish(server, level, &topic, count).await;
            server.drop_topic(&topic);
            [spent.rate(count)]
        })
        .await;
}

async fn publish(server: &Server, level: Durability, topic: &Topic, count: u64) -> Spent {
    // Creates the topic, without a limit.
    ours::finish(server.container(topic).await).await;
    let connected = server.connect_at(level).await;
    let container = connected.expect("the server gives this level");
    let meter = Meter::start(server);
    ours::publish(&container, topic, count, SIZE).await;
    let spent = meter.stop();
    ours::finish(container).await;
    spent
}
