//! Shows a batch handler: one insert for many messages, and an outcome for each.
//!
//! Output:
//!
//! ```text
//! inserted 3 of 4 pages in one call
//! dead letter: rejected, no path
//! ```

use std::time::Duration;

use redstart::{
    Batch, Container, Error, Group, Message, Outcome, Router, State, SubscribeOptions, Topic,
};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

const CLICKS: Topic = Topic::from_static("clicks");

#[derive(Deserialize, Serialize)]
struct Click {
    page: String,
}

impl Message for Click {
    const TYPE: &'static str = "click";
}

/// A real sink holds a connection pool in place of this sender.
#[derive(Clone)]
struct Sink {
    inserts: mpsc::UnboundedSender<(usize, usize)>,
}

async fn insert(State(sink): State<Sink>, clicks: Batch<Click>) -> Vec<Outcome> {
    let outcomes: Vec<Outcome> = clicks.messages().iter().map(check).collect();
    let good = outcomes.iter().filter(|one| **one == Outcome::Ack).count();
    // A real sink writes all good messages with one statement here.
    let _ = sink.inserts.send((good, clicks.len()));
    outcomes
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let container = Container::builder()
        .with_memory(redstart::memory::MemoryStore::new())
        .with_service("sink")
        .connect()
        .await?;
    let bus = container.bus();
    let clicks = ["/cart", "/pay", "help", "/done"].map(|page| Click { page: page.into() });
    for sent in bus.send_all(&CLICKS, &clicks).await {
        sent?;
    }

    let (inserts, mut inserted) = mpsc::unbounded_channel();
    let router = Router::with_state(Sink { inserts }).on_batch(insert);
    // The handler is called with four messages, or with fewer when ten seconds have passed.
    let options = SubscribeOptions::new()
        .with_concurrency(1)
        .with_batch(4, Duration::from_secs(10));
    bus.subscribe_with(&CLICKS, options, router).await?;

    if let Some((good, all)) = inserted.recv().await {
        println!("inserted {good} of {all} pages in one call");
    }
    // The shutdown writes all outcomes.
    container.shutdown(Duration::from_secs(10)).await;
    let dead_letters = container.dead_letters();
    for cause in dead_letters.causes(&CLICKS, &Group::new("sink")?).await? {
        println!("dead letter: {}, {}", cause.reason, cause.fingerprint);
    }
    Ok(())
}

fn check(click: &Click) -> Outcome {
    match click.page.starts_with('/') {
        true => Outcome::Ack,
        false => Outcome::dead_letter("no path"),
    }
}
