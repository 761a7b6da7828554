//! The raw loop: plain redis-rs, pipelined, COUNT 256, one XACK per batch, no runtime.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::streams::StreamReadReply;
use redis::{AsyncConnectionConfig, Script};
use redstart::Topic;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Order;
use crate::server::Server;

/// The envelope, with the fields that Redstart writes.
#[derive(Deserialize, Serialize)]
struct Envelope<T> {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    ts: String,
    #[serde(rename = "corrId")]
    corr_id: String,
    payload: T,
    attempts: u32,
}

fn encode(order: Order) -> Vec<u8> {
    let envelope = Envelope {
        id: Uuid::now_v7().to_string(),
        kind: "order.placed".to_owned(),
        ts: jiff::Timestamp::now().to_string(),
        corr_id: Uuid::new_v4().to_string(),
        payload: order,
        attempts: 0,
    };
    rmp_serde::to_vec_named(&envelope).expect("encodes")
}

async fn connect(server: &Server) -> MultiplexedConnection {
    let config = AsyncConnectionConfig::new()
        .set_response_timeout(None)
        .set_pipeline_buffer_size(1024);
    server
        .client()
        .get_multiplexed_async_connection_with_config(&config)
        .await
        .expect("the server is up")
}

pub(crate) async fn publish_all(
    server: &Server,
    topic: &Topic,
    count: u64,
    size: usize,
) -> Duration {
    let (mut connection, log) = (connect(server).await, Server::log(topic));
    let batch = batch_of(size);
    let began = Instant::now();
    let mut next = 0;
    while next < count {
        let end = (next + batch).min(count);
        let mut pipeline = redis::Pipeline::with_capacity(batch as usize);
        for id in next..end {
            pipeline
                .cmd("XADD")
                .arg(&log)
                .arg("*")
                .arg("msgpack")
                .arg(encode(Order::new(id, size)));
        }
        let ids: Vec<String> = pipeline.query_async(&mut connection).await.expect("XADD");
        assert_eq!(ids.len() as u64, end - next);
        next = end;
    }
    began.elapsed()
}

/// How many messages of a size are put into one batch, by both sides.
pub(crate) fn batch_of(size: usize) -> u64 {
    if size > 10_000 { 16 } else { 500 }
}

pub(crate) async fn publish_tasks(
    server: &Server,
    topic: &Topic,
    count: u64,
    tasks: u64,
) -> Duration {
    let connection = connect(server).await;
    let log = Arc::new(Server::log(topic));
    let began = Instant::now();
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..tasks {
        let (mut connection, log) = (connection.clone(), Arc::clone(&log));
        running.spawn(async move {
            for id in 0..count / tasks {
                let _: String = redis::cmd("XADD")
                    .arg(&*log)
                    .arg("*")
                    .arg("msgpack")
                    .arg(encode(Order::new(id, 200)))
                    .query_async(&mut connection)
                    .await
                    .expect("XADD");
            }
        });
    }
    running.join_all().await;
    began.elapsed()
}

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

pub(crate) async fn consume(server: &Server, topic: &Topic, count: u64) -> Duration {
    let log = Server::log(topic);
    let mut reader = connect(server).await;
    group(&mut reader, &log).await;
    let acks = connect(server).await;
    let began = Instant::now();
    read(reader, acks, &log, count, |_| {}).await;
    began.elapsed()
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
        let reply: Option<StreamReadReply> = redis::cmd("XREADGROUP")
            .arg("GROUP")
            .arg("raw")
            .arg("me")
            .arg("COUNT")
            .arg(256)
            .arg("BLOCK")
            .arg(1000)
            .arg("STREAMS")
            .arg(log)
            .arg(">")
            .query_async(&mut reader)
            .await
            .expect("XREADGROUP");
        let Some(reply) = reply else { continue };
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

pub(crate) async fn both(server: &Server, topic: &Topic, count: u64) -> Duration {
    let log = Server::log(topic);
    let mut reader = connect(server).await;
    group(&mut reader, &log).await;
    let acks = connect(server).await;
    let began = Instant::now();
    let reading = read(reader, acks, &log, count, |_| {});
    tokio::join!(publish_all(server, topic, count, 200), reading);
    began.elapsed()
}

pub(crate) async fn latencies(server: &Server, topic: &Topic, span: Duration) -> Vec<Duration> {
    let log = Server::log(topic);
    let mut reader = connect(server).await;
    group(&mut reader, &log).await;
    let acks = connect(server).await;
    let count = span.as_millis() as u64;
    let (epoch, mut seen) = (Instant::now(), Vec::with_capacity(count as usize));
    let mut publisher = connect(server).await;
    let (log2, pace) = (log.clone(), async move {
        let mut ticks = tokio::time::interval(Duration::from_millis(1));
        for _ in 0..count {
            ticks.tick().await;
            let order = Order::new(epoch.elapsed().as_nanos() as u64, 200);
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

#[derive(Clone, Copy, Debug)]
pub(crate) enum Work {
    Get,
    Set,
    Incr,
    Cas,
}

pub(crate) async fn kv(server: &Server, work: Work, count: u64, tasks: u64) -> Duration {
    let script = Arc::new(Script::new(
        "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2]) return 1 end return 0",
    ));
    let began = Instant::now();
    let mut running = tokio::task::JoinSet::new();
    let total = Arc::new(AtomicU64::new(0));
    for task in 0..tasks {
        // As many connections as the pool has: one per task.
        let mut connection = connect(server).await;
        let (script, total) = (Arc::clone(&script), Arc::clone(&total));
        running.spawn(async move {
            let key = format!("raw-{task}");
            let value = rmp_serde::to_vec_named(&Order::new(1, 200)).expect("encodes");
            redis::cmd("DEL")
                .arg(&key)
                .exec_async(&mut connection)
                .await
                .expect("DEL");
            if !matches!(work, Work::Incr) {
                redis::cmd("SET")
                    .arg(&key)
                    .arg(&value)
                    .exec_async(&mut connection)
                    .await
                    .expect("SET");
            }
            for _ in 0..count / tasks {
                match work {
                    Work::Get => {
                        let bytes: Vec<u8> = redis::cmd("GET")
                            .arg(&key)
                            .query_async(&mut connection)
                            .await
                            .expect("GET");
                        let order: Order = rmp_serde::from_slice(&bytes).expect("decodes");
                        total.fetch_add(order.id, Ordering::Relaxed);
                    }
                    Work::Set => {
                        let value = rmp_serde::to_vec_named(&Order::new(1, 200)).expect("encodes");
                        redis::cmd("SET")
                            .arg(&key)
                            .arg(value)
                            .exec_async(&mut connection)
                            .await
                            .expect("SET");
                    }
                    Work::Incr => {
                        let _: i64 = redis::cmd("INCRBY")
                            .arg(&key)
                            .arg(1)
                            .query_async(&mut connection)
                            .await
                            .expect("INCRBY");
                    }
                    Work::Cas => {
                        let next = rmp_serde::to_vec_named(&Order::new(1, 200)).expect("encodes");
                        let done: u64 = script
                            .key(&key)
                            .arg(&value)
                            .arg(next)
                            .invoke_async(&mut connection)
                            .await
                            .expect("a script");
                        assert_eq!(done, 1);
                    }
                }
            }
        });
    }
    running.join_all().await;
    began.elapsed()
}
