//! A batch handler that returns a boolean.
//!
//! error: a batch handler cannot return `bool`
//! label: this says nothing about how the messages of the batch end
//! note: return `()` or a `Result` for all messages, or a `Vec` with one outcome for each message

use redstart::{Batch, Message, Router};

#[derive(serde::Deserialize, serde::Serialize)]
pub struct Placed {
    pub id: u32,
}

impl Message for Placed {
    const TYPE: &'static str = "order.placed";
}

async fn store(_: Batch<Placed>) -> bool {
    true
}

pub fn router() -> Router {
    Router::new().on_batch(store)
}
