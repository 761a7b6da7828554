//! A run in little: one process, the memory adapter, a crash in the middle.

use std::ops::RangeBounds;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redstart::dead_letters::DeadLetter;
use redstart::extract::Payload;
use redstart::store::{GroupAt, Partition, Store};
use redstart::{
    Container, Delivery, Envelope, ErrorKind, Kv, Outcome, RetryPolicy, SubscribeOptions, Topic,
    memory::MemoryStore, ports::KvStore,
};
use tokio::sync::oneshot;

use crate::broken::{Broken, Flaw};
use crate::checker::{Rules, Verdict, check};
use crate::history::{End, Event, Fate, Journal, Letter, Line, now};
use crate::pipeline::{self, STAGES, Writing};
use crate::stores::{self, BrokenKv, StoreFlaw};
use crate::support::{PATIENCE, group, letters, topic};

const MAX_ATTEMPTS: u32 = 3;
const GROUPS: [(&str, &str); 3] = [
    ("orders", "billing"),
    ("orders", "audit"),
    ("ordered", "billing"),
];
/// No lease of the quiet part ends.
const LONG: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_millis(500);
/// Messages from here on are begun by the consumer that crashes, and not ended.
const HANGING: u64 = 1000;

#[derive(Clone)]
struct Small {
    store: Arc<dyn Store>,
    kv: Kv,
    journal: Journal,
    patience: Duration,
    /// How long message 7 is held for another consumer to begin it.
    shared_for: Duration,
}

/// Runs the story on a store with these flaws, and checks it.
pub(crate) async fn run(flaw: Flaw, store_flaw: StoreFlaw, patience: Duration) -> Verdict {
    let folder = tempfile::tempdir().unwrap();
    let store = MemoryStore::new();
    let kv = BrokenKv {
        inner: Arc::clone(store.kv(None).port()),
        flaw: store_flaw,
    };
    let small = Small {
        store: Broken::store(store.store(None), flaw),
        kv: Kv::from(Arc::new(kv) as Arc<dyn KvStore>),
        journal: Journal::open(&folder.path().join("history"), "small"),
        patience,
        // Sound leases keep the message: one look of the other consumer is enough.
        shared_for: match flaw {
            Flaw::LeasesAreNothing => PATIENCE,
            _ => Duration::from_millis(1500),
        },
    };
    small.go().await;
    let rules = Rules {
        max_attempts: |_| MAX_ATTEMPTS,
        may_die: |topic, n| topic == "orders" && (n % 5 == 1 || n == 13),
        gives_back: |_| false,
        takes_back: |_| false,
        may_be_lost: |_| false,
        ordered: vec!["ordered".to_owned()],
        key: |_| None,
        aftermath: Duration::from_secs(5),
        drains_within: Duration::from_secs(60),
        stages: STAGES.len(),
        is_shared: pipeline::is_shared,
    };
    check(&small.journal.read(), &rules)
}

impl Small {
    async fn go(&self) {
        for (topic, group) in GROUPS {
            let (topic, group) = (topic.to_owned(), group.to_owned());
            let owned = false;
            self.journal.write(Event::Group {
                topic,
                group,
                owned,
            });
        }
        let (one, two) = (self.container().await, self.container().await);
        let orders = topic("orders");
        // It exists, and begins to read at the end only.
        self.store
            .topics()
            .create_group(
                &GroupAt::of(&orders, &group("audit")),
                redstart::topics::StartFrom::Beginning,
            )
            .await
            .unwrap();

        // Quiet: two consumers share the work.
        self.publish(&one, "orders", 0..40).await;
        self.consume(&one, "orders", "billing", 2, LONG, "one")
            .await;
        self.consume(&two, "orders", "billing", 2, LONG, "two")
            .await;
        self.settle_down(&one, &[("orders", "billing")]).await;
        self.redrive(&one).await;
        self.settle_down(&one, &[("orders", "billing")]).await;
        self.store
            .topics()
            .trim(&Partition::of(&orders))
            .await
            .unwrap();
        self.probe(&one).await;
        one.shutdown(Duration::ZERO).await;
        two.shutdown(Duration::ZERO).await;

        self.crash().await;
        self.pipeline().await;

        let last = self.container().await;
        self.publish(&last, "ordered", 2000..2030).await;
        for (on, of) in GROUPS {
            let handlers = if on == "ordered" { 1 } else { 4 };
            self.consume(&last, on, of, handlers, SHORT, "last").await;
        }
        stores::registers(&self.kv, &self.journal).await;
        stores::claims(&self.kv, &self.journal).await;
        let began = Instant::now();
        for (topic, group) in self.settle_down(&last, &GROUPS).await {
            self.journal.write(Event::Drained {
                topic: topic.to_owned(),
                group: group.to_owned(),
                millis: began.elapsed().as_millis() as u64,
            });
        }
        self.record_dead_letters(&last).await;
        last.shutdown(Duration::ZERO).await;
    }

    async fn container(&self) -> Container {
        let building = Container::builder().with_store(Arc::clone(&self.store));
        building
            .with_service(group("billing"))
            .connect()
            .await
            .unwrap()
    }

    async fn publish(&self, container: &Container, to: &str, numbers: std::ops::Range<u64>) {
        let numbers: Vec<u64> = numbers.collect();
        let envelopes: Vec<Envelope> = numbers
            .iter()
            .map(|n| Envelope::new("small", n).unwrap())
            .collect();
        let to = topic(to);
        let name = || to.to_string();
        let begun = numbers.iter().map(|n| Event::Publish {
            topic: name(),
            n: *n,
        });
        self.journal.write_all(begun);
        let results = container.bus().publish_all(&to, &envelopes).await;
        let ended = numbers
            .iter()
            .zip(results)
            .map(|(n, result)| Event::Published {
                topic: name(),
                n: *n,
                fate: match result {
                    Ok(_) => Fate::Ok,
                    Err(error) if error.kind() == ErrorKind::OutcomeUnknown => Fate::Unknown,
                    Err(_) => Fate::No,
                },
            });
        self.journal.write_all(ended);
    }

    async fn consume(
        &self,
        container: &Container,
        on: &'static str,
        of: &'static str,
        handlers: usize,
        lease: Duration,
        name: &'static str,
    ) {
        let mut options = SubscribeOptions::new()
            .with_group(group(of))
            .with_concurrency(handlers)
            .with_lease(lease)
            .with_retry(
                RetryPolicy::fixed(Duration::from_millis(2)).with_max_attempts(MAX_ATTEMPTS),
            );
        if handlers == 1 {
            // One read brings several messages, or their order would not show.
            options = options.with_prefetch(8);
        }
        let small = self.clone();
        let handler = move |Payload(n): Payload<u64>, delivery: Delivery| {
            let small = small.clone();
            async move { small.handle(n, &delivery, name).await }
        };
        let subscribed = container
            .bus()
            .subscribe_with(&topic(on), options, handler)
            .await;
        let _subscription = subscribed.unwrap();
    }

    async fn handle(&self, n: u64, delivery: &Delivery, name: &str) -> Outcome {
        let (to, of) = (delivery.topic().to_string(), delivery.group().to_string());
        let attempt = delivery.attempt();
        self.journal.write(Event::Begun {
            topic: to.clone(),
            group: of.clone(),
            n,
            entry: delivery.entry_id().to_string(),
            consumer: name.to_owned(),
            attempt,
            token: delivery.fence().map(|fence| fence.token),
        });
        match n {
            HANGING.. if name == "crashing" => std::future::pending().await,
            7 => {
                let other = |by: &str| by != name;
                let _ = tokio::time::timeout(self.shared_for, self.begun(7..=7, 1, other)).await;
            }
            _ => tokio::time::sleep(Duration::from_millis(1)).await,
        }
        let end = match n % 5 {
            1 if to == "orders" => End::Reject,
            2 if attempt == 1 && to == "orders" => End::Fail,
            3 if n == 13 => End::Fail,
            _ => End::Ack,
        };
        self.journal.write(Event::Returned {
            topic: to,
            group: of,
            n,
            consumer: name.to_owned(),
            attempt,
            end,
        });
        match end {
            End::Reject => Outcome::dead_letter("refused"),
            End::Fail => Outcome::retry("once more"),
            _ => Outcome::Ack,
        }
    }

    /// A consumer on a runtime of its own, which is dropped while handlers run.
    async fn crash(&self) {
        let (begun, has_begun) = oneshot::channel();
        let small = self.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let container = small.container().await;
                small
                    .publish(&container, "orders", HANGING..HANGING + 8)
                    .await;
                small
                    .consume(&container, "orders", "billing", 4, SHORT, "crashing")
                    .await;
                let _ = tokio::time::timeout(
                    small.patience,
                    small.begun(HANGING.., 2, |by| by == "crashing"),
                )
                .await;
            });
            let _ = begun.send(());
        });
        has_begun.await.unwrap();
        let name = "the runtime is dropped";
        self.journal.write(Event::fault(name));
        thread.join().unwrap();
        self.journal.write(Event::healed(name));
    }

    /// Messages pass the stages, and so do their effects.
    async fn pipeline(&self) {
        let building = Container::builder().with_store(Arc::clone(&self.store));
        let building = building.with_service(group("billing"));
        let building = building.with_deduplication(pipeline::WINDOW);
        let container = building.connect().await.unwrap();
        pipeline::create(&container).await;
        let subscribed = pipeline::subscribe(&container, LONG, Writing::Effects).await;
        subscribed.unwrap();
        pipeline::enter(&container, &self.journal, 0..60).await;
        let deadline = Instant::now() + self.patience;
        for stage in STAGES {
            while !pipeline::is_idle(&container, stage).await && Instant::now() < deadline {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        pipeline::record(&container, &self.journal).await;
        container.shutdown(Duration::ZERO).await;
    }

    /// Waits until the journal has `count` begins of these messages by consumers that `by` accepts.
    async fn begun(
        &self,
        messages: impl RangeBounds<u64>,
        count: usize,
        by: impl Fn(&str) -> bool,
    ) {
        let counts = |line: &Line| match &line.event {
            Event::Begun { consumer, n, .. } => by(consumer) && messages.contains(n),
            _ => false,
        };
        while self
            .journal
            .read()
            .iter()
            .filter(|line| counts(line))
            .count()
            < count
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until groups have nothing left to do, with so much patience; those that have not.
    async fn settle_down<'a>(
        &self,
        container: &Container,
        groups: &[(&'a str, &'a str)],
    ) -> Vec<(&'a str, &'a str)> {
        let deadline = Instant::now() + self.patience;
        let mut open = groups.to_vec();
        let mut done = Vec::new();
        while !open.is_empty() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
            let mut still_open = Vec::new();
            for (on, of) in open {
                let groups = container.topics().groups(&topic(on)).await.unwrap();
                let status = groups.into_iter().find(|status| status.group == group(of));
                let idle = |status: &redstart::topics::GroupStatus| {
                    status.lag + status.in_flight + status.scheduled == 0
                };
                match status.as_ref().is_some_and(idle) {
                    true => done.push((on, of)),
                    false => still_open.push((on, of)),
                }
            }
            open = still_open;
        }
        done
    }

    /// Two operators redrive the same dead letters, the second a moment after the first.
    async fn redrive(&self, container: &Container) {
        let (orders, billing) = (topic("orders"), group("billing"));
        let dead = container.dead_letters();
        let since = now();
        let letters = letters(container, &orders, &billing).await;
        let records: Vec<(String, u64)> = letters
            .iter()
            .map(|letter| {
                let n = letter.envelope().unwrap().payload().unwrap();
                (letter.id.to_string(), n)
            })
            .collect();
        let (topic, group) = (orders.to_string(), billing.to_string());
        self.journal.write(Event::Listed {
            topic: topic.clone(),
            group: group.clone(),
            since,
            letters: letters.iter().map(told).collect(),
        });
        let ids: Vec<_> = letters.iter().map(|letter| letter.id).collect();
        for call in [1, 2] {
            self.journal.write(Event::Redrive {
                topic: topic.clone(),
                group: group.clone(),
                call,
                records: records.clone(),
            });
            let redriven = dead.redrive(&orders, &billing, &ids).await.unwrap();
            let done = redriven.moved.iter().map(ToString::to_string).collect();
            let done = Some(done);
            self.journal.write(Event::Moved { call, done });
        }
    }

    /// Nothing of what the sleeping group has not seen may be gone.
    async fn probe(&self, container: &Container) {
        let orders: Topic = topic("orders");
        let groups = container.topics().groups(&orders).await.unwrap();
        let audit = groups
            .iter()
            .find(|status| status.group == group("audit"))
            .unwrap();
        let there = self
            .store
            .log()
            .browse(&Partition::of(&orders), None, 500)
            .await
            .unwrap()
            .len() as u64;
        self.journal.write(Event::Trimmed {
            topic: orders.to_string(),
            missing: audit.lag.saturating_sub(there),
        });
    }

    async fn record_dead_letters(&self, container: &Container) {
        for (on, of) in GROUPS {
            let letters = letters(container, &topic(on), &group(of)).await;
            let events = letters.iter().map(|letter| Event::DeadLettered {
                topic: on.to_owned(),
                group: of.to_owned(),
                letter: told(letter),
            });
            self.journal.write_all(events);
        }
    }
}

fn told(letter: &DeadLetter) -> Letter {
    Letter {
        record: letter.id.to_string(),
        n: letter.envelope().unwrap().payload().ok(),
        entry: letter.history.origin.to_string(),
        reason: letter.reason.to_string(),
        attempts: letter.attempts,
        redriven: letter.history.redriven,
    }
}
