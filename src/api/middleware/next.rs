//! The chain: middleware in the order of adding, and the handler behind it.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;

use crate::api::delivery::Delivery;
use crate::domain::{BoxFuture, ErrorRules, Outcome, panic_text_of};

/// The object-safe form of middleware. Its future owns everything that it uses, because a tower layer
/// may keep it.
#[doc(hidden)]
pub trait Layer: Send + Sync {
    fn run(self: Arc<Self>, delivery: Delivery, next: Next) -> BoxFuture<'static, Outcome>;
}

/// The handlers behind a chain.
pub(crate) trait End: Send + Sync {
    fn run(self: Arc<Self>, delivery: Delivery) -> BoxFuture<'static, Outcome>;
}

/// The middleware of a router, in the order of adding, with the router's error rules.
pub(crate) struct Chain {
    layers: Vec<Arc<dyn Layer>>,
    rules: Arc<ErrorRules>,
}

impl Chain {
    pub(crate) fn new(layers: Vec<Arc<dyn Layer>>, rules: Arc<ErrorRules>) -> Arc<Self> {
        Arc::new(Self { layers, rules })
    }

    /// Runs the whole chain around one delivery.
    pub(crate) fn run(
        self: &Arc<Self>,
        delivery: Delivery,
        end: Arc<dyn End>,
    ) -> BoxFuture<'static, Outcome> {
        let next = Next {
            chain: Arc::clone(self),
            at: 0,
            end,
        };
        Box::pin(next.run(delivery))
    }
}

/// The rest of the chain: the middleware after this one, and the handler.
#[must_use = "the handler runs only when `run` is awaited"]
pub struct Next {
    chain: Arc<Chain>,
    /// The place of the next middleware.
    at: usize,
    end: Arc<dyn End>,
}

impl fmt::Debug for Next {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Next")
            .field("at", &self.at)
            .field("layers", &self.chain.layers.len())
            .finish_non_exhaustive()
    }
}

impl Next {
    /// Runs the middleware after this one, and the handler. Returns how the delivery ends.
    ///
    /// A panic of theirs returns as [`Outcome::Retry`] with the text of the panic.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops that of the handler, where it awaits.
    pub async fn run(mut self, delivery: Delivery) -> Outcome {
        let layer = self.chain.layers.get(self.at).map(Arc::clone);
        let component = match layer {
            Some(_) => "middleware",
            None => "the handler",
        };
        let step = async move {
            match layer {
                Some(layer) => {
                    self.at += 1;
                    layer.run(delivery, self).await
                }
                None => self.end.run(delivery).await,
            }
        };
        let outcome = AssertUnwindSafe(step).catch_unwind().await;
        outcome.unwrap_or_else(|panic| Outcome::retry(panic_text_of(component, panic)))
    }

    /// The error rules of the router that the middleware was added to.
    pub(super) fn rules(&self) -> Arc<ErrorRules> {
        Arc::clone(&self.chain.rules)
    }
}
