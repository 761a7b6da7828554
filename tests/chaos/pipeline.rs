//! A pipeline of three stages, whose counters and messages are exact: each stage counts a message and
//! passes it on in one step with its acknowledgement.

use std::ops::Range;
use std::time::Duration;

use redstart::extract::Payload;
use redstart::store::{Limits, Partition, decode_entry};
use redstart::topics::{Retention, TopicSettings};
use redstart::{
    Container, Delivery, Effects, Envelope, Error, ErrorKind, Outcome, RetryPolicy,
    SubscribeOptions,
};

use crate::history::{Event, Journal};
use crate::support::{group, topic};

/// The topics that the stages read.
pub(crate) const STAGES: [&str; 3] = ["placed", "packed", "shipped"];
/// Where the last stage passes messages on to.
pub(crate) const RECEIVED: &str = "received";
pub(crate) const GROUP: &str = "pipeline";

/// Crashes count as attempts, and no message may die of the faults of a run.
const MAX_ATTEMPTS: u32 = 10_000;
/// How long repeated messages are recognised: longer than a run, whatever happens to the server's clock.
pub(crate) const WINDOW: Duration = Duration::from_secs(20 * 86_400);
const PAGE: usize = 1000;
/// At each stage of a container, so that calls carry the effects of several.
const HANDLERS: usize = 16;

/// What handling a message is like, at every stage.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Plain,
    /// Takes its time.
    Slow,
    /// Fails the first time.
    Flaky,
    /// Replaces a value that others replace, too.
    Shared,
    /// Is passed on a moment later.
    Later,
}

impl Kind {
    fn of(n: u64) -> Self {
        match crate::nature::mixed(n) % 50 {
            0 => Self::Slow,
            1 => Self::Flaky,
            2..=4 => Self::Shared,
            5 | 6 => Self::Later,
            _ => Self::Plain,
        }
    }
}

/// Whether handling a message replaces the value that counts such messages.
pub(crate) fn is_shared(n: u64) -> bool {
    Kind::of(n) == Kind::Shared
}

fn next_of(at: usize) -> &'static str {
    STAGES.get(at + 1).copied().unwrap_or(RECEIVED)
}

/// The keys of a stage's values: how many messages it has handled, their sum, and how many shared ones.
fn keys(stage: &str) -> [String; 3] {
    ["count", "sum", "shared"].map(|what| format!("{stage}:{what}"))
}

/// Creates the topics. They keep every message, so that the messages can be counted at the end.
pub(crate) async fn create(container: &Container) {
    let settings = TopicSettings::default().with_retention(Retention::Count(10_000_000));
    for name in STAGES.into_iter().chain([RECEIVED]) {
        let created = container.topics().create(&topic(name), settings).await;
        created.expect("nothing has gone wrong yet");
    }
}

/// Publishes messages to the first stage, and repeats what failed until each is published. The container
/// recognises repeats within [`WINDOW`].
pub(crate) async fn enter(container: &Container, journal: &Journal, numbers: Range<u64>) {
    let to = topic(STAGES[0]);
    let mut left: Vec<(u64, Envelope)> = numbers
        .map(|n| (n, Envelope::new("parcel", &n).unwrap()))
        .collect();
    while !left.is_empty() {
        let (numbers, envelopes): (Vec<u64>, Vec<Envelope>) = left.into_iter().unzip();
        let results = container.bus().publish_all(&to, &envelopes).await;
        let (mut entered, mut failed) = (Vec::new(), Vec::new());
        for ((n, envelope), result) in numbers.into_iter().zip(envelopes).zip(results) {
            match result {
                Ok(_) => entered.push(Event::Entered { n }),
                Err(_) => failed.push((n, envelope)),
            }
        }
        journal.write_all(entered);
        left = failed;
        if !left.is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// How a stage writes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Writing {
    /// All in one step, with the acknowledgement.
    Effects,
    /// One call after the other.
    Calls,
}

/// Subscribes all stages.
///
/// # Errors
///
/// A stage could not subscribe.
pub(crate) async fn subscribe(
    container: &Container,
    lease: Duration,
    writing: Writing,
) -> Result<(), Error> {
    for (at, on) in STAGES.into_iter().enumerate() {
        let retry = RetryPolicy::fixed(Duration::from_millis(10)).with_max_attempts(MAX_ATTEMPTS);
        let options = SubscribeOptions::new()
            .with_group(group(GROUP))
            .with_concurrency(HANDLERS)
            .with_lease(lease)
            .with_retry(retry);
        let own = container.clone();
        let handler = move |Payload(n): Payload<u64>, delivery: Delivery| {
            let container = own.clone();
            async move {
                let kind = Kind::of(n);
                match kind {
                    Kind::Slow => tokio::time::sleep(Duration::from_millis(20 + n % 200)).await,
                    Kind::Flaky if delivery.attempt() == 1 => {
                        return Ok(Outcome::retry("the first attempt fails"));
                    }
                    _ => {}
                }
                match writing {
                    Writing::Effects => effects(&container, at, n, kind).await,
                    Writing::Calls => calls(&container, at, n, kind).await,
                }
            }
        };
        let (bus, on) = (container.bus(), topic(on));
        match bus.subscribe_with(&on, options, handler).await {
            Ok(_subscription) => {}
            // Of an earlier call, which got no further.
            Err(error) if error.kind() == ErrorKind::AlreadySubscribed => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn effects(container: &Container, at: usize, n: u64, kind: Kind) -> Result<Outcome, Error> {
    let [count, sum, shared] = keys(STAGES[at]);
    let (next, envelope) = (topic(next_of(at)), Envelope::new("parcel", &n)?);
    let mut effects = Effects::new();
    effects.incr(&count, 1).incr(&sum, n as i64);
    if kind == Kind::Shared {
        let read = container.kv().read::<u64>(&shared).await?;
        effects.replace(&read, &(read.value_or(0) + 1));
    }
    // A topic whose messages nobody reads has no subscription to bring them when they are due.
    if kind == Kind::Later && next != topic(RECEIVED) {
        effects.publish_after(Duration::from_millis(n % 100), &next, envelope);
    } else {
        effects.publish(&next, envelope);
    }
    Ok(Outcome::Commit(effects))
}

async fn calls(container: &Container, at: usize, n: u64, kind: Kind) -> Result<Outcome, Error> {
    let [count, sum, shared] = keys(STAGES[at]);
    let kv = container.kv();
    kv.incr(&count, 1).await?;
    kv.incr(&sum, n as i64).await?;
    if kind == Kind::Shared {
        kv.incr(&shared, 1).await?;
    }
    let (next, envelope) = (topic(next_of(at)), Envelope::new("parcel", &n)?);
    container.bus().publish(&next, &envelope).await?;
    Ok(Outcome::Ack)
}

/// How many messages the last stage has passed on.
///
/// # Errors
///
/// The server does not answer.
pub(crate) async fn received(container: &Container) -> Result<u64, Error> {
    let found = container.topics().get(&topic(RECEIVED)).await?;
    Ok(found.map_or(0, |found| found.entries))
}

/// Whether a stage has nothing left to do, now that the stages before it have not.
pub(crate) async fn is_idle(container: &Container, on: &str) -> bool {
    let on = topic(on);
    let (Ok(groups), Ok(Some(found))) = (
        container.topics().groups(&on).await,
        container.topics().get(&on).await,
    ) else {
        return false;
    };
    let status = groups.iter().find(|status| status.group == group(GROUP));
    found.later == 0
        && status.is_some_and(|status| status.lag + status.in_flight + status.scheduled == 0)
}

/// Writes what each stage has counted and passed on to the history.
pub(crate) async fn record(container: &Container, journal: &Journal) {
    for (at, stage) in STAGES.into_iter().enumerate() {
        let mut values = [0; 3];
        for (value, key) in values.iter_mut().zip(keys(stage)) {
            let found: Option<u64> = container.kv().get(&key).await.unwrap();
            *value = found.unwrap_or(0);
        }
        let [count, sum, shared] = values;
        journal.write(Event::Stage {
            stage: stage.to_owned(),
            count,
            sum,
            shared,
            passed: messages(container, next_of(at)).await,
        });
    }
}

/// The messages that a topic holds, in their order.
async fn messages(container: &Container, of: &str) -> Vec<u64> {
    let (store, at) = (container.store(), Partition::of(&topic(of)));
    let (mut numbers, mut after) = (Vec::new(), None);
    loop {
        let page = store.log().browse(&at, after, PAGE).await.unwrap();
        let Some((last, _)) = page.last() else {
            return numbers;
        };
        after = Some(*last);
        for (id, fields) in &page {
            let fields = fields.iter().map(|(name, value)| (&name[..], &value[..]));
            let envelope = decode_entry(at.topic(), *id, fields, Limits::default()).unwrap();
            numbers.push(envelope.payload::<u64>().unwrap());
        }
    }
}
