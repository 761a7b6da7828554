//! Middleware around batches: each message passes the chain by itself, and those that come through
//! share the calls of their batch handlers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until};

use super::next::{Chain, End};
use crate::api::delivery::Delivery;
use crate::domain::{BoxFuture, Outcome};

/// How long messages that have passed the chain wait for the others of their batch. Without this
/// limit, middleware that lets one message through at a time would stop the batch for ever.
const PATIENCE: Duration = Duration::from_millis(100);

/// The handlers behind a chain, of which some take batches.
pub(crate) trait Together: Send + Sync {
    /// Whether the delivery goes to a batch handler.
    fn is_batched(&self, delivery: &Delivery) -> bool;

    /// Calls the handler of a delivery that goes to no batch handler.
    fn alone(&self, delivery: Delivery) -> BoxFuture<'_, Outcome>;

    /// Calls the batch handlers. Returns one outcome for each delivery, in their order.
    fn together(&self, batch: Vec<Delivery>) -> BoxFuture<'_, Vec<Outcome>>;
}

/// The messages of a batch between the chain and the batch handlers.
#[derive(Default)]
struct Gathering {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// How many messages the chain has neither let through nor ended.
    on_the_way: usize,
    arrived: Vec<Arrived>,
}

struct Arrived {
    place: usize,
    delivery: Delivery,
    answer: oneshot::Sender<Outcome>,
}

impl Gathering {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The messages of the next call, in the order of the batch; none while it is worth waiting.
    fn ready(&self, until: &mut Option<Instant>) -> Vec<Arrived> {
        let mut state = self.state();
        // The middleware has given up the others: a time limit has dropped them.
        state.arrived.retain(|one| !one.answer.is_closed());
        if state.arrived.is_empty() {
            *until = None;
            return Vec::new();
        }
        let now = Instant::now();
        let limit = *until.get_or_insert(now + PATIENCE);
        if state.on_the_way > 0 && now < limit {
            return Vec::new();
        }
        *until = None;
        let mut ready = std::mem::take(&mut state.arrived);
        ready.sort_by_key(|one| one.place);
        ready
    }
}

/// The end of the chain of one message of a batch.
struct Place {
    gathering: Arc<Gathering>,
    handlers: Arc<dyn Together>,
    place: usize,
    passed: AtomicBool,
}

impl Place {
    /// Notes, once, that the chain has let the message through or has ended it.
    fn pass(&self, arrived: Option<Arrived>) {
        if self.passed.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut state = self.gathering.state();
        state.on_the_way -= 1;
        state.arrived.extend(arrived);
        drop(state);
        self.gathering.changed.notify_one();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.pass(None);
    }
}

impl End for Place {
    fn run(self: Arc<Self>, delivery: Delivery) -> BoxFuture<'static, Outcome> {
        Box::pin(async move {
            if !self.handlers.is_batched(&delivery) {
                self.pass(None);
                return self.handlers.alone(delivery).await;
            }
            let (answer, outcome) = oneshot::channel();
            self.pass(Some(Arrived {
                place: self.place,
                delivery,
                answer,
            }));
            let missing = |_| Outcome::retry("no outcome");
            outcome.await.unwrap_or_else(missing)
        })
    }
}

/// Runs the chain around each delivery of a batch, and the batch handlers once for those that it lets
/// through together. Returns one outcome for each delivery, in their order.
///
/// Ends when the chain has ended each delivery, and drops calls that no delivery waits for any more.
pub(crate) async fn around_batch(
    chain: &Arc<Chain>,
    handlers: &Arc<dyn Together>,
    batch: Vec<Delivery>,
) -> Vec<Outcome> {
    let gathering = Arc::<Gathering>::default();
    gathering.state().on_the_way = batch.len();
    let mut outcomes = vec![None; batch.len()];
    let mut chains: FuturesUnordered<_> = batch
        .into_iter()
        .enumerate()
        .map(|(place, delivery)| {
            let end = Place {
                gathering: Arc::clone(&gathering),
                handlers: Arc::clone(handlers),
                place,
                passed: AtomicBool::new(false),
            };
            let running = chain.run(delivery, Arc::new(end));
            async move { (place, running.await) }
        })
        .collect();
    let mut calls = FuturesUnordered::new();
    let mut until = None;
    loop {
        tokio::select! {
            biased;
            ended = chains.next() => match ended {
                Some((place, outcome)) => outcomes[place] = Some(outcome),
                None => break,
            },
            Some(()) = calls.next() => {}
            () = gathering.changed.notified() => {}
            () = wait(until) => {}
        }
        // A call for each type: a slow handler holds back no message of another one.
        for ready in by_type(gathering.ready(&mut until)) {
            calls.push(call(handlers, ready));
        }
    }
    let missing = || Outcome::retry("no outcome");
    let outcomes = outcomes.into_iter();
    outcomes
        .map(|outcome| outcome.unwrap_or_else(missing))
        .collect()
}

/// Splits messages by the types that choose their handlers; keeps their order.
fn by_type(ready: Vec<Arrived>) -> Vec<Vec<Arrived>> {
    let mut parts: Vec<Vec<Arrived>> = Vec::new();
    for one in ready {
        let message_type = one.delivery.envelope().message_type();
        let is_same =
            |part: &&mut Vec<Arrived>| part[0].delivery.envelope().message_type() == message_type;
        match parts.iter_mut().find(is_same) {
            Some(part) => part.push(one),
            None => parts.push(vec![one]),
        }
    }
    parts
}

async fn call(handlers: &Arc<dyn Together>, ready: Vec<Arrived>) {
    let (deliveries, answers): (Vec<_>, Vec<_>) = ready
        .into_iter()
        .map(|one| (one.delivery, one.answer))
        .unzip();
    let outcomes = handlers.together(deliveries).await;
    for (answer, outcome) in answers.into_iter().zip(outcomes) {
        // A message that a time limit has dropped has its outcome already.
        let _ = answer.send(outcome);
    }
}

async fn wait(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}
