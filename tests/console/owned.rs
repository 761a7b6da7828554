//! The page of an owned group.

use std::time::Duration;

use redstart::extract::Payload;
use redstart::ownership::Ownership;
use redstart::{Delivery, Envelope, Outcome, RetryPolicy, SubscribeOptions};

use crate::site::{console, get, in_memory};
use crate::support::{PATIENCE, group, topic, until};

#[tokio::test]
async fn an_owned_group_shows_its_owners_and_the_keys_that_wait() {
    let container = in_memory().await;
    let (orders, billing) = (topic("orders"), group("billing"));
    let options = SubscribeOptions::new()
        .with_group(billing.clone())
        .with_ownership(Ownership::new())
        .with_retry(RetryPolicy::fixed(Duration::from_secs(86_400)));
    let handler = |_: Payload<u32>, _: Delivery| async { Outcome::retry("card <declined>") };
    let bus = container.bus();
    let subscription = bus.subscribe_with(&orders, options, handler).await.unwrap();
    let envelope = Envelope::new("order.placed", &1).unwrap().with_key("c<7>");
    bus.publish(&orders, &envelope).await.unwrap();
    until("the key to wait", async || {
        let topics = container.topics();
        let all = topics.owned_partitions(&orders, &billing).await.unwrap();
        (all[0].held_back == 1).then_some(())
    })
    .await;
    let console = console(&container);
    let page = "/topics/orders/groups/billing";
    let owner = subscription.consumer().to_string();
    get(&console, page).await.ok().shows(&[
        "owned",
        "1 partition, each with one owner",
        &owner,
        "c&lt;7&gt;",
        "card &lt;declined&gt;",
        "in 23 h",
    ]);
    subscription.unsubscribe(PATIENCE).await;
    let shown = get(&console, page)
        .await
        .ok()
        .shows(&["no owner", "c&lt;7&gt;"]);
    assert!(!shown.text.contains(&owner), "{}", shown.text);
}
