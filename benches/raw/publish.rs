//! Publishing.

use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use redstart::Topic;

use super::{connect, encode};
use crate::meter::{Meter, Spent};
use crate::server::Server;
use crate::work::{Order, batch_of};

pub(crate) async fn publish_all(server: &Server, topic: &Topic, count: u64, size: usize) -> Spent {
    let mut connection = connect(server).await;
    let meter = Meter::start(server);
    publish(&mut connection, &Server::log(topic), count, size).await;
    meter.stop()
}

/// Publishes in batches.
pub(super) async fn publish(
    connection: &mut MultiplexedConnection,
    log: &str,
    count: u64,
    size: usize,
) {
    let batch = batch_of(size);
    let mut next = 0;
    while next < count {
        let end = (next + batch).min(count);
        let mut pipeline = redis::Pipeline::with_capacity(batch as usize);
        for id in next..end {
            pipeline
                .cmd("XADD")
                .arg(log)
                .arg("*")
                .arg("msgpack")
                .arg(encode(Order::new(id, size)));
        }
        let ids: Vec<String> = pipeline.query_async(connection).await.expect("XADD");
        assert_eq!(ids.len() as u64, end - next);
        next = end;
    }
}

pub(crate) async fn publish_tasks(
    server: &Server,
    topic: &Topic,
    count: u64,
    size: usize,
    tasks: u64,
) -> Spent {
    let connection = connect(server).await;
    let log = Arc::new(Server::log(topic));
    let meter = Meter::start(server);
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..tasks {
        let (mut connection, log) = (connection.clone(), Arc::clone(&log));
        running.spawn(async move {
            for id in 0..count / tasks {
                let _: String = redis::cmd("XADD")
                    .arg(&*log)
                    .arg("*")
                    .arg("msgpack")
                    .arg(encode(Order::new(id, size)))
                    .query_async(&mut connection)
                    .await
                    .expect("XADD");
            }
        });
    }
    running.join_all().await;
    meter.stop()
}
