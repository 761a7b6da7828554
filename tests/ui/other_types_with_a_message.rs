//! A handler of all other types that takes a message.
//!
//! error: the handler of all other types cannot take a message
//! label: a message has one type
//! note: take `Delivery`, `Envelope` or `Payload<T>` instead

use redstart::{Message, Router};

#[derive(serde::Deserialize, serde::Serialize)]
pub struct Placed {
    pub id: u32,
}

impl Message for Placed {
    const TYPE: &'static str = "order.placed";
}

async fn bill(_: Placed) {}

pub fn router() -> Router {
    Router::new().otherwise(bill)
}
