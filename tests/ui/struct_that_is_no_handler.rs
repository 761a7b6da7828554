//! A struct that does not implement `Handler`.
//!
//! error: `Billing` cannot be subscribed
//! label: expected an async function, a `Handler` or a `Router`
//! note: a struct can be subscribed where it implements `Handler`

use redstart::{Bus, Error, Topic};

pub struct Billing;

pub async fn run(bus: Bus) -> Result<(), Error> {
    bus.subscribe(&Topic::new("orders")?, Billing).await?;
    Ok(())
}
