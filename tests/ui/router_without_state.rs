//! A router that was given no state.
//!
//! error: a handler cannot take `State<Pool>`
//! label: `State<Pool>` is neither a message nor an extractor
//! note: `State<T>` is taken from the router's state, here `()`

use redstart::{Message, Router, State};

#[derive(serde::Deserialize, serde::Serialize)]
pub struct Placed {
    pub id: u32,
}

impl Message for Placed {
    const TYPE: &'static str = "order.placed";
}

#[derive(Clone)]
pub struct Pool;

async fn bill(_: State<Pool>, _: Placed) {}

pub fn router() -> Router {
    Router::new().on(bill)
}
