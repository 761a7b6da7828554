//! A function with state that is subscribed without a router.
//!
//! error: a handler cannot take `State<Pool>`
//! label: `State<Pool>` is neither a message nor an extractor
//! note: `State<T>` is taken from the router's state, here `()`

use redstart::{Bus, Error, Message, State, Topic};

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

pub async fn run(bus: Bus) -> Result<(), Error> {
    bus.subscribe(&Topic::new("orders")?, bill).await?;
    Ok(())
}
