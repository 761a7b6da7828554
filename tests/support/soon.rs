//! Messages for later that a process sets which ends at once, and a subscription that looks every five
//! seconds.

use std::time::{Duration, Instant};

use redstart::container::ContainerBuilder;
use redstart::extract::Payload;
use redstart::topics::Reading;
use redstart::{Container, Envelope, SubscribeOptions, Topic};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::{finish, next, until};

/// Looks alone would take more than four seconds for each but the first.
const ROUNDS: u32 = 4;
const WITHIN: Duration = Duration::from_secs(11);

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
        let began = Instant::now();
        for round in 0..ROUNDS {
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
        }
        let took = began.elapsed();
        assert!(took < WITHIN, "{took:?}: looks brought them");
    }
}
