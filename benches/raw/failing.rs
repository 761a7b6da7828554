//! Redriving by hand.

use redis::streams::StreamRangeReply;

use super::connect;
use crate::meter::{Meter, Spent};
use crate::server::Server;

/// Moves records from one place to another: reads 500, and pipelines what each takes. A crash in
/// between would leave both, and nothing is counted.
pub(crate) async fn redrive(server: &Server, dead: &str, redo: &str, count: usize) -> Spent {
    let bodies = format!("{dead}:body");
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
        let ids: Vec<&String> = page.ids.iter().map(|entry| &entry.id).collect();
        let records: Vec<Vec<u8>> = redis::cmd("HMGET")
            .arg(&bodies)
            .arg(&ids)
            .query_async(&mut connection)
            .await
            .expect("HMGET");
        let mut pipeline = redis::pipe();
        for record in &records {
            pipeline
                .cmd("XADD")
                .arg(redo)
                .arg("*")
                .arg("parcel")
                .arg(record)
                .ignore();
        }
        pipeline.cmd("XDEL").arg(dead).arg(&ids).ignore();
        pipeline.cmd("HDEL").arg(&bodies).arg(&ids).ignore();
        pipeline.exec_async(&mut connection).await.expect("moved");
        moved += page.ids.len();
    }
    let spent = meter.stop();
    assert_eq!(moved, count);
    spent
}
