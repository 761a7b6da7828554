//! Batches on the store in memory.

use redstart::{Container, memory::MemoryStore};

use crate::support::{batches, finish, group};

/// Two containers on one store.
async fn on_one_store() -> [Container; 2] {
    let store = MemoryStore::new();
    let container = async || {
        let builder = Container::builder().with_service(group("billing"));
        builder.with_memory(store.clone()).connect().await.unwrap()
    };
    [container().await, container().await]
}

#[tokio::test]
async fn batches_are_full_or_have_waited() {
    let [container, _] = on_one_store().await;
    batches::are_full_or_have_waited(&container).await;
    finish(container).await;
}

#[tokio::test]
async fn batches_settle_each_message_separately() {
    let [container, _] = on_one_store().await;
    batches::settle_each_message_by_itself(&container).await;
    finish(container).await;
}

#[tokio::test]
async fn batches_fail_as_a_whole() {
    let [container, _] = on_one_store().await;
    batches::fail_as_a_whole(&container).await;
    finish(container).await;
}

#[tokio::test]
async fn batches_panic_without_the_undecodable() {
    let [container, _] = on_one_store().await;
    batches::panic_without_the_undecodable(&container).await;
    finish(container).await;
}

#[tokio::test]
async fn batches_release_what_they_gathered() {
    let [container, _] = on_one_store().await;
    batches::give_back_what_was_gathered(&container).await;
    finish(container).await;
}

#[tokio::test]
async fn batches_run_at_once() {
    let [container, _] = on_one_store().await;
    batches::run_at_once(&container).await;
    finish(container).await;
}

#[tokio::test]
async fn batches_keep_their_leases() {
    let [one, other] = on_one_store().await;
    batches::keep_their_leases(&one, &other).await;
    finish(one).await;
    finish(other).await;
}
