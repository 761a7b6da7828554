//! The cost of redriving a dead letter.

use redstart::extract::Payload;
use redstart::{
    Delivery, Outcome, SubscribeOptions,
    dead_letters::{DeadLetterFilter, Sweep},
};

use crate::proxy::through_proxy;
use crate::support::{PATIENCE, finish, group, status, topic, until};
use crate::{ALONE, MESSAGES, assert_each, publish};

/// Each head is read once, by the search, and ten go at once.
#[tokio::test]
async fn a_redriven_dead_letter_is_a_tenth_of_a_command() {
    let _alone = ALONE.lock().await;
    let (_server, proxy, container) = through_proxy().await;
    let (orders, billing) = (topic("orders"), group("billing"));
    publish(&container, &orders, MESSAGES).await;
    let options = SubscribeOptions::new()
        .with_concurrency(16)
        .with_prefetch(1000);
    let handler =
        |_: Payload<String>, _: Delivery| std::future::ready(Outcome::dead_letter("no price"));
    let bus = container.bus();
    let subscription = bus.subscribe_with(&orders, options, handler).await.unwrap();
    until("all to be dead", async || {
        let dead = status(&container, &orders, &billing).await.dead;
        (dead == MESSAGES).then_some(())
    })
    .await;
    let _ = subscription.unsubscribe(PATIENCE).await;
    let before = proxy.seen();
    let sweep = Sweep::redrive(DeadLetterFilter::default());
    let letters = container.dead_letters();
    let swept = letters.sweep(&orders, &billing, sweep, &|_| {}).await;
    let spent = proxy.seen() - before;
    assert_eq!(swept.unwrap().progress.taken, MESSAGES);
    println!("{spent:?}");
    assert_each("searches", spent.of("XRANGE"), 0.006);
    assert_each("calls", spent.of("EVALSHA"), 0.11);
    assert_each("commands", spent.commands(), 0.12);
    assert_each("bytes", spent.bytes, 120.0);
    finish(container).await;
}
