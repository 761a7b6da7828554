//! The state that the intake and the handlers of one running subscription share.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::delivery::Home;
use crate::api::handler::Work;
use crate::api::options::SubscribeOptions;
use crate::api::propagator::Telemetry;
use crate::bus::Publishing;
use crate::domain::{RetryPolicy, TopicSettings};
use crate::store::{
    Commit, DeliveryId, Holder, Lane, MAX_BATCH, MAX_COMMITS, Member, Opening, Store,
};
use crate::wire::Decoder;
use crate::worker::effect_port::{EffectPort, EffectWrite};
use crate::worker::fault::{Faults, Pressure};
use crate::worker::hold_back::waiting::{HoldBack, Note};
use crate::worker::intake::capacity::Capacity;
use crate::worker::intake::gate::Gate;
use crate::worker::intake::in_flight::{HandOut, InFlight};
use crate::worker::intake::lease::GroupLease;
use crate::worker::intake::queue::Queue;
use crate::worker::intake::weight::Weight;
use crate::worker::meters::Meters;
use crate::worker::ownership::OwnedGroup;
use crate::worker::stir::{Moment, Stir};
use crate::worker::tracks::{Senders, Shared, Track, Tracks, channels};

pub(crate) struct Core {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) member: Arc<Member>,
    /// What deliveries know of this subscription.
    pub(crate) home: Arc<Home>,
    work: Work,
    /// The name of a handler that has none of its own.
    handler_name: String,
    /// A message may have one attempt only, so every attempt is marked.
    pub(crate) marks_attempts: bool,
    /// How long an attempt may run; `None`: without a limit.
    pub(crate) longest_run: Option<Duration>,
    pub(crate) options: SubscribeOptions,
    pub(crate) decoder: Decoder,
    /// Without one, deliveries carry no trace.
    pub(crate) telemetry: Option<Arc<Telemetry>>,
    pub(crate) meters: Arc<Meters>,
    pub(crate) in_flight: Arc<InFlight>,
    pub(crate) capacity: Capacity,
    pub(crate) queue: Queue,
    /// Deliveries that run alone, because crashes lie behind them.
    pub(crate) suspects: Queue,
    pub(crate) gate: Gate,
    pub(crate) acks: Senders<HandOut>,
    pub(crate) writes: Senders<Write>,
    pub(crate) effects: Arc<EffectPort>,
    pub(crate) hold_back: Arc<HoldBack>,
    /// Ends reading.
    pub(crate) stop: CancellationToken,
    /// Ends the background jobs.
    pub(crate) halt: CancellationToken,
    /// Set once a shutdown has asked the store which queued deliveries it has a record of.
    pub(crate) only_copies_known: CancellationToken,
    /// The topic's settings at the start: the topic gets them back after FLUSHALL.
    pub(crate) settings: TopicSettings,
    /// What comes in is read and kept by track.
    pub(crate) tracks: Tracks,
    /// What ends is written by track. An owned group has one for each partition here, and reads all
    /// partitions in one, because a process reads only those that it owns.
    pub(crate) settling: Tracks,
    /// What gives the background jobs something to do.
    pub(crate) stir: Arc<Stir>,
    pub(crate) lease: Arc<GroupLease>,
    /// The faults of the first track, with those of parts that work for all.
    pub(crate) faults: Faults,
    /// How many calls of handlers run.
    pub(crate) busy: Arc<AtomicUsize>,
    pub(crate) pressure: Pressure,
    pub(crate) weight: Weight,
    /// Set in an owned group.
    pub(crate) owned: Option<Arc<OwnedGroup>>,
    /// How many deliveries of an owned group were put back since the subscription stopped.
    pub(crate) put_back: AtomicU64,
}

/// Counts settled deliveries. The settlers count, the janitor compares.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    all: AtomicU64,
    redelivered: AtomicU64,
}

pub(crate) type SettledCount = Arc<Settled>;

impl Settled {
    pub(crate) fn note(&self, hand_outs: &[HandOut]) {
        let redelivered = |one: &&HandOut| one.id.lane == Lane::Redelivery;
        let redelivered = hand_outs.iter().filter(redelivered).count();
        self.all
            .fetch_add(hand_outs.len() as u64, Ordering::Relaxed);
        self.redelivered
            .fetch_add(redelivered as u64, Ordering::Relaxed);
    }

    /// How many were settled, and how many of them came from the redelivery stream.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (of(&self.all), of(&self.redelivered))
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core")
            .field("member", &self.member)
            .finish_non_exhaustive()
    }
}

/// A commit on its way to the settler, and the hand-out that it ends.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) commit: Commit,
    pub(crate) token: u64,
    /// How the delivery ends, for the span of the settlement.
    pub(crate) name: &'static str,
}

impl Write {
    pub(crate) fn hand_out(&self) -> HandOut {
        HandOut {
            id: self.commit.delivery(),
            token: self.token,
        }
    }
}

/// The settlers' ends of the channels of one track.
pub(crate) struct Settlements {
    pub(crate) acks: mpsc::Receiver<HandOut>,
    pub(crate) writes: mpsc::Receiver<Write>,
    pub(crate) effects: mpsc::Receiver<EffectWrite>,
    pub(crate) notes: mpsc::Receiver<Note>,
}

impl Core {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        member: Member,
        options: SubscribeOptions,
        decoder: Decoder,
        settings: TopicSettings,
        work: &Work,
        publishing: Arc<Publishing>,
    ) -> (Self, Vec<Settlements>) {
        let (member, in_flight) = (Arc::new(member), Arc::<InFlight>::default());
        let (meters, faults) = (Arc::new(Meters::new(&member)), Faults::default());
        let lease = Arc::new(GroupLease::new(options.lease));
        let stir = Arc::new(Stir::new(store.bell(&member.at)));
        let shared = Shared {
            store: &store,
            member: &member,
            in_flight: &in_flight,
            meters: &meters,
            lease: &lease,
            stir: &stir,
            faults: &faults,
        };
        let settling = Tracks::new(settings.partitions(), &shared);
        let tracks = match options.ownership {
            None => settling.clone(),
            Some(_) => Tracks::new(1, &shared),
        };
        let count = settling.count();
        let (effect_writes, effect_queues) = channels(count, 2 * MAX_COMMITS);
        let effects = Arc::new(EffectPort {
            publishing: Arc::clone(&publishing),
            writes: effect_writes,
            is_shadow: options.shadow.is_some(),
        });
        let home = Home {
            member: Arc::clone(&member),
            store: Arc::clone(&store),
            publishing,
            effects: Arc::clone(&effects) as _,
        };
        let at_once = options.concurrency * work.most_at_once(&options);
        // Bounded: a worker whose settlement finds the channel full waits.
        let (acks, ack_queues) = channels(count, 2 * MAX_BATCH);
        let (writes, write_queues) = channels(count, 2 * MAX_BATCH);
        let (hold_back, note_queues) = HoldBack::new(options.hold_back, Arc::clone(&store), count);
        let core = Self {
            work: work.clone(),
            handler_name: handler_name(&options, work, &member),
            marks_attempts: may_have_one_attempt(&options, work),
            longest_run: longest_run(&options, work),
            capacity: Capacity::new(at_once, options.prefetch),
            store,
            member,
            home: Arc::new(home),
            options,
            decoder,
            telemetry: None,
            meters,
            in_flight,
            queue: Queue::default(),
            suspects: Queue::default(),
            gate: Gate::default(),
            acks,
            writes,
            effects,
            hold_back: Arc::new(hold_back),
            stop: CancellationToken::new(),
            halt: CancellationToken::new(),
            only_copies_known: CancellationToken::new(),
            settings,
            tracks,
            settling,
            stir,
            lease,
            faults,
            busy: Arc::default(),
            pressure: Pressure::default(),
            weight: Weight::default(),
            owned: None,
            put_back: AtomicU64::default(),
        };
        let queues = ack_queues.into_iter().zip(write_queues);
        let queues = queues.zip(effect_queues).zip(note_queues);
        let settlements = queues.map(|(((acks, writes), effects), notes)| Settlements {
            acks,
            writes,
            effects,
            notes,
        });
        (core, settlements.collect())
    }

    /// What a track reads.
    pub(crate) fn opening(&self, track: &Track) -> Opening {
        let reading = self.tracks.reading(self.options.reading);
        Opening::of(&track.member).with_reading(reading)
    }

    /// Notes who holds deliveries, of any track, as the store has answered.
    pub(crate) fn note_holders(&self, hand_outs: &[HandOut], holders: &[Holder]) {
        self.tracks.first().keeper.note_holders(hand_outs, holders);
    }

    /// Extends the leases of all tracks once.
    pub(crate) async fn extend_all(&self) {
        join_all(self.tracks.iter().map(|track| track.keeper.extend_all())).await;
    }

    /// The retry policy for messages of a type.
    pub(crate) fn retry(&self, message_type: &str) -> &RetryPolicy {
        let route = self.work.route(message_type);
        let policy = route.and_then(|route| route.retry.as_ref());
        policy.unwrap_or(&self.options.retry)
    }

    /// The name of the handler for messages of a type, in dead letters: the one given to the route or
    /// the subscription, else its own, else `topic/group`. `None`: the type is unknown.
    pub(crate) fn handler_name(&self, message_type: Option<&str>) -> &str {
        let route = message_type.and_then(|message_type| self.work.route(message_type));
        let Some(route) = route else {
            return &self.handler_name;
        };
        let given = route.name.as_deref().or(self.options.handler.as_deref());
        given.or(route.own_name).unwrap_or(&self.handler_name)
    }

    /// Names each part that fails, and handlers that hang.
    pub(crate) fn problem(&self) -> Option<String> {
        self.problem_at(Instant::now())
    }

    fn problem_at(&self, now: Instant) -> Option<String> {
        let hanging = self.in_flight.progress(now).problem(self.longest_run);
        let owned = self.owned.as_ref().map_or(Vec::new(), |one| one.faults());
        let tracks = self.tracks.iter().chain(self.settling.iter());
        let failing = self
            .faults
            .problem_of(tracks.map(|track| &track.faults).chain(&owned));
        let problems: Vec<String> = failing.into_iter().chain(hanging).collect();
        (!problems.is_empty()).then(|| problems.join("; "))
    }

    /// The present moment, if nothing waits for a first delivery in a track and this consumer holds nothing.
    /// Until something stirs, the members of the group then hold no more than they hold now.
    pub(crate) fn still(&self, track: &Track) -> Option<Moment> {
        let now = track.stir.now();
        let is_still = self.in_flight.len() == 0
            && track.stir.has_read_all(now)
            && !track.faults.reading.is_set()
            && !track.unseen.may_exist();
        is_still.then_some(now)
    }

    /// Whether the partition of a delivery is one of an owned group and does not answer.
    pub(crate) fn is_silent(&self, id: DeliveryId) -> bool {
        let owned = self.owned.as_ref();
        owned.is_some_and(|owned| owned.is_silent(id))
    }
}

/// Whether the subscription or one of its routes allows one attempt only.
pub(crate) fn may_have_one_attempt(options: &SubscribeOptions, work: &Work) -> bool {
    let routes = work.routes();
    let of_routes = routes.iter().filter_map(|route| route.retry.as_ref());
    of_routes
        .chain([&options.retry])
        .any(|policy| policy.max_attempts() == 1)
}

/// How long an attempt may run: the longest time limit of the subscription and its routes.
fn longest_run(options: &SubscribeOptions, work: &Work) -> Option<Duration> {
    let limit = options.handler_timeout?;
    let routes = work.routes();
    let of_routes = routes.iter().filter_map(|route| route.timeout);
    Some(of_routes.fold(limit, Duration::max))
}

/// The handler's name in dead letters: the given one, else its own, else `topic/group`.
fn handler_name(options: &SubscribeOptions, work: &Work, member: &Member) -> String {
    let given = options.handler.as_deref();
    match given.or_else(|| work.name()) {
        Some(name) => name.to_owned(),
        None => member.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{IntoRouter, Message, Payload, RouteOptions, Router};
    use crate::domain::Outcome;
    use crate::worker::fixture::{Fixture, member};

    const MINUTE: Duration = Duration::from_secs(60);

    async fn bill(_: Payload<u32>) {}

    #[derive(serde::Deserialize)]
    struct Placed;

    impl Message for Placed {
        const TYPE: &'static str = "order.placed";
    }

    async fn placed(_: Placed) {}

    #[tokio::test]
    async fn a_handler_that_runs_for_half_of_its_time_limit_is_a_problem() {
        let fixture = Fixture::new().await;
        let (core, _settlements) = fixture.core(SubscribeOptions::new());
        let fetched = fixture.fetch(2).await;
        let now = Instant::now();
        assert_eq!(core.accept(fetched, false, now), 2);
        let after = |minutes: u32| core.problem_at(now + minutes * MINUTE);
        assert_eq!(after(15), None, "no handler was called");
        let queued = core.queue.next().await.unwrap();
        queued.lease.begin();
        assert_eq!(after(14), None);
        let problem = after(15).unwrap();
        let entry = queued.fetched.receipt.to_string();
        assert!(problem.contains(&entry), "{problem}");
        queued.lease.end_call();
        assert_eq!(after(15), None);
    }

    #[test]
    fn the_longest_limit_of_the_subscription_and_its_routes_counts() {
        let hour = RouteOptions::new().with_timeout(60 * MINUTE);
        let router = Router::new().on_with(hour, placed);
        let work = IntoRouter::into_work(router, None).unwrap();
        let options = SubscribeOptions::new();
        assert_eq!(longest_run(&options, &work), Some(60 * MINUTE));
        let longer = options.clone().with_handler_timeout(90 * MINUTE);
        assert_eq!(longest_run(&longer, &work), Some(90 * MINUTE));
        let without = options.without_handler_timeout();
        assert_eq!(longest_run(&without, &work), None);
    }

    #[test]
    fn attempts_are_marked_where_a_subscription_or_a_route_allows_one() {
        let single = || RetryPolicy::fixed(Duration::ZERO).with_max_attempts(1);
        let work = |route: RouteOptions| {
            let router = Router::new().otherwise(Outcome::Ack).on_with(route, placed);
            IntoRouter::into_work(router, None).unwrap()
        };
        let default = SubscribeOptions::new();
        let plain = work(RouteOptions::new());
        assert!(!may_have_one_attempt(&default, &plain));
        let once = work(RouteOptions::new().with_retry(single()));
        assert!(may_have_one_attempt(&default, &once));
        assert!(may_have_one_attempt(&default.with_retry(single()), &plain));
    }

    #[test]
    fn a_handler_is_named_by_choice_by_itself_or_by_its_subscription() {
        let of = |options: &SubscribeOptions, work: Work| handler_name(options, &work, &member());
        let options = SubscribeOptions::new();
        let function = IntoRouter::into_work(bill, None).unwrap();
        assert!(of(&options, function).ends_with("::bill"));
        let closure = || IntoRouter::into_work(|_: Payload<u32>| async {}, None).unwrap();
        assert_eq!(of(&options, closure()), "orders/billing");
        let named = options.with_handler_name("bills");
        assert_eq!(of(&named, closure()), "bills");
    }
}
