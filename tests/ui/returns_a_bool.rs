//! A handler that returns a boolean.
//!
//! error: a handler cannot return `bool`
//! label: this says nothing about how the delivery ends

use redstart::{Bus, Error, Message, Topic};

#[derive(serde::Deserialize, serde::Serialize)]
pub struct Placed {
    pub id: u32,
}

impl Message for Placed {
    const TYPE: &'static str = "order.placed";
}

async fn bill(_: Placed) -> bool {
    true
}

pub async fn run(bus: Bus) -> Result<(), Error> {
    bus.subscribe(&Topic::new("orders")?, bill).await?;
    Ok(())
}
