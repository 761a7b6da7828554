//! The cost of an idle subscription.

use std::time::{Duration, Instant};

use redstart::Delivery;
use redstart::extract::Payload;

use crate::ALONE;
use crate::proxy::through_proxy;
use crate::support::{finish, topic};

const SUBSCRIPTIONS: u32 = 20;

#[tokio::test]
async fn nothing_is_asked_more_often_than_once_a_second() {
    let _alone = ALONE.lock().await;
    let (_server, proxy, container) = through_proxy().await;
    for number in 0..SUBSCRIPTIONS {
        let handler = |_: Payload<()>, _: Delivery| std::future::ready(());
        let topic = topic(&format!("orders-{number}"));
        let _ = container.bus().subscribe(&topic, handler).await.unwrap();
    }
    let (before, began) = (proxy.seen(), Instant::now());
    tokio::time::sleep(Duration::from_secs(6)).await;
    let spent = proxy.seen() - before;
    // A second more for what falls to both ends of the time.
    let seconds = began.elapsed().as_secs_f64() + 1.0;
    let each = spent.commands() as f64 / f64::from(SUBSCRIPTIONS) / seconds;
    println!("{each:.2} commands a second and subscription: {spent:?}");
    // The look for expired leases every second, and a quarter of everything else.
    assert!(each <= 2.0, "{each:.2} commands a second: {spent:?}");
    finish(container).await;
}
