//! A part of the state that is not taken as `State`.
//!
//! error: a handler cannot take `Pool`
//! label: `Pool` is neither a message nor an extractor

use redstart::{Bus, Error, Message, Topic};

#[derive(serde::Deserialize, serde::Serialize)]
pub struct Placed {
    pub id: u32,
}

impl Message for Placed {
    const TYPE: &'static str = "order.placed";
}

#[derive(Clone)]
pub struct Pool;

async fn bill(_: Pool, _: Placed) {}

pub async fn run(bus: Bus) -> Result<(), Error> {
    bus.subscribe(&Topic::new("orders")?, bill).await?;
    Ok(())
}
