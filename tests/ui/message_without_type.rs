//! A payload that is no message.
//!
//! error: a handler cannot take `Placed`
//! label: `Placed` is neither a message nor an extractor
//! note: `impl Message for Placed { const TYPE: &'static str = "order.placed"; }`

use redstart::{Bus, Error, Topic};

#[derive(serde::Deserialize)]
pub struct Placed;

async fn bill(_: Placed) {}

pub async fn run(bus: Bus) -> Result<(), Error> {
    bus.subscribe(&Topic::new("orders")?, bill).await?;
    Ok(())
}
