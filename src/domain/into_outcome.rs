//! The values that handlers return.

use std::convert::Infallible;
use std::error::Error as StdError;

use super::effects::Effects;
use super::error_rules::ErrorRules;
use super::outcome::Outcome;

/// A value that a handler may return: `()` is an ack, an error is a retry.
#[diagnostic::on_unimplemented(
    message = "a handler cannot return `{Self}`",
    label = "this says nothing about how the delivery ends",
    note = "return `()`, `Outcome` or `Effects`, or a `Result` of one of them; `Err` means: try again by the retry policy",
    note = "an absent value is not an outcome: end with `Ok(())` or `Outcome::dead_letter(\"…\")`"
)]
pub trait IntoOutcome {
    /// Converts the value to an outcome.
    fn into_outcome(self) -> Outcome;

    /// Like [`into_outcome`](Self::into_outcome), with the error rules of a router.
    #[doc(hidden)]
    fn into_outcome_by(self, rules: &ErrorRules) -> Outcome
    where
        Self: Sized,
    {
        let _ = rules;
        self.into_outcome()
    }

    /// Whether the value acknowledges without saying so, as `()` and `Ok(())` do. A cancelled
    /// handler does not acknowledge by such a value: its message is given back, uncounted.
    fn is_implied_ack(&self) -> bool {
        false
    }
}

impl IntoOutcome for () {
    fn into_outcome(self) -> Outcome {
        Outcome::Ack
    }

    fn is_implied_ack(&self) -> bool {
        true
    }
}

impl IntoOutcome for Outcome {
    fn into_outcome(self) -> Outcome {
        self
    }
}

impl IntoOutcome for Effects {
    fn into_outcome(self) -> Outcome {
        Outcome::Commit(self)
    }
}

impl IntoOutcome for Infallible {
    fn into_outcome(self) -> Outcome {
        match self {}
    }
}

impl<T: IntoOutcome, E: HandlerError> IntoOutcome for Result<T, E> {
    fn into_outcome(self) -> Outcome {
        self.into_outcome_by(&ErrorRules::default())
    }

    fn into_outcome_by(self, rules: &ErrorRules) -> Outcome {
        match self {
            Ok(value) => value.into_outcome_by(rules),
            Err(error) => error.decide(rules),
        }
    }

    fn is_implied_ack(&self) -> bool {
        self.as_ref().is_ok_and(T::is_implied_ack)
    }
}

/// An error that a handler may return: any error type, a text, or an [`Outcome`].
///
/// An error is a retry, unless a rule of the [router](crate::Router::on_error) decides otherwise. An
/// `Outcome` decides by itself. With `From<AppError> for Outcome`, the operator `?` turns an
/// application's error into one.
#[diagnostic::on_unimplemented(
    message = "a handler cannot fail with `{Self}`",
    label = "`{Self}` is not an error type",
    note = "any type that implements `std::error::Error`, and `anyhow::Error`, `eyre::Report`, `String` and `&str` will do",
    note = "an error that decides how the delivery ends: `Result<_, Outcome>`, or `Router::on_error` and `Router::on_cause`"
)]
pub trait HandlerError: Sized + 'static {
    #[doc(hidden)]
    fn decide(self, rules: &ErrorRules) -> Outcome;
}

#[diagnostic::do_not_recommend]
impl<E: Into<Box<dyn StdError + Send + Sync>> + 'static> HandlerError for E {
    fn decide(self, rules: &ErrorRules) -> Outcome {
        if let Some(outcome) = rules.ask_value(&self) {
            return outcome;
        }
        let error: Box<dyn StdError + Send + Sync> = self.into();
        rules
            .ask_causes(&*error)
            .unwrap_or_else(|| Outcome::of_error(&*error))
    }
}

impl HandlerError for Outcome {
    fn decide(self, _: &ErrorRules) -> Outcome {
        self
    }
}

/// A value that a batch handler may return: one for the whole batch, or one outcome for each message.
#[diagnostic::on_unimplemented(
    message = "a batch handler cannot return `{Self}`",
    label = "this says nothing about how the messages of the batch end",
    note = "return `()` or a `Result` for all messages, or a `Vec` with one outcome for each message, in their order"
)]
pub trait IntoOutcomes {
    /// Converts the value to the outcomes of `messages` messages, in their order.
    fn into_outcomes(self, messages: usize) -> Vec<Outcome>;

    /// Like [`into_outcomes`](Self::into_outcomes), with the error rules of a router.
    #[doc(hidden)]
    fn into_outcomes_by(self, messages: usize, rules: &ErrorRules) -> Vec<Outcome>
    where
        Self: Sized,
    {
        let _ = rules;
        self.into_outcomes(messages)
    }

    /// Whether the value acknowledges the message at `index` without saying so; see
    /// [`IntoOutcome::is_implied_ack`].
    fn is_implied_ack_at(&self, index: usize) -> bool {
        let _ = index;
        false
    }
}

/// Acknowledges every message.
impl IntoOutcomes for () {
    fn into_outcomes(self, messages: usize) -> Vec<Outcome> {
        Outcome::Ack.into_outcomes(messages)
    }

    fn is_implied_ack_at(&self, _: usize) -> bool {
        true
    }
}

/// Ends every message with this outcome.
impl IntoOutcomes for Outcome {
    fn into_outcomes(self, messages: usize) -> Vec<Outcome> {
        vec![self; messages]
    }
}

/// Ends each message with its own outcome, in their order. A `Vec` of any other length fails every
/// message, because no outcome can be matched to its message.
impl<T: IntoOutcome> IntoOutcomes for Vec<T> {
    fn into_outcomes(self, messages: usize) -> Vec<Outcome> {
        self.into_outcomes_by(messages, &ErrorRules::default())
    }

    fn into_outcomes_by(self, messages: usize, rules: &ErrorRules) -> Vec<Outcome> {
        if self.len() != messages {
            let error = format!("{} outcomes for {messages} messages", self.len());
            return Outcome::retry(error).into_outcomes(messages);
        }
        let outcomes = self.into_iter().map(|one| one.into_outcome_by(rules));
        outcomes.collect()
    }

    fn is_implied_ack_at(&self, index: usize) -> bool {
        self.get(index).is_some_and(T::is_implied_ack)
    }
}

/// An error fails every message: each is tried again by the retry policy.
impl<T: IntoOutcomes, E: HandlerError> IntoOutcomes for Result<T, E> {
    fn into_outcomes(self, messages: usize) -> Vec<Outcome> {
        self.into_outcomes_by(messages, &ErrorRules::default())
    }

    fn into_outcomes_by(self, messages: usize, rules: &ErrorRules) -> Vec<Outcome> {
        match self {
            Ok(value) => value.into_outcomes_by(messages, rules),
            Err(error) => error.decide(rules).into_outcomes(messages),
        }
    }

    fn is_implied_ack_at(&self, index: usize) -> bool {
        self.as_ref()
            .is_ok_and(|value| value.is_implied_ack_at(index))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::{Error, ErrorKind};

    #[test]
    fn units_and_nested_results_convert() {
        assert_eq!(().into_outcome(), Outcome::Ack);
        let snoozed: Result<Outcome, std::io::Error> = Ok(Outcome::snooze(Duration::ZERO));
        assert_eq!(
            snoozed.into_outcome(),
            Outcome::Snooze {
                delay: Duration::ZERO
            }
        );
    }

    #[test]
    fn a_batch_ends_as_one_or_each_by_itself_and_fails_on_a_wrong_number() {
        assert_eq!(().into_outcomes(2), [Outcome::Ack, Outcome::Ack]);
        let failed = Err::<(), _>("disk full").into_outcomes(2);
        assert_eq!(
            failed,
            [Outcome::retry("disk full"), Outcome::retry("disk full")]
        );
        let each = vec![Ok(()), Err("odd")].into_outcomes(2);
        assert_eq!(each, [Outcome::Ack, Outcome::retry("odd")]);
        let short = vec![Outcome::Ack].into_outcomes(2);
        let wrong = Outcome::retry("1 outcomes for 2 messages");
        assert_eq!(short, [wrong.clone(), wrong]);
    }

    #[test]
    fn redstart_being_busy_is_not_the_messages_failure() {
        #[derive(Debug)]
        struct Wrapped(Error);
        impl std::fmt::Display for Wrapped {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("forwarding")
            }
        }
        impl StdError for Wrapped {
            fn source(&self) -> Option<&(dyn StdError + 'static)> {
                Some(&self.0)
            }
        }
        let error = |kind| Error::new(kind, "publish", "no");
        for (kind, busy) in [
            (ErrorKind::BacklogFull, true),
            (ErrorKind::Unavailable, true),
            (ErrorKind::OutcomeUnknown, false),
            (ErrorKind::TooLarge, false),
        ] {
            let is_back_off = |outcome| matches!(outcome, Outcome::BackOff { .. });
            let plain = Err::<(), _>(error(kind)).into_outcome();
            assert_eq!(is_back_off(plain), busy, "{kind}");
            let wrapped = Err::<(), _>(Wrapped(error(kind))).into_outcome();
            assert_eq!(is_back_off(wrapped), busy, "{kind} as a cause");
            let batch = Err::<(), _>(error(kind)).into_outcomes(2);
            assert_eq!(batch.len(), 2);
            assert!(
                batch.into_iter().all(|one| is_back_off(one) == busy),
                "{kind}"
            );
        }
    }

    #[test]
    fn only_a_value_without_a_word_acknowledges_by_implication() {
        assert!(().is_implied_ack() && Ok::<_, Error>(()).is_implied_ack());
        assert!(!Outcome::Ack.is_implied_ack());
        assert!(!Ok::<_, Error>(Outcome::Ack).is_implied_ack());
        assert!(!Err::<(), _>("no").is_implied_ack());
        let batch = [Ok(()), Err("no")].to_vec();
        assert!(batch.is_implied_ack_at(0));
        assert!(!batch.is_implied_ack_at(1));
        assert!(!vec![Outcome::Ack].is_implied_ack_at(0));
    }

    #[test]
    fn a_plain_error_means_retry_and_keeps_its_causes() {
        let error = Error::new(
            ErrorKind::Decode,
            "decode payload",
            "the payload is not a valid u32",
        )
        .because("expected a number");
        let Outcome::Retry { error, delay } = Err::<(), _>(error).into_outcome() else {
            panic!("not a retry");
        };
        assert_eq!(
            error,
            "decode payload: the payload is not a valid u32: expected a number"
        );
        assert_eq!(delay, None);
    }

    /// An error around another one.
    #[derive(Debug)]
    struct Outer(std::io::Error);

    impl std::fmt::Display for Outer {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("printing")
        }
    }

    impl StdError for Outer {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn the_first_rule_with_an_answer_decides_about_an_error() {
        let mut rules = ErrorRules::default();
        rules.add_cause(|error: &std::io::Error| {
            let missing = error.kind() == std::io::ErrorKind::NotFound;
            missing.then(|| Outcome::dead_letter("by the cause"))
        });
        rules.add_cause(|_: &std::io::Error| Some(Outcome::dead_letter("by a later rule")));
        rules.add_value(|text: &&str| (*text == "stop").then(|| Outcome::dead_letter("by value")));
        let decided = |error: Outer| Err::<(), _>(error).into_outcome_by(&rules);
        let outer = |kind: std::io::ErrorKind| Outer(kind.into());
        assert_eq!(
            decided(outer(std::io::ErrorKind::NotFound)),
            Outcome::dead_letter("by the cause")
        );
        assert_eq!(
            decided(outer(std::io::ErrorKind::Other)),
            Outcome::dead_letter("by a later rule")
        );
        let boxed: Box<dyn StdError + Send + Sync> = outer(std::io::ErrorKind::NotFound).into();
        assert_eq!(
            Err::<(), _>(boxed).into_outcome_by(&rules),
            Outcome::dead_letter("by the cause")
        );
        let each = vec![Err("stop"), Err("go"), Ok(())].into_outcomes_by(3, &rules);
        let ends = [
            Outcome::dead_letter("by value"),
            Outcome::retry("go"),
            Outcome::Ack,
        ];
        assert_eq!(each, ends);
    }

    #[test]
    fn an_error_that_is_an_outcome_decides_by_itself() {
        struct Missing;
        impl From<Missing> for Outcome {
            fn from(_: Missing) -> Self {
                Outcome::dead_letter("no such order")
            }
        }
        let find = || -> Result<(), Outcome> { Err(Missing)? };
        assert_eq!(find().into_outcome(), Outcome::dead_letter("no such order"));
        let delayed = Err::<(), _>(Outcome::snooze(Duration::ZERO)).into_outcomes(2);
        assert_eq!(delayed, vec![Outcome::snooze(Duration::ZERO); 2]);
    }
}
