//! A message that cannot be decoded.
//!
//! error: a handler cannot take `Placed`
//! label: `Placed` is neither a message nor an extractor
//! note: a message is taken by value, derives `serde::Deserialize` and has a type

use redstart::{Bus, Error, Message, Topic};

pub struct Placed;

impl Message for Placed {
    const TYPE: &'static str = "order.placed";
}

async fn bill(_: Placed) {}

pub async fn run(bus: Bus) -> Result<(), Error> {
    bus.subscribe(&Topic::new("orders")?, bill).await?;
    Ok(())
}
