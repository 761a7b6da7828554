//! A closure that gives away what it holds at its first call.
//!
//! error: cannot be subscribed
//! label: expected an async function, a `Handler` or a `Router`
//! note: a closure whose future borrows or consumes what it captures can be called once only: take it as `State<T>`

use redstart::{Bus, Error, Message, Topic};

#[derive(serde::Deserialize, serde::Serialize)]
pub struct Placed {
    pub id: u32,
}

impl Message for Placed {
    const TYPE: &'static str = "order.placed";
}

pub async fn run(bus: Bus, name: String) -> Result<(), Error> {
    let bill = move |_: Placed| async move { drop(name) };
    bus.subscribe(&Topic::new("orders")?, bill).await?;
    Ok(())
}
