//! A batch handler that is subscribed without a router.
//!
//! error: a handler cannot take `Batch<Placed>`
//! label: `Batch<Placed>` is neither a message nor an extractor
//! note: a `Batch<T>` goes to a handler of `Router::on_batch`

use redstart::{Batch, Bus, Error, Message, Topic};

#[derive(serde::Deserialize, serde::Serialize)]
pub struct Placed {
    pub id: u32,
}

impl Message for Placed {
    const TYPE: &'static str = "order.placed";
}

async fn bill(_: Batch<Placed>) {}

pub async fn run(bus: Bus) -> Result<(), Error> {
    bus.subscribe(&Topic::new("orders")?, bill).await?;
    Ok(())
}
