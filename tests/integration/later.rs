//! Messages for later on a server: set by one process, brought by another.

use std::time::Duration;

use redstart::extract::Payload;
use redstart::schedules::{ScheduleOptions, When};
use redstart::topics::Reading;
use redstart::{Envelope, SubscribeOptions};
use tokio::sync::mpsc::unbounded_channel;

use crate::shared::connections;
use crate::support::{Server, container, finish, next, publish, topic, until};

const DAY: Duration = Duration::from_secs(86_400);

/// The promoter of the subscription has looked, and looks again in an hour unless the server tells it
/// of the change.
#[tokio::test]
async fn a_message_that_an_ended_process_scheduled_rings() {
    let server = Server::start();
    let listening = container(&server).await;
    let (sender, mut received) = unbounded_channel();
    let options = SubscribeOptions::new().with_reading(Reading::Shared);
    let handler = move |Payload(number): Payload<u32>| {
        let _ = sender.send(number);
        async {}
    };
    let orders = topic("orders");
    let bus = listening.bus();
    let _subscription = bus.subscribe_with(&orders, options, handler).await.unwrap();
    for number in 0..5_u32 {
        let ending = container(&server).await;
        let others: Vec<Envelope> = (0..200)
            .map(|other| Envelope::new("n", &other).unwrap())
            .collect();
        let bus = ending.bus();
        let put = bus
            .publish_later(&orders, &others, When::After(DAY), ScheduleOptions::new())
            .await;
        assert!(put.iter().all(Result::is_ok));
        let envelope = Envelope::new("n", &(1000 + number)).unwrap();
        let soon = Duration::from_millis(20 * u64::from(number));
        bus.publish_after(soon, &orders, &envelope).await.unwrap();
        finish(ending).await;
        assert_eq!(next(&mut received).await, 1000 + number);
    }
    let waiting = listening.topics().get(&orders).await.unwrap().unwrap();
    assert_eq!(waiting.later, 1000);
    finish(listening).await;
}

/// A listening connection costs publishers, so a subscription has it only where it needs it.
#[tokio::test]
async fn a_subscription_listens_once_its_topic_keeps_messages_for_later() {
    let server = Server::start();
    let (container, ending) = (container(&server).await, container(&server).await);
    let (sender, mut received) = unbounded_channel();
    let orders = topic("orders");
    let handler = move |Payload(number): Payload<u32>| {
        let _ = sender.send(number);
        async {}
    };
    let bus = container.bus();
    let _subscription = bus.subscribe(&orders, handler).await.unwrap();
    publish(&container, &orders, 0..1).await;
    assert_eq!(next(&mut received).await, 0);
    assert_eq!(connections(&server, "redstart:bell").len(), 0);
    let (late, soon) = (Envelope::new("n", &1), Envelope::new("n", &2));
    let bus = ending.bus();
    bus.publish_after(DAY, &orders, &late.unwrap())
        .await
        .unwrap();
    until("a listening connection", async || {
        (connections(&server, "redstart:bell").len() == 1).then_some(())
    })
    .await;
    let now = Duration::ZERO;
    bus.publish_after(now, &orders, &soon.unwrap())
        .await
        .unwrap();
    finish(ending).await;
    assert_eq!(next(&mut received).await, 2);
    finish(container).await;
}
