//! A function with too many arguments.
//!
//! error: cannot be subscribed
//! label: expected an async function, a `Handler` or a `Router`
//! note: a handler function is `async`, and takes up to eight arguments by value

use redstart::extract::Attempt;
use redstart::{Bus, Error, Message, Topic};

#[derive(serde::Deserialize, serde::Serialize)]
pub struct Placed {
    pub id: u32,
}

impl Message for Placed {
    const TYPE: &'static str = "order.placed";
}

#[allow(clippy::too_many_arguments)]
async fn bill(
    _: Placed,
    _: Attempt,
    _: Attempt,
    _: Attempt,
    _: Attempt,
    _: Attempt,
    _: Attempt,
    _: Attempt,
    _: Attempt,
) {
}

pub async fn run(bus: Bus) -> Result<(), Error> {
    bus.subscribe(&Topic::new("orders")?, bill).await?;
    Ok(())
}
