//! Messages for later that a process sets which ends at once, and a subscription that looks every five
//! seconds.

use std::time::{Duration, Instant};

use redstart::container::ContainerBuilder;
use redstart::extract::Payload;
use redstart::topics::Reading;
use redstart::{Container, Envelope, SubscribeOptions, Topic};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::{finish, next, until};

const ROUNDS: u32 = 4;
/// A look alone takes longer for each round but the first.
const LOOK: Duration = Duration::from_secs(4);

/// Checks that a bell brought the messages of several rounds, and not the looks. Looks would make every
/// round but the first slow; a busy machine makes one slow, not most of them.
pub(crate) fn assert_rung(took: &[Duration]) {
    let later = &took[1..];
    let slow = later.iter().filter(|took| **took > LOOK).count();
    assert!(2 * slow < later.len(), "{took:?}: looks brought them");
}

/// A subscription on a connection of its own.
pub(crate) struct Soon {
    topic: Topic,
    received: UnboundedReceiver<u32>,
}

impl Soon {
    pub(crate) async fn subscribe(container: &Container, topic: Topic) -> Self {
        let (sender, received) = unbounded_channel();
        let handler = move |Payload(number): Payload<u32>| {
            let _ = sender.send(number);
            async {}
        };
        let options = SubscribeOptions::new().with_reading(Reading::Own);
        let bus = container.bus();
        let _ = bus.subscribe_with(&topic, options, handler).await.unwrap();
        Self { topic, received }
    }

    /// Sets messages one after the other and checks that no look has brought them. `new` prepares the
    /// container that sets one.
    pub(crate) async fn come_at_their_time(&mut self, new: impl Fn() -> ContainerBuilder) {
        let mut took = Vec::new();
        for round in 0..ROUNDS {
            let began = Instant::now();
            let ending = new().connect().await.unwrap();
            until("a message to be scheduled", async || {
                let (bus, soon) = (ending.bus(), Duration::from_millis(50));
                let envelope = Envelope::new("n", &round).unwrap();
                let scheduled = bus.publish_after(soon, &self.topic, &envelope);
                scheduled.await.ok()
            })
            .await;
            finish(ending).await;
            // A repeated one may come twice.
            while next(&mut self.received).await != round {}
            took.push(began.elapsed());
        }
        assert_rung(&took);
    }
}
