//! A payload that is sent and is no message.
//!
//! error: `Placed` has no message type
//! label: not a `Message`
//! note: name its type: `impl Message for Placed { const TYPE: &'static str = "order.placed"; }`

use redstart::{Bus, Error, Topic};

#[derive(serde::Serialize)]
pub struct Placed;

pub async fn run(bus: Bus) -> Result<(), Error> {
    bus.send(&Topic::new("orders")?, &Placed).await?;
    Ok(())
}
