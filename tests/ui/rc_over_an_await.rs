//! A value that is not `Send` and lives across an await.
//!
//! error: future cannot be sent between threads safely
//! label: future returned by `bill` is not `Send`

use std::rc::Rc;

use redstart::{Bus, Error, Message, Topic};

#[derive(serde::Deserialize, serde::Serialize)]
pub struct Placed {
    pub id: u32,
}

impl Message for Placed {
    const TYPE: &'static str = "order.placed";
}

async fn bill(order: Placed) {
    let id = Rc::new(order.id);
    std::future::ready(()).await;
    println!("{id}");
}

pub async fn run(bus: Bus) -> Result<(), Error> {
    bus.subscribe(&Topic::new("orders")?, bill).await?;
    Ok(())
}
