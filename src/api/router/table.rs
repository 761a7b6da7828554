//! The routes of a subscription, by type.

use std::future::ready;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use rustc_hash::FxHashMap;

use super::route::{BatchRoute, Ready};
use crate::api::delivery::Delivery;
use crate::api::handler::{RawBatchHandler, RawHandler, RouteSettings};
use crate::domain::{BoxFuture, Outcome, Reason, panic_text};

/// The routes of a subscription.
pub(super) struct Routes {
    pub(super) by_type: FxHashMap<&'static str, (Ready, RouteSettings)>,
    /// The handler of all other types.
    pub(super) otherwise: Option<(Ready, RouteSettings)>,
}

impl Routes {
    pub(super) fn has_batches(&self) -> bool {
        self.all()
            .any(|(route, _)| matches!(route, Ready::Batch(_)))
    }

    fn all(&self) -> impl Iterator<Item = &(Ready, RouteSettings)> {
        self.by_type.values().chain(&self.otherwise)
    }

    fn of_type(&self, message_type: &str) -> Option<&(Ready, RouteSettings)> {
        let found = self.by_type.get(message_type);
        found.or(self.otherwise.as_ref())
    }

    pub(super) fn of(&self, delivery: &Delivery) -> Option<&Ready> {
        let found = self.of_type(delivery.envelope().message_type());
        found.map(|(route, _)| route)
    }

    fn settings(&self, message_type: &str) -> Option<&RouteSettings> {
        self.of_type(message_type).map(|(_, settings)| settings)
    }

    fn all_settings(&self) -> Vec<&RouteSettings> {
        self.all().map(|(_, settings)| settings).collect()
    }

    fn unhandled(&self, delivery: &Delivery) -> Outcome {
        unhandled(delivery, self.by_type.keys().copied())
    }
}

/// The outcome of a message whose type has no handler.
pub(super) fn unhandled(
    delivery: &Delivery,
    handled: impl Iterator<Item = &'static str>,
) -> Outcome {
    let mut handled: Vec<_> = handled.collect();
    handled.sort_unstable();
    let error = format!(
        "no handler for type {:?}; handled here: {}",
        delivery.envelope().message_type(),
        handled.join(", ")
    );
    Outcome::dead_letter_as(Reason::Unhandled, error)
}

impl RawHandler for Routes {
    fn handle(&self, delivery: Delivery) -> BoxFuture<'_, Outcome> {
        match self.of(&delivery) {
            Some(Ready::Each(route)) => route.handle(delivery),
            Some(Ready::Batch(route)) => Box::pin(async move {
                let outcomes = route.handle(vec![delivery]).await;
                let first = outcomes.into_iter().next();
                first.unwrap_or_else(|| Outcome::retry("no outcome"))
            }),
            None => Box::pin(ready(self.unhandled(&delivery))),
        }
    }

    fn route(&self, message_type: &str) -> Option<&RouteSettings> {
        self.settings(message_type)
    }

    fn routes(&self) -> Vec<&RouteSettings> {
        self.all_settings()
    }
}

/// The deliveries of one batch route, with their places in the batch.
struct Part<'a> {
    route: &'a dyn BatchRoute,
    message_type: String,
    places: Vec<usize>,
    deliveries: Vec<Delivery>,
}

impl RawBatchHandler for Routes {
    /// Splits the batch by type. The batch handlers, and the single handlers of the other messages,
    /// run concurrently; a panic fails the messages of its own call.
    fn handle(&self, batch: Vec<Delivery>) -> BoxFuture<'_, Vec<Outcome>> {
        Box::pin(async move {
            let count = batch.len();
            let (mut parts, mut calls): (Vec<Part<'_>>, Vec<BoxFuture<'_, _>>) = Default::default();
            for (place, delivery) in batch.into_iter().enumerate() {
                let Some(Ready::Batch(route)) = self.of(&delivery) else {
                    calls.push(Box::pin(async move {
                        vec![(place, guarded(RawHandler::handle(self, delivery)).await)]
                    }));
                    continue;
                };
                let message_type = delivery.envelope().message_type();
                if !parts.iter().any(|part| part.message_type == message_type) {
                    parts.push(Part {
                        route: &**route,
                        message_type: message_type.to_owned(),
                        places: Vec::new(),
                        deliveries: Vec::new(),
                    });
                }
                let mut same = parts
                    .iter_mut()
                    .filter(|part| part.message_type == message_type);
                if let Some(part) = same.next() {
                    part.places.push(place);
                    part.deliveries.push(delivery);
                }
            }
            calls.extend(parts.into_iter().map(|part| -> BoxFuture<'_, _> {
                Box::pin(async move {
                    let outcomes = part.route.handle(part.deliveries).await;
                    part.places.into_iter().zip(outcomes).collect()
                })
            }));
            let mut outcomes = vec![None; count];
            for (place, outcome) in join_all(calls).await.into_iter().flatten() {
                outcomes[place] = Some(outcome);
            }
            let missing = || Outcome::retry("no outcome");
            let outcomes = outcomes.into_iter();
            outcomes
                .map(|outcome| outcome.unwrap_or_else(missing))
                .collect()
        })
    }

    fn route(&self, message_type: &str) -> Option<&RouteSettings> {
        self.settings(message_type)
    }

    fn routes(&self) -> Vec<&RouteSettings> {
        self.all_settings()
    }
}

/// Turns a panic into a failed attempt.
async fn guarded(handling: BoxFuture<'_, Outcome>) -> Outcome {
    let outcome = AssertUnwindSafe(handling).catch_unwind().await;
    outcome.unwrap_or_else(|panic| Outcome::retry(panic_text(panic)))
}
