//! An owned group on stores that are broken on purpose: the checker sees it in a run.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use redstart::extract::Payload;
use redstart::memory::MemoryStore;
use redstart::ownership::Ownership;
use redstart::ports::BoxFuture;
use redstart::store::decorate::{Answer, Decorated, Decorator, Next, Op};
use redstart::store::{Owner, OwnersAnswer, OwnersOp, Store, Taken};
use redstart::topics::{ConsumerName, Retention, TopicSettings};
use redstart::{Container, Delivery, Envelope, Error, Outcome, SubscribeOptions};

use crate::checker::{Promise, Verdict, check};
use crate::history::{End, Event, Fate, Journal, Line};
use crate::story::rules;
use crate::support::{PATIENCE, drained, group, topic};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Flaw {
    Sound,
    /// Gives a partition to every member at once.
    GrantsEverything,
    /// The next owner begins where the first one did.
    ForgetsCursors,
}

/// A store of owned groups with one flaw.
#[derive(Debug)]
struct BrokenOwners {
    flaw: Flaw,
    /// The token that each member was told.
    tokens: Mutex<HashMap<ConsumerName, u64>>,
}

impl BrokenOwners {
    fn granted(&self, member: &ConsumerName, claims: bool) -> u64 {
        let mut tokens = self.tokens.lock().unwrap();
        let next = tokens.values().max().map_or(u64::MAX / 2, |last| last + 1);
        let token = tokens.entry(member.clone()).or_insert(next);
        if claims {
            *token = next;
        }
        *token
    }
}

impl Decorator for BrokenOwners {
    fn call<'a>(&'a self, op: Op<'a>, mut next: Next<'a>) -> BoxFuture<'a, Result<Answer, Error>> {
        Box::pin(async move {
            let mut answer = next.run(op).await?;
            match (op, &mut answer) {
                (
                    Op::Owners(OwnersOp::Attend { by, attendance }),
                    Answer::Owners(OwnersAnswer::Attend(roster)),
                ) if self.flaw == Flaw::GrantsEverything && !attendance.leaving => {
                    let consumer = by.consumer.clone();
                    let token = self.granted(&consumer, !attendance.claims.is_empty());
                    roster.owners.insert(0, Owner { consumer, token });
                }
                (
                    Op::Owners(OwnersOp::Take { .. }),
                    Answer::Owners(OwnersAnswer::Take(Taken::Taken { cursors, notes, .. })),
                ) if self.flaw == Flaw::ForgetsCursors => {
                    *cursors = Default::default();
                    notes.clear();
                }
                _ => {}
            }
            Ok(answer)
        })
    }
}

/// The message that its handler holds until another member has begun it.
const HELD: u64 = 9;
const LEASE: Duration = Duration::from_secs(60);

#[derive(Clone)]
struct Owned {
    flaw: Flaw,
    store: Arc<dyn Store>,
    journal: Journal,
}

/// Two members handle messages, the second after the first.
async fn run(flaw: Flaw) -> Verdict {
    let folder = tempfile::tempdir().unwrap();
    let broken = BrokenOwners {
        flaw,
        tokens: Mutex::default(),
    };
    let store = Decorated::new(Arc::new(broken), MemoryStore::new().store(None));
    let owned = Owned {
        flaw,
        store: Arc::new(store),
        journal: Journal::open(&folder.path().join("history"), "owned"),
    };
    owned.go().await;
    check(&owned.journal.read(), &rules())
}

impl Owned {
    async fn go(&self) {
        self.journal.write(Event::Group {
            topic: "orders".to_owned(),
            group: "billing".to_owned(),
            owned: true,
        });
        let one = self.container().await;
        // What is settled stays.
        let settings = TopicSettings::default().with_retention(Retention::Count(1000));
        let created = one.topics().create(&topic("orders"), settings).await;
        created.unwrap();
        self.publish(&one, 0..40).await;
        self.consume(&one, "one").await;
        let two = self.container().await;
        self.consume(&two, "two").await;
        self.settle_down(&one).await;
        one.shutdown(PATIENCE).await;
        self.publish(&two, 40..80).await;
        self.settle_down(&two).await;
        two.shutdown(PATIENCE).await;
        self.journal.write(Event::Drained {
            topic: "orders".to_owned(),
            group: "billing".to_owned(),
            millis: 0,
        });
    }

    async fn container(&self) -> Container {
        let building = Container::builder().with_store(Arc::clone(&self.store));
        let building = building.with_service(group("billing"));
        building.connect().await.unwrap()
    }

    async fn publish(&self, container: &Container, numbers: Range<u64>) {
        for n in numbers {
            let envelope = Envelope::new("owned", &n).unwrap();
            let envelope = envelope.with_key((rules().key)(n).unwrap());
            let name = || "orders".to_owned();
            self.journal.write(Event::Publish { topic: name(), n });
            let published = container.bus().publish(&topic("orders"), &envelope).await;
            published.unwrap();
            self.journal.write(Event::Published {
                topic: name(),
                n,
                fate: Fate::Ok,
            });
        }
    }

    async fn consume(&self, container: &Container, name: &'static str) {
        let options = SubscribeOptions::new()
            .with_concurrency(4)
            .with_ownership(Ownership::new().with_lease(LEASE));
        let owned = self.clone();
        let handler = move |Payload(n): Payload<u64>, delivery: Delivery| {
            let owned = owned.clone();
            async move { owned.handle(n, &delivery, name).await }
        };
        let subscribed = container
            .bus()
            .subscribe_with(&topic("orders"), options, handler)
            .await;
        let _subscription = subscribed.unwrap();
    }

    async fn handle(&self, n: u64, delivery: &Delivery, name: &str) -> Outcome {
        let (topic, group) = (|| "orders".to_owned(), || "billing".to_owned());
        let attempt = delivery.attempt();
        self.journal.write(Event::Begun {
            topic: topic(),
            group: group(),
            n,
            entry: delivery.entry_id().to_string(),
            consumer: name.to_owned(),
            attempt,
            token: delivery.fence().map(|fence| fence.token),
        });
        if n == HELD && attempt == 1 && self.flaw == Flaw::GrantsEverything {
            self.begun_by_another(name).await;
        }
        let end = match n % 5 {
            2 if attempt == 1 => End::Fail,
            _ => End::Ack,
        };
        self.journal.write(Event::Returned {
            topic: topic(),
            group: group(),
            n,
            consumer: name.to_owned(),
            attempt,
            end,
        });
        match end {
            End::Fail => Outcome::retry("once more"),
            _ => Outcome::Ack,
        }
    }

    async fn begun_by_another(&self, name: &str) {
        let is_other = |line: &Line| match &line.event {
            Event::Begun { consumer, n, .. } => *n == HELD && consumer != name,
            _ => false,
        };
        let deadline = Instant::now() + PATIENCE;
        while !self.journal.read().iter().any(is_other) && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until nothing is left to do, for as long as a member that may lose everything again gets on.
    async fn settle_down(&self, container: &Container) {
        let patience = match self.flaw {
            Flaw::GrantsEverything => Duration::from_secs(4),
            _ => PATIENCE,
        };
        let (on, of) = (topic("orders"), group("billing"));
        let _ = tokio::time::timeout(patience, drained(container, &on, &of)).await;
    }
}

#[tokio::test]
async fn a_sound_owned_group_keeps_every_promise() {
    let verdict = run(Flaw::Sound).await;
    assert!(verdict.holds(), "{verdict:?}");
    let counts = verdict.counts;
    assert_eq!((counts.acked, counts.turns, counts.owners), (80, 96, 2));
}

#[tokio::test]
async fn a_flaw_of_an_owned_group_breaks_its_promise() {
    for (flaw, promise) in [
        (Flaw::GrantsEverything, Promise::OneOfAKey),
        (Flaw::ForgetsCursors, Promise::KeyOrder),
    ] {
        let broken = run(flaw).await.broken();
        assert!(broken.contains(&promise), "{flaw:?}: {broken:?}");
    }
}
