//! A batch handler that takes a `Vec`.
//!
//! error: a batch handler cannot take `(Vec<Placed>,)`
//! label: expected `Batch<T>`, alone or after `State<…>`
//! note: `async fn store(State(pool): State<Pool>, batch: Batch<Click>)`

use redstart::{Message, Router};

#[derive(serde::Deserialize, serde::Serialize)]
pub struct Placed {
    pub id: u32,
}

impl Message for Placed {
    const TYPE: &'static str = "order.placed";
}

async fn store(_: Vec<Placed>) {}

pub fn router() -> Router {
    Router::new().on_batch(store)
}
