//! Operators' settings of subscriptions.

use std::time::Duration;

use redstart::container::Config;
use redstart::extract::Payload;
use redstart::memory::MemoryStore;
use redstart::{Container, Delivery, Envelope, SubscribeOptions, Topic};

async fn container(subscriptions: &str) -> Container {
    let text = format!(r#"{{"service": "billing", "subscriptions": {subscriptions}}}"#);
    let config: Config = serde_json::from_str(&text).unwrap();
    let builder = Container::builder().with_memory(MemoryStore::new());
    builder
        .with_config(config)
        .unwrap()
        .connect()
        .await
        .unwrap()
}

#[tokio::test]
async fn a_time_limit_and_attempts_of_the_configuration_win_over_code() {
    let settings = r#"{"orders/billing": {"handler_timeout": "20ms", "max_attempts": 1}}"#;
    let container = container(settings).await;
    let orders = Topic::new("orders").unwrap();
    let options = SubscribeOptions::new().without_handler_timeout();
    let handler = |_: Payload<u32>, _: Delivery| std::future::pending::<()>();
    let bus = container.bus();
    bus.subscribe_with(&orders, options, handler).await.unwrap();
    let envelope = Envelope::new("n", &1).unwrap();
    bus.publish(&orders, &envelope).await.unwrap();
    let group = redstart::Group::new("billing").unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while container
        .topics()
        .group(&orders, &group)
        .await
        .map_or(0, |one| one.dead)
        == 0
    {
        assert!(
            std::time::Instant::now() < deadline,
            "the handler still hangs"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    container.shutdown(Duration::from_secs(10)).await;
}

#[tokio::test]
async fn a_value_out_of_bounds_refuses_the_subscription() {
    let container = container(r#"{"orders": {"concurrency": 0}}"#).await;
    let orders = Topic::new("orders").unwrap();
    let handler = |_: Payload<u32>, _: Delivery| async {};
    let error = container
        .bus()
        .subscribe(&orders, handler)
        .await
        .unwrap_err();
    assert_eq!(
        format!("{error:?}"),
        "subscribe \"orders\": the options break a rule; operators set concurrency = 0 by \
         subscriptions.\"orders\"\n\nCaused by:\n    subscribe: the concurrency must be 1 to 10,000"
    );
    let in_code = SubscribeOptions::new().with_concurrency(0);
    let clicks = Topic::new("clicks").unwrap();
    let bus = container.bus();
    let refused = bus.subscribe_with(&clicks, in_code, handler).await;
    let error = refused.unwrap_err().to_string();
    assert!(!error.contains("operators"), "{error}");
    container.bus().subscribe(&clicks, handler).await.unwrap();
    container.shutdown(Duration::from_secs(10)).await;
}
