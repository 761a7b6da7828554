//! The raw loop: plain redis-rs, pipelined, COUNT 256, one XACK per batch, no runtime.

mod consume;
mod failing;
mod kv;
mod publish;

use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::server::Server;
use crate::work::Order;

pub(crate) use consume::{both, consume, idle, latencies};
pub(crate) use failing::{redrive, timed_hash, timed_range};
pub(crate) use kv::kv;
pub(crate) use publish::{publish_all, publish_tasks};

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
