//! Redriving by hand.

use redis::streams::StreamRangeReply;

use super::connect;
use crate::meter::{Meter, Spent};
use crate::server::Server;

/// Moves records from one stream to another: reads 500, and pipelines an XADD and an XDEL for each.
/// A crash between the two would leave both.
pub(crate) async fn redrive(server: &Server, dead: &str, redo: &str, count: usize) -> Spent {
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
        let mut pipeline = redis::pipe();
        for entry in &page.ids {
            let record: Vec<u8> = entry.get("record").expect("a record");
            pipeline
                .cmd("XADD")
                .arg(redo)
                .arg("*")
                .arg("parcel")
                .arg(record)
                .ignore();
            pipeline.cmd("XDEL").arg(dead).arg(&entry.id).ignore();
        }
        pipeline.exec_async(&mut connection).await.expect("moved");
        moved += page.ids.len();
    }
    let spent = meter.stop();
    assert_eq!(moved, count);
    spent
}
