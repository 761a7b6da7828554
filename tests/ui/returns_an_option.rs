//! A handler that returns an option.
//!
//! error: a handler cannot return `Option<()>`
//! label: this says nothing about how the delivery ends
//! note: return `()`, `Outcome` or `Effects`
//! note: an absent value is not an outcome

use redstart::{Bus, Error, Message, Topic};

#[derive(serde::Deserialize, serde::Serialize)]
pub struct Placed {
    pub id: u32,
}

impl Message for Placed {
    const TYPE: &'static str = "order.placed";
}

async fn bill(_: Placed) -> Option<()> {
    None
}

pub async fn run(bus: Bus) -> Result<(), Error> {
    bus.subscribe(&Topic::new("orders")?, bill).await?;
    Ok(())
}
