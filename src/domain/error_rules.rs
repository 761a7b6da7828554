//! Rules that say how a delivery ends after an error of a handler.

use std::any::Any;
use std::error::Error as StdError;
use std::fmt;

use super::error::causes;
use super::outcome::Outcome;

type ValueRule = Box<dyn Fn(&dyn Any) -> Option<Outcome> + Send + Sync>;
type CauseRule = Box<dyn Fn(&(dyn StdError + 'static)) -> Option<Outcome> + Send + Sync>;

/// The error rules of a router. The first rule that has an answer decides.
#[derive(Default)]
#[doc(hidden)]
pub struct ErrorRules {
    by_value: Vec<ValueRule>,
    by_cause: Vec<CauseRule>,
}

impl fmt::Debug for ErrorRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ErrorRules")
            .field("by_value", &self.by_value.len())
            .field("by_cause", &self.by_cause.len())
            .finish()
    }
}

impl ErrorRules {
    /// Adds a rule for the value that a handler returns.
    pub(crate) fn add_value<E: 'static>(
        &mut self,
        decide: impl Fn(&E) -> Option<Outcome> + Send + Sync + 'static,
    ) {
        let rule = move |value: &dyn Any| value.downcast_ref().and_then(&decide);
        self.by_value.push(Box::new(rule));
    }

    /// Adds a rule for an error or one of its causes.
    pub(crate) fn add_cause<E: StdError + 'static>(
        &mut self,
        decide: impl Fn(&E) -> Option<Outcome> + Send + Sync + 'static,
    ) {
        let rule = move |error: &(dyn StdError + 'static)| error.downcast_ref().and_then(&decide);
        self.by_cause.push(Box::new(rule));
    }

    pub(super) fn ask_value(&self, value: &dyn Any) -> Option<Outcome> {
        self.by_value.iter().find_map(|rule| rule(value))
    }

    pub(super) fn ask_causes(&self, error: &(dyn StdError + 'static)) -> Option<Outcome> {
        let ask = |rule: &CauseRule| causes(error).find_map(rule);
        self.by_cause.iter().find_map(ask)
    }
}
