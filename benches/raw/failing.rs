//! Redriving by hand.

use std::time::{Duration, Instant};

use redis::streams::StreamRangeReply;

use super::connect;
use crate::meter::{Meter, Spent};
use crate::server::Server;

/// Moves records from one place to another: reads 500, and pipelines an XADD, an XDEL and an HDEL for
/// each. A crash in between would leave a message in both.
pub(crate) async fn redrive(
    server: &Server,
    dead: &str,
    bodies: &str,
    redo: &str,
    count: usize,
) -> Spent {
    let mut connection = connect(server).await;
    let meter = Meter::start(server);
    let mut moved = 0;
    loop {
        let page: StreamRangeReply = redis::cmd("XRANGE")
            .arg(dead)
            .arg("-")
            .arg("+")
            .arg("COUNT")
            .arg(500)
            .query_async(&mut connection)
            .await
            .expect("XRANGE");
        if page.ids.is_empty() {
            break;
        }
        let ids: Vec<&str> = page.ids.iter().map(|entry| entry.id.as_str()).collect();
        let records: Vec<Vec<u8>> = redis::cmd("HMGET")
            .arg(bodies)
            .arg(&ids)
            .query_async(&mut connection)
            .await
            .expect("HMGET");
        let mut pipeline = redis::pipe();
        for (id, record) in ids.iter().zip(records) {
            pipeline
                .cmd("XADD")
                .arg(redo)
                .arg("*")
                .arg("parcel")
                .arg(record)
                .ignore();
            pipeline.cmd("XDEL").arg(dead).arg(id).ignore();
            pipeline.cmd("HDEL").arg(bodies).arg(id).ignore();
        }
        pipeline.exec_async(&mut connection).await.expect("moved");
        moved += page.ids.len();
    }
    let spent = meter.stop();
    assert_eq!(moved, count);
    spent
}

/// Reads a whole hash.
pub(crate) async fn timed_hash(server: &Server, key: &str) -> Duration {
    let mut connection = connect(server).await;
    let began = Instant::now();
    let fields: Vec<(String, String)> = redis::cmd("HGETALL")
        .arg(key)
        .query_async(&mut connection)
        .await
        .expect("HGETALL");
    assert!(!fields.is_empty());
    began.elapsed()
}

/// Reads the first entries of a stream, or a thousand at a time all of them.
pub(crate) async fn timed_range(server: &Server, key: &str, most: Option<usize>) -> Duration {
    let mut connection = connect(server).await;
    let began = Instant::now();
    let mut from = "-".to_owned();
    loop {
        let page: redis::Value = redis::cmd("XRANGE")
            .arg(key)
            .arg(&from)
            .arg("+")
            .arg("COUNT")
            .arg(most.unwrap_or(1000))
            .query_async(&mut connection)
            .await
            .expect("XRANGE");
        let redis::Value::Array(entries) = page else {
            panic!("no entries");
        };
        let Some(redis::Value::Array(last)) = entries.last() else {
            return began.elapsed();
        };
        let redis::Value::BulkString(id) = &last[0] else {
            panic!("no id");
        };
        from = format!("({}", String::from_utf8_lossy(id));
        if most.is_some() {
            return began.elapsed();
        }
    }
}
