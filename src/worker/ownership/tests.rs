//! A partition whose server does not answer, beside others.

mod process;
mod reading;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;

use crate::adapters::memory::MemoryStore;
use crate::container::Container;
use crate::domain::{BoxFuture, Envelope, Error, ErrorKind, Group, Topic, TopicSettings};
use crate::store::decorate::{Answer, Decorated, Decorator, Next, Op};
use crate::store::{EffectStoreOp, OwnersOp, Store};

const FOUR: u16 = 4;
/// The partition whose server does not answer.
const AWAY: u16 = 1;
const READ: &str = "owners.read";
const STEP: &str = "owners.step";
const EFFECTS: &str = "effects.commit_owned";
const ATTEND: &str = "owners.attend";
/// The steps that mark attempts.
const MARKS: &str = "marks";

/// What happens to the calls of the partition.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// The store gets the call when it is released.
    Hangs,
    /// The store does it, and answers when it is released.
    AnswerHangs,
    Fails,
    /// The store gets the call after longer than a look waits.
    Slow,
}

/// Stands before the calls of some names that concern the partition.
#[derive(Clone, Debug)]
struct Away {
    fault: Arc<Mutex<(&'static [&'static str], Fault)>>,
    /// How often the calls under way were released, and whether they panic then.
    released: watch::Sender<(u64, bool)>,
    /// How many calls hang.
    hanging: watch::Sender<usize>,
    /// How many calls renewed a membership.
    attended: Arc<AtomicU64>,
}

impl Away {
    /// From now on this happens to these calls, and nothing to others. Those that hang go on hanging.
    fn set(&self, names: &'static [&'static str], fault: Fault) {
        *self.fault.lock().unwrap() = (names, fault);
    }

    /// From now on nothing happens, and the calls that hang go on.
    fn back(&self) {
        self.set(&[], Fault::Fails);
        self.released.send_modify(|(count, _)| *count += 1);
    }

    /// The calls that hang panic.
    fn panic(&self) {
        self.released.send_modify(|(count, panics)| {
            (*count, *panics) = (*count + 1, true);
        });
        self.set(&[], Fault::Fails);
    }

    async fn hangs(&self) {
        let hanging = async {
            self.hanging
                .subscribe()
                .wait_for(|count| *count > 0)
                .await
                .map(|_| ())
        };
        let waited = tokio::time::timeout(Duration::from_secs(30), hanging).await;
        waited.expect("a call hangs").unwrap();
    }

    async fn hang(&self) {
        let mut released = self.released.subscribe();
        let before = released.borrow_and_update().0;
        self.hanging.send_modify(|count| *count += 1);
        let panics = released.wait_for(|(count, _)| *count > before).await;
        let panics = panics.is_ok_and(|released| released.1);
        self.hanging.send_modify(|count| *count -= 1);
        assert!(!panics, "by order of a test");
    }
}

impl Decorator for Away {
    fn call<'a>(&'a self, op: Op<'a>, mut next: Next<'a>) -> BoxFuture<'a, Result<Answer, Error>> {
        let partition = match &op {
            Op::Owners(OwnersOp::Read { at, .. }) => Some(at.partition.number()),
            Op::Owners(OwnersOp::Step { by, .. })
            | Op::EffectStore(EffectStoreOp::CommitOwned { by, .. }) => {
                Some(by.at.partition.number())
            }
            Op::Owners(OwnersOp::Attend { .. }) => {
                self.attended.fetch_add(1, Ordering::Relaxed);
                Some(AWAY)
            }
            _ => None,
        };
        let marks = matches!(op, Op::Owners(OwnersOp::Step { step, .. }) if !step.notes.is_empty());
        let leaves = matches!(op, Op::Owners(OwnersOp::Leave { .. }));
        let (names, fault) = *self.fault.lock().unwrap();
        let is_meant = names.contains(&op.name()) || marks && names.contains(&MARKS);
        let fault = (partition == Some(AWAY) && is_meant).then_some(fault);
        Box::pin(async move {
            if leaves {
                // As over a network.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            match fault {
                None => next.run(op).await,
                Some(Fault::Fails) => Err(Error::new(ErrorKind::Unavailable, op.name(), "away")),
                Some(Fault::Slow) => {
                    tokio::time::sleep(Duration::from_millis(30)).await;
                    next.run(op).await
                }
                Some(Fault::Hangs) => {
                    self.hang().await;
                    next.run(op).await
                }
                Some(Fault::AnswerHangs) => {
                    let answer = next.run(op).await;
                    self.hang().await;
                    answer
                }
            }
        })
    }
}

async fn connect(store: &Arc<dyn Store>) -> Container {
    let builder = Container::builder().with_store(Arc::clone(store));
    let builder = builder.with_service(Group::new("billing").unwrap());
    builder.connect().await.unwrap()
}

/// A topic with four partitions and forty keys.
struct Ground {
    away: Away,
    store: Arc<dyn Store>,
    container: Container,
    topic: Topic,
    /// The partition of each message.
    partitions: Vec<u16>,
}

impl Ground {
    async fn new() -> Self {
        let away = Away {
            fault: Arc::new(Mutex::new((&[], Fault::Fails))),
            released: watch::Sender::default(),
            hanging: watch::Sender::default(),
            attended: Arc::default(),
        };
        let memory = MemoryStore::new().store(None);
        let store: Arc<dyn Store> = Arc::new(Decorated::new(Arc::new(away.clone()), memory));
        let container = connect(&store).await;
        let topic = Topic::new("orders").unwrap();
        let settings = TopicSettings::default().with_partitions(FOUR);
        container.topics().create(&topic, settings).await.unwrap();
        Self {
            away,
            store,
            container,
            topic,
            partitions: Vec::new(),
        }
    }

    /// Publishes forty messages, one of each key.
    async fn publish(&mut self) {
        let first = self.partitions.len();
        let message = |n: usize| {
            let envelope = Envelope::new("n", &n).unwrap();
            envelope.with_key(format!("k{}", n % 40))
        };
        let all: Vec<Envelope> = (first..first + 40).map(message).collect();
        for published in self.container.bus().publish_all(&self.topic, &all).await {
            self.partitions.push(published.unwrap().id.partition());
        }
    }

    /// The messages of the partition, or of the others, from one on.
    fn messages(&self, is_away: bool, from: u32) -> Vec<u32> {
        let all = (0..).zip(&self.partitions).skip(from as usize);
        let of = all.filter(|(_, at)| (**at == AWAY) == is_away);
        let of: Vec<u32> = of.map(|(n, _)| n).collect();
        assert!(!of.is_empty());
        of
    }
}
