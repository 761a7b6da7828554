//! An option of an extractor that is always there.
//!
//! error: a handler cannot take `Option<Delivery>`
//! label: `Option<Delivery>` is neither a message nor an extractor

use redstart::{Bus, Delivery, Error, Message, Topic};

#[derive(serde::Deserialize, serde::Serialize)]
pub struct Placed {
    pub id: u32,
}

impl Message for Placed {
    const TYPE: &'static str = "order.placed";
}

async fn bill(_: Placed, _: Option<Delivery>) {}

pub async fn run(bus: Bus) -> Result<(), Error> {
    bus.subscribe(&Topic::new("orders")?, bill).await?;
    Ok(())
}
