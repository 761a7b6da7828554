//! A part that the state of the router does not have.
//!
//! error: a handler cannot take `State<Pool>`
//! label: `State<Pool>` is neither a message nor an extractor
//! note: `State<T>` is taken from the router's state, here `App`

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

pub struct App;

async fn bill(_: State<Pool>, _: Placed) {}

pub fn router() -> Router<App> {
    Router::with_state(App).on(bill)
}
