//! The publish pipeline: validate → hooks → encode → admit → route → append.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use metrics::counter;
use tracing::{Instrument as _, Span};

use super::backlog::Backlog;
use super::draft::{Draft, add_slots, alike, encode, finish, move_entries, refuse_after};
use super::due::DueTable;
use super::gate::Admitted;
use super::later_desk::LaterDesk;
use crate::api::propagator::{Operation, OperationKind, Telemetry};
use crate::api::publish::PublishPort;
use crate::api::traces;
use crate::api::{PublishHooks, PublishOptions, Published};
use crate::domain::{BoxFuture, Codec, Durability, Envelope, Error, ErrorKind, TRACE, Topic};
use crate::store::{Partition, Store};
use crate::wire::{Encoder, Limits};

/// The publishing side of the bus on a store.
#[derive(Debug)]
pub(crate) struct Publishing {
    pub(super) store: Arc<dyn Store>,
    /// The codec of values.
    pub(super) codec: Codec,
    pub(super) encoder: Encoder,
    /// The deduplication window of publishes that set none.
    pub(super) deduplication: Option<Duration>,
    /// The level of publishes that set none.
    pub(super) durability: Durability,
    pub(super) hooks: PublishHooks,
    /// Without one, publishes and deliveries carry no trace.
    pub(super) telemetry: Option<Arc<Telemetry>>,
    pub(super) backlog: Backlog,
    /// Wakes the promoters of this container.
    dues: DueTable,
    pub(super) later: LaterDesk,
    closed: AtomicBool,
}

impl Publishing {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        codec: Codec,
        limits: Limits,
        deduplication: Option<Duration>,
        hooks: PublishHooks,
    ) -> Self {
        Self {
            backlog: Backlog::new(Arc::clone(&store)),
            later: LaterDesk::new(Arc::clone(&store)),
            store,
            codec,
            encoder: Encoder::new(codec, limits),
            deduplication,
            durability: Durability::Accepted,
            hooks,
            telemetry: None,
            dues: DueTable::default(),
            closed: AtomicBool::new(false),
        }
    }

    /// Publishes CloudEvents with this source; `None`: envelopes.
    pub(crate) fn with_events(mut self, source: Option<Arc<str>>) -> Self {
        self.encoder = self.encoder.with_events(source);
        self
    }

    /// Sets the level of publishes that set none.
    pub(crate) fn with_durability(mut self, level: Durability) -> Self {
        self.durability = level;
        self
    }

    /// Sets the propagator of traces.
    pub(crate) fn with_telemetry(mut self, telemetry: Option<Telemetry>) -> Self {
        self.telemetry = telemetry.map(Arc::new);
        self
    }

    /// The promoters of this container. Tell them of each message that becomes due later.
    pub(crate) fn dues(&self) -> &DueTable {
        &self.dues
    }

    /// Refuses further publishes with `Closed`.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.later.watch.close();
    }

    /// Fails with `Closed` after the container was shut down.
    pub(super) fn check_open(&self, operation: &'static str) -> Result<(), Error> {
        match self.closed.load(Ordering::Acquire) {
            true => Err(Error::new(ErrorKind::Closed, operation, CLOSED)),
            false => Ok(()),
        }
    }

    pub(super) async fn publish_one(
        &self,
        topic: &Topic,
        envelope: &Envelope,
        options: PublishOptions,
    ) -> Result<Published, Error> {
        let mut results = self
            .publish_many(topic, std::slice::from_ref(envelope), options)
            .await;
        // One message in, one result out.
        results.pop().unwrap_or_else(|| Err(closed(topic)))
    }

    pub(super) async fn publish_many(
        &self,
        topic: &Topic,
        envelopes: &[Envelope],
        options: PublishOptions,
    ) -> Vec<Result<Published, Error>> {
        let span = traces::publish(self.telemetry.as_deref(), topic, envelopes);
        let began = self.telemetry.is_some().then(Instant::now);
        let results = self
            .pipeline(topic, envelopes, options)
            .instrument(span.clone())
            .await;
        if let Some(began) = began {
            self.record(topic, &results, began.elapsed(), &span);
        }
        for error in results.iter().filter_map(|result| result.as_ref().err()) {
            let kind = error.kind().as_str();
            counter!("redstart_publish_failed_total", "topic" => topic.to_string(), "kind" => kind)
                .increment(1);
        }
        results
    }

    async fn pipeline(
        &self,
        topic: &Topic,
        envelopes: &[Envelope],
        options: PublishOptions,
    ) -> Vec<Result<Published, Error>> {
        let route = match self.validate(topic, options) {
            Ok(route) => route,
            Err(error) => return envelopes.iter().map(|_| Err(error.clone())).collect(),
        };
        if !self.hooks.is_empty() {
            return self.hooked(topic, envelopes, options, route).await;
        }
        let drafts = encode(&self.with_trace(envelopes), options, &self.encoder);
        self.publish_drafts(topic, envelopes, drafts, route).await
    }

    /// Publishes copies of the envelopes, which the hooks may change.
    async fn hooked(
        &self,
        topic: &Topic,
        envelopes: &[Envelope],
        options: PublishOptions,
        route: Route,
    ) -> Vec<Result<Published, Error>> {
        let mut envelopes = self.with_trace(envelopes).into_owned();
        let before = |envelope: &mut Envelope| {
            envelope.reset_attempts();
            self.hooks.before(topic, envelope)
        };
        let refused: Vec<_> = envelopes.iter_mut().map(before).collect();
        let mut drafts = encode(&envelopes, options, &self.encoder);
        for (draft, refused) in drafts.iter_mut().zip(refused) {
            if let Err(error) = refused {
                *draft = Draft::Done(Err(error));
            }
        }
        let results = self.publish_drafts(topic, &envelopes, drafts, route).await;
        for (envelope, result) in envelopes.iter().zip(&results) {
            self.hooks.after(topic, envelope, result);
        }
        results
    }

    /// Publishes the drafts of envelopes.
    async fn publish_drafts(
        &self,
        topic: &Topic,
        envelopes: &[Envelope],
        mut drafts: Vec<Draft>,
        route: Route,
    ) -> Vec<Result<Published, Error>> {
        let admitted = self.admit(topic, &mut drafts).await;
        if admitted.count > 0 {
            if admitted.at().is_whole() {
                add_slots(&mut drafts, envelopes);
            }
            self.append(admitted.at(), route, &mut drafts).await;
        }
        let results: Vec<_> = drafts.into_iter().map(Draft::into_result).collect();
        let new = results.iter().flatten().filter(|done| !done.duplicate);
        admitted.count_published(new.count() as u64);
        results
    }

    /// Adds the current span to the headers of messages that have no trace of their own. Copies them
    /// only then.
    pub(super) fn with_trace<'a>(&self, envelopes: &'a [Envelope]) -> Cow<'a, [Envelope]> {
        let lacks_trace =
            |envelope: &Envelope| envelope.inherited.0 || !envelope.headers.contains_key(TRACE);
        let Some(telemetry) = &self.telemetry else {
            return Cow::Borrowed(envelopes);
        };
        if !envelopes.iter().any(lacks_trace) {
            return Cow::Borrowed(envelopes);
        }
        let headers = telemetry.headers();
        if headers.is_empty() {
            return Cow::Borrowed(envelopes);
        }
        let mut envelopes = envelopes.to_vec();
        for envelope in envelopes
            .iter_mut()
            .filter(|envelope| lacks_trace(envelope))
        {
            // The state belongs to the span that the message inherited.
            envelope.headers.remove("tracestate");
            envelope.headers.extend(headers.clone());
        }
        Cow::Owned(envelopes)
    }

    /// Tells the propagator how a publish ended, and marks the span of a failed one.
    fn record(
        &self,
        topic: &Topic,
        results: &[Result<Published, Error>],
        duration: Duration,
        span: &Span,
    ) {
        let Some(telemetry) = &self.telemetry else {
            return;
        };
        let failures = results.iter().filter_map(|result| result.as_ref().err());
        let error_type = failures.clone().next().map(|error| error.kind().as_str());
        if let Some(error_type) = error_type {
            traces::fail(span, error_type);
        }
        let operation = Operation {
            kind: OperationKind::Send,
            name: "send",
            topic,
            group: None,
            messages: results.len() as u64,
            failed: failures.count() as u64,
            error_type,
            duration,
        };
        span.in_scope(|| telemetry.propagator.record(&operation));
    }

    /// Checks that the bus is open, and the options. Returns where the drafts go.
    fn validate(&self, topic: &Topic, options: PublishOptions) -> Result<Route, Error> {
        let validated = self.check_open("bus").and_then(|()| {
            Ok(Route {
                window: options.window(self.deduplication)?,
                level: options.durability(self.durability)?,
            })
        });
        validated.map_err(|error| error.on(topic.as_str()))
    }

    /// Asks the backlog for the open drafts and fails those beyond the limit.
    async fn admit(&self, topic: &Topic, drafts: &mut [Draft]) -> Admitted {
        let open = drafts.iter().filter(|draft| draft.is_open()).count();
        let (admitted, refusal) = self.backlog.admit(topic, open as u64).await;
        if let Err(error) = refusal {
            refuse_after(admitted.count, drafts, &error);
        }
        admitted
    }

    /// Appends the open drafts.
    async fn append(&self, at: &Partition, route: Route, drafts: &mut [Draft]) {
        let Route { window, level } = route;
        if let Some(window) = window {
            return self.append_once(at, (window, level), drafts).await;
        }
        let entries = move_entries(drafts);
        let log = self.store.log();
        let appended = match level {
            Durability::Accepted => log.append(at, &entries).await,
            level => log.append_durably(at, level, None, &entries).await,
        };
        finish(
            drafts,
            appended.unwrap_or_else(|error| alike(&error, entries.len())),
        );
    }
}

impl PublishPort for Publishing {
    fn publish_all_with<'a>(
        &'a self,
        topic: &'a Topic,
        envelopes: &'a [Envelope],
        options: PublishOptions,
    ) -> BoxFuture<'a, Vec<Result<Published, Error>>> {
        Box::pin(self.publish_many(topic, envelopes, options))
    }
}

/// How open drafts go to the log.
#[derive(Clone, Copy, Debug)]
struct Route {
    /// Not at all, if the message was published less than this ago.
    window: Option<Duration>,
    level: Durability,
}

const CLOSED: &str = "the container was shut down";

pub(super) fn closed(topic: &Topic) -> Error {
    Error::new(ErrorKind::Closed, "bus", CLOSED).on(topic.as_str())
}
