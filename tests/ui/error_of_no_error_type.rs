//! An error type that does not implement `Error`.
//!
//! error: a handler cannot fail with `ShopError`
//! label: `ShopError` is not an error type
//! note: any type that implements `std::error::Error`
//! note: an error that decides how the delivery ends

use redstart::{Bus, Error, Message, Topic};

#[derive(serde::Deserialize, serde::Serialize)]
pub struct Placed {
    pub id: u32,
}

impl Message for Placed {
    const TYPE: &'static str = "order.placed";
}

pub struct ShopError;

async fn bill(_: Placed) -> Result<(), ShopError> {
    Err(ShopError)
}

pub async fn run(bus: Bus) -> Result<(), Error> {
    bus.subscribe(&Topic::new("orders")?, bill).await?;
    Ok(())
}
