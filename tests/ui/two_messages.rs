//! A function that takes two messages.
//!
//! error: this handler takes more than one message
//! label: a delivery brings one message
//! note: make the other arguments extractors

use redstart::{Bus, Error, Message, Topic};

#[derive(serde::Deserialize, serde::Serialize)]
pub struct Placed {
    pub id: u32,
}

impl Message for Placed {
    const TYPE: &'static str = "order.placed";
}

#[derive(serde::Deserialize)]
pub struct Cancelled;

impl Message for Cancelled {
    const TYPE: &'static str = "order.cancelled";
}

async fn bill(_: Placed, _: Cancelled) {}

pub async fn run(bus: Bus) -> Result<(), Error> {
    bus.subscribe(&Topic::new("orders")?, bill).await?;
    Ok(())
}
