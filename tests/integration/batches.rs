//! Batches on a server.

use crate::support::{Server, batches, container, finish};

#[tokio::test]
async fn batches_are_full_or_have_waited() {
    let server = Server::start();
    let container = container(&server).await;
    batches::are_full_or_have_waited(&container).await;
    finish(container).await;
}

#[tokio::test]
async fn batches_settle_each_message_separately() {
    let server = Server::start();
    let container = container(&server).await;
    batches::settle_each_message_by_itself(&container).await;
    finish(container).await;
}

#[tokio::test]
async fn batches_fail_as_a_whole() {
    let server = Server::start();
    let container = container(&server).await;
    batches::fail_as_a_whole(&container).await;
    finish(container).await;
}

#[tokio::test]
async fn batches_panic_without_the_undecodable() {
    let server = Server::start();
    let container = container(&server).await;
    batches::panic_without_the_undecodable(&container).await;
    finish(container).await;
}

#[tokio::test]
async fn batches_release_what_they_gathered() {
    let server = Server::start();
    let container = container(&server).await;
    batches::give_back_what_was_gathered(&container).await;
    finish(container).await;
}

#[tokio::test]
async fn batches_run_at_once() {
    let server = Server::start();
    let container = container(&server).await;
    batches::run_at_once(&container).await;
    finish(container).await;
}

#[tokio::test]
async fn batches_keep_their_leases() {
    let server = Server::start();
    let (one, other) = (container(&server).await, container(&server).await);
    batches::keep_their_leases(&one, &other).await;
    finish(one).await;
    finish(other).await;
}
