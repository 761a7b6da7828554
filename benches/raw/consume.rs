//! Consuming.

use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::streams::StreamReadReply;
use redstart::Topic;

use super::publish::publish;
use super::{Envelope, connect, encode};
use crate::meter::{Meter, Spent};
use crate::server::Server;
use crate::work::{Order, SIZE};

async fn group(connection: &mut MultiplexedConnection, log: &str) {
    redis::cmd("XGROUP")
        .arg("CREATE")
        .arg(log)
        .arg("raw")
        .arg("0")
        .arg("MKSTREAM")
        .exec_async(connection)
        .await
        .expect("a group");
}

async fn read_some(
    reader: &mut MultiplexedConnection,
    log: &str,
    wait: u64,
) -> Option<StreamReadReply> {
    redis::cmd("XREADGROUP")
        .arg("GROUP")
        .arg("raw")
        .arg("me")
        .arg("COUNT")
        .arg(256)
        .arg("BLOCK")
        .arg(wait)
        .arg("STREAMS")
        .arg(log)
        .arg(">")
        .query_async(reader)
        .await
        .expect("XREADGROUP")
}

/// Reads and acknowledges `count` messages; never waits for an acknowledgement before
/// reading on.
async fn read(
    mut reader: MultiplexedConnection,
    acks: MultiplexedConnection,
    log: &str,
    count: u64,
    mut handle: impl FnMut(Order),
) {
    let mut acknowledging = tokio::task::JoinSet::new();
    let mut seen = 0;
    while seen < count {
        let Some(reply) = read_some(&mut reader, log, 1000).await else {
            continue;
        };
        let mut ids = Vec::with_capacity(256);
        for key in reply.keys {
            for entry in key.ids {
                let Some(redis::Value::BulkString(bytes)) = entry.map.get("msgpack") else {
                    panic!("an entry without a body");
                };
                let envelope: Envelope<Order> = rmp_serde::from_slice(bytes).expect("decodes");
                assert!(!envelope.kind.is_empty() && envelope.attempts == 0);
                handle(envelope.payload);
                ids.push(entry.id);
            }
        }
        seen += ids.len() as u64;
        let (mut acks, log) = (acks.clone(), log.to_owned());
        acknowledging.spawn(async move {
            let done: u64 = redis::cmd("XACK")
                .arg(log)
                .arg("raw")
                .arg(&ids)
                .query_async(&mut acks)
                .await
                .expect("XACK");
            assert_eq!(done, ids.len() as u64);
        });
    }
    acknowledging.join_all().await;
}

pub(crate) async fn consume(server: &Server, topic: &Topic, count: u64) -> Spent {
    let log = Server::log(topic);
    let mut reader = connect(server).await;
    group(&mut reader, &log).await;
    let acks = connect(server).await;
    let meter = Meter::start(server);
    read(reader, acks, &log, count, |_| {}).await;
    meter.stop()
}

pub(crate) async fn both(server: &Server, topic: &Topic, count: u64) -> Spent {
    let log = Server::log(topic);
    let mut reader = connect(server).await;
    group(&mut reader, &log).await;
    let (acks, mut publisher) = (connect(server).await, connect(server).await);
    let meter = Meter::start(server);
    let reading = read(reader, acks, &log, count, |_| {});
    tokio::join!(publish(&mut publisher, &log, count, SIZE), reading);
    meter.stop()
}

pub(crate) async fn latencies(server: &Server, topic: &Topic, duration: Duration) -> Vec<Duration> {
    let log = Server::log(topic);
    let mut reader = connect(server).await;
    group(&mut reader, &log).await;
    let acks = connect(server).await;
    let count = duration.as_millis() as u64;
    let (epoch, mut seen) = (Instant::now(), Vec::with_capacity(count as usize));
    let mut publisher = connect(server).await;
    let (log2, pace) = (log.clone(), async move {
        let mut ticks = tokio::time::interval(Duration::from_millis(1));
        for _ in 0..count {
            ticks.tick().await;
            let order = Order::new(epoch.elapsed().as_nanos() as u64, SIZE);
            let _: String = redis::cmd("XADD")
                .arg(&log)
                .arg("*")
                .arg("msgpack")
                .arg(encode(order))
                .query_async(&mut publisher)
                .await
                .expect("XADD");
        }
    });
    let reading = read(reader, acks, &log2, count, |order| {
        seen.push(epoch.elapsed() - Duration::from_nanos(order.id));
    });
    tokio::join!(pace, reading);
    seen
}

/// Blocked readers on empty topics, one per topic, for a time.
pub(crate) async fn idle(server: &Server, topics: &[Topic], duration: Duration) -> Spent {
    let mut waiting = tokio::task::JoinSet::new();
    for topic in topics {
        let (log, mut reader) = (Server::log(topic), connect(server).await);
        group(&mut reader, &log).await;
        waiting.spawn(async move { while read_some(&mut reader, &log, 5000).await.is_none() {} });
    }
    let meter = Meter::start(server);
    tokio::time::sleep(duration).await;
    meter.stop()
}
