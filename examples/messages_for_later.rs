//! Shows messages for later: one that is put off, one that is cancelled, and one that arrives.
//!
//! Runs in memory, on a clock that the program sets.
//!
//! Output:
//!
//! ```text
//! order 7: reminder in 24 hours
//! order 7: put off to 48 hours
//! order 8: paid, reminder cancelled
//! two days later: order 7 is unpaid
//! ```

use std::time::Duration;

use redstart::memory::{Clock as _, ManualClock, MemoryStore, SystemClock};
use redstart::schedules::{ScheduleId, ScheduleOptions, When};
use redstart::{Container, Envelope, Error, Group, Message, Topic};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

const REMINDERS: Topic = Topic::from_static("reminders");
const DAY: Duration = Duration::from_secs(86_400);

#[derive(Deserialize, Serialize)]
struct Unpaid {
    order: u32,
}

impl Message for Unpaid {
    const TYPE: &'static str = "order.unpaid";
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let clock = ManualClock::new(SystemClock.now());
    let container = Container::builder()
        .with_memory(MemoryStore::with_clock(clock.clone()))
        .with_service(Group::new("mailer")?)
        .connect()
        .await?;
    let bus = container.bus();
    for order in [7, 8] {
        let reminder = Envelope::new(Unpaid::TYPE, &Unpaid { order })?;
        let named = ScheduleOptions::new().with_id(id(order)?);
        bus.publish_after_with(DAY, &REMINDERS, &reminder, named)
            .await?;
    }
    println!("order 7: reminder in 24 hours");

    bus.reschedule(&REMINDERS, &id(7)?, When::After(2 * DAY))
        .await?;
    println!("order 7: put off to 48 hours");
    if bus.cancel(&REMINDERS, &id(8)?).await? {
        println!("order 8: paid, reminder cancelled");
    }

    let (sender, mut reminded) = mpsc::unbounded_channel();
    let remind = move |unpaid: Unpaid| {
        let _ = sender.send(unpaid.order);
        async {}
    };
    bus.subscribe(&REMINDERS, remind).await?;
    clock.advance(2 * DAY);
    if let Some(order) = reminded.recv().await {
        println!("two days later: order {order} is unpaid");
    }
    container.shutdown(Duration::from_secs(5)).await;
    Ok(())
}

/// The id under which the reminder of an order waits.
fn id(order: u32) -> Result<ScheduleId, Error> {
    ScheduleId::new(format!("order-{order}"))
}
