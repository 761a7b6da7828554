//! Publishes and handles messages, and records both.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redstart::extract::Payload;
use redstart::handler::IntoOutcome;
use redstart::ownership::Ownership;
use redstart::topics::GroupStatus;
use redstart::{
    Delivery, Envelope, Error, ErrorKind, Outcome, PublishOptions, Published, RetryPolicy,
    SubscribeOptions,
};
use tokio::time::Instant;

use crate::history::{End, Event, Fate};
use crate::nature::{self, Message, Nature, ORDERED, ORDERS, OWNED, TOXIC, mixed};
use crate::support::{group, topic};
use crate::worker::{Work, calm};

/// The most attempts that a message of a topic gets.
pub(crate) fn max_attempts(topic: &str) -> u32 {
    match topic {
        // Each attempt at a poison message costs a lease.
        TOXIC => 4,
        _ => 8,
    }
}

/// The prefetch of a consumer.
const PREFETCH: usize = 8;

pub(crate) fn fate(result: &Result<Published, Error>) -> Fate {
    match result {
        Ok(_) => Fate::Ok,
        Err(error) if error.kind() == ErrorKind::OutcomeUnknown => Fate::Unknown,
        Err(_) => Fate::No,
    }
}

/// Waits until every group of the topic that several groups read is there: what one of them settles before
/// another one exists is removed.
pub(crate) async fn groups_exist(work: &Work) {
    let topics = work.container.topics();
    let is_there =
        |groups: &[GroupStatus], of: &str| groups.iter().any(|one| one.group.as_str() == of);
    loop {
        let groups = topics.groups(&topic(ORDERS)).await.unwrap_or_default();
        if ["billing", OWNED.1].iter().all(|of| is_there(&groups, of)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Publishes until there is to be calm: singly, several at once, and in batches to one topic;
/// one after the other to the ordered one; and a few to the topic with poison messages.
pub(crate) fn publish(work: &Work) {
    let per_second = f64::from(work.spec.rate.max(1));
    let every = Duration::from_secs_f64(20.0 / per_second);
    let loud = work.clone();
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !calm(loud.journal.path()).exists() {
            ticks.tick().await;
            // Of twenty a tick, eight singly at once and twelve in a batch.
            for _ in 0..8 {
                let one = loud.clone();
                tokio::spawn(async move { publish_some(&one, ORDERS, 1).await });
            }
            publish_some(&loud, ORDERS, 12).await;
        }
    });
    let toxic = work.clone();
    tokio::spawn(async move {
        while !calm(toxic.journal.path()).exists() {
            publish_some(&toxic, TOXIC, 1).await;
            if toxic.poison.load(Ordering::Acquire) > 0 {
                let n = nature::poison(toxic.numbers.next());
                let fates = publish_numbers(&toxic, TOXIC, &[n]).await;
                // A refused one is published again: the plan asks for so many.
                if fates != [Fate::No] {
                    toxic.poison.fetch_sub(1, Ordering::AcqRel);
                }
            }
            tokio::time::sleep(every / 2).await;
        }
    });
    let quiet = work.clone();
    tokio::spawn(async move {
        while !calm(quiet.journal.path()).exists() {
            publish_some(&quiet, ORDERED, 1).await;
            tokio::time::sleep(every / 4).await;
        }
    });
}

async fn publish_some(work: &Work, to: &str, count: usize) {
    let numbers: Vec<u64> = (0..count).map(|_| work.numbers.next()).collect();
    publish_numbers(work, to, &numbers).await;
}

async fn publish_numbers(work: &Work, to: &str, numbers: &[u64]) -> Vec<Fate> {
    let envelopes: Vec<Envelope> = numbers
        .iter()
        .map(|n| {
            let envelope = Envelope::new("chaos", &Message::new(*n)).unwrap();
            match nature::key(*n) {
                Some(key) => envelope.with_key(key),
                None => envelope,
            }
        })
        .collect();
    let event = |n: &u64| Event::Publish {
        topic: to.to_owned(),
        n: *n,
    };
    work.journal.write_all(numbers.iter().map(event));
    let bus = work.container.bus();
    let level = work.spec.level.parse().expect("a level of durability");
    let options = PublishOptions::new().with_durability(level);
    let results = match &*envelopes {
        [one] => vec![bus.publish_with(&topic(to), one, options).await],
        all => bus.publish_all_with(&topic(to), all, options).await,
    };
    let fates: Vec<Fate> = results.iter().map(fate).collect();
    let events = numbers
        .iter()
        .zip(&fates)
        .map(|(n, fate)| Event::Published {
            topic: to.to_owned(),
            n: *n,
            fate: *fate,
        });
    work.journal.write_all(events);
    fates
}

/// Subscribes; retries until it succeeds.
pub(crate) async fn consume(work: &Work, to: &'static str, of: &'static str, handlers: usize) {
    // The first retry is at once, the others go through the schedule.
    let delay =
        |failed: u32| Duration::from_millis(if failed > 1 { 10 << failed.min(6) } else { 0 });
    let retry = RetryPolicy::custom(delay).with_max_attempts(max_attempts(to));
    loop {
        let mut options = SubscribeOptions::new()
            .with_group(group(of))
            .with_concurrency(handlers)
            .with_prefetch(PREFETCH)
            .with_lease(work.spec.lease)
            .with_retry(retry.clone());
        if work.spec.owned && (to, of) == OWNED {
            options = options.with_ownership(Ownership::new().with_lease(work.spec.lease));
        }
        let handler = {
            let work = work.clone();
            move |Payload(message): Payload<Message>, delivery: Delivery| {
                let work = work.clone();
                async move { handle(&work, &message, &delivery).await }
            }
        };
        let bus = work.container.bus();
        match bus.subscribe_with(&topic(to), options, handler).await {
            Ok(_subscription) => return,
            Err(error) if error.kind() == ErrorKind::Closed => return,
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// What the handler returns.
enum Reply {
    Said(Outcome),
    /// Nothing, as `()`.
    Nothing,
}

impl IntoOutcome for Reply {
    fn into_outcome(self) -> Outcome {
        match self {
            Self::Said(outcome) => outcome,
            Self::Nothing => ().into_outcome(),
        }
    }

    fn is_implied_ack(&self) -> bool {
        matches!(self, Self::Nothing)
    }
}

async fn handle(work: &Work, message: &Message, delivery: &Delivery) -> Reply {
    let (n, attempt) = (message.n, delivery.attempt());
    let (to, of) = (delivery.topic().to_string(), delivery.group().to_string());
    let consumer = work.life.to_string();
    work.journal.write(Event::Begun {
        topic: to.clone(),
        group: of.clone(),
        n,
        entry: delivery.entry_id().to_string(),
        consumer: consumer.clone(),
        attempt,
        token: delivery.fence().map(|fence| fence.token),
    });
    let nature = Nature::of(&to, n);
    let end = match nature {
        Nature::Plain => End::Ack,
        Nature::Slow(time) => {
            tokio::time::sleep(time).await;
            End::Ack
        }
        Nature::Flaky(times) if attempt <= times => End::Fail,
        Nature::Explosive if attempt == 1 => End::Fail,
        // About half of them are put off, and half of those again.
        Nature::Sleepy if mixed(crate::history::now()).is_multiple_of(2) => End::Snooze,
        Nature::Curable if !work.is_cured() => End::Fail,
        Nature::Refused if !work.is_cured() => End::Reject,
        Nature::Hopeless => End::Fail,
        Nature::Hanging(most) => hang(most, delivery, work.journal.path()).await,
        Nature::Poison => End::Abort,
        _ => End::Ack,
    };
    work.journal.write(Event::Returned {
        topic: to,
        group: of,
        n,
        consumer,
        attempt,
        end,
    });
    Reply::Said(match end {
        End::Abort => std::process::abort(),
        End::GiveBack => return Reply::Nothing,
        End::Ack => Outcome::Ack,
        End::Fail if nature == Nature::Explosive => panic!("an explosive message"),
        End::Fail => Outcome::retry(format!("it fails as message {n}")),
        End::Snooze => Outcome::snooze(Duration::from_millis(30)),
        End::Reject => Outcome::dead_letter("refused"),
    })
}

/// Hangs until the delivery is cancelled, and for so long at most; less when there is to be calm.
async fn hang(most: Duration, delivery: &Delivery, journal: &Path) -> End {
    let until = Instant::now() + most;
    while Instant::now() < until && !calm(journal).exists() {
        tokio::select! {
            () = delivery.cancelled() => return End::GiveBack,
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
        }
    }
    match delivery.is_cancelled() {
        true => End::GiveBack,
        false => End::Ack,
    }
}
