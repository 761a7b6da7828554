//! Hooks around publishes.

use std::any::type_name;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use crate::api::publish::Published;
use crate::domain::{Envelope, Error, ErrorKind, Topic};

/// Code around each publish of a container, given to
/// [`with_publish_hook`](crate::container::ContainerBuilder::with_publish_hook).
///
/// The container calls it for each envelope by itself, also for those of a batch, whatever publishes
/// them: a [`Bus`](crate::Bus), a [`Publisher`](crate::extract::Publisher), or a sweep that publishes dead
/// letters to another topic. The hooks do not run for retries and redriven dead letters.
/// The tool `redstart` has no hooks.
///
/// Messages of [`Effects`](crate::Effects) pass the hooks when the effects are committed. They share one
/// fate: an error of one message is the result of each. Where a conflict runs a handler again, the hooks
/// run again. A rehearsal runs `before` only.
///
/// Messages for later pass `before` when they are scheduled, and keep the schedule id that they had
/// before it. The store publishes them when they are due, so `after` runs only for one that was not
/// scheduled.
///
/// Hooks are synchronous and run on the publisher's task: they must not block it. A panic reaches the
/// publisher; the message may have been published if `after` panics.
///
/// # Example
///
/// ```
/// use std::error::Error;
///
/// use redstart::middleware::PublishHook;
/// use redstart::{Envelope, Topic};
///
/// struct Region(&'static str);
///
/// impl PublishHook for Region {
///     fn before(&self, _: &Topic, envelope: &mut Envelope) -> Result<(), Box<dyn Error + Send + Sync>> {
///         if envelope.tenant().is_none() {
///             return Err("no tenant".into());
///         }
///         envelope.set_header("region", self.0);
///         Ok(())
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a publish hook",
    label = "expected a type that implements `PublishHook`",
    note = "implement `PublishHook` with `before`, `after` or both; a function does not do"
)]
pub trait PublishHook: Send + Sync + 'static {
    /// Runs before a message is encoded, on a copy of its envelope, which it may change. The hooks run
    /// in the order of adding. It does not run if the container is closed or the options are out of
    /// bounds: such a call publishes nothing.
    ///
    /// # Errors
    ///
    /// An error refuses this message: it is not published, and later hooks do not see it. The other
    /// messages of a batch are published. The publisher gets an error that names the topic and the
    /// hook's type, of the kind [`Invalid`](crate::ErrorKind::Invalid), or of the same kind as an
    /// [`Error`] of Redstart, with this error as its cause.
    fn before(
        &self,
        topic: &Topic,
        envelope: &mut Envelope,
    ) -> Result<(), Box<dyn StdError + Send + Sync>> {
        let _ = (topic, envelope);
        Ok(())
    }

    /// Runs after the store has answered, with the envelope as the hooks left it and the result that
    /// the publisher gets. The hooks run in the reverse order of adding. It also runs for a message
    /// that a hook refused or for which its topic has no space. It does not run if the publisher drops
    /// its future before.
    fn after(&self, topic: &Topic, envelope: &Envelope, result: &Result<Published, Error>) {
        let _ = (topic, envelope, result);
    }
}

/// The hooks of a container, in the order of adding.
#[derive(Clone, Default)]
pub(crate) struct PublishHooks(Vec<Named>);

#[derive(Clone)]
struct Named {
    name: &'static str,
    hook: Arc<dyn PublishHook>,
}

impl fmt::Debug for PublishHooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|one| one.name))
            .finish()
    }
}

impl PublishHooks {
    pub(crate) fn add<H: PublishHook>(&mut self, hook: H) {
        self.0.push(Named {
            name: type_name::<H>(),
            hook: Arc::new(hook),
        });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Passes an envelope through all hooks, until one refuses it.
    pub(crate) fn before(&self, topic: &Topic, envelope: &mut Envelope) -> Result<(), Error> {
        self.0.iter().try_for_each(|Named { name, hook }| {
            let refused = |cause: Box<dyn StdError + Send + Sync>| {
                let own = cause.downcast_ref().map(Error::kind);
                let kind = own.unwrap_or(ErrorKind::Invalid);
                let rule = format!("the publish hook {name} refused the message");
                Error::new(kind, "publish", rule)
                    .on(topic.as_str())
                    .because(cause)
            };
            hook.before(topic, envelope).map_err(refused)
        })
    }

    pub(crate) fn after(
        &self,
        topic: &Topic,
        envelope: &Envelope,
        result: &Result<Published, Error>,
    ) {
        for Named { hook, .. } in self.0.iter().rev() {
            hook.after(topic, envelope, result);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Header(&'static str);

    impl PublishHook for Header {
        fn before(
            &self,
            _: &Topic,
            envelope: &mut Envelope,
        ) -> Result<(), Box<dyn StdError + Send + Sync>> {
            let seen = envelope.headers().get("seen").cloned().unwrap_or_default();
            envelope.set_header("seen", seen + self.0);
            Ok(())
        }
    }

    struct Refuses(Option<Error>);

    impl PublishHook for Refuses {
        fn before(
            &self,
            _: &Topic,
            _: &mut Envelope,
        ) -> Result<(), Box<dyn StdError + Send + Sync>> {
            match &self.0 {
                Some(error) => Err(Box::new(error.clone())),
                None => Err("no tenant".into()),
            }
        }
    }

    #[test]
    fn hooks_run_in_the_order_of_adding_until_one_refuses() {
        let mut hooks = PublishHooks::default();
        hooks.add(Header("a"));
        hooks.add(Header("b"));
        hooks.add(Refuses(None));
        hooks.add(Header("c"));
        let mut envelope = Envelope::new("t", &1).unwrap();
        let topic = Topic::from_static("orders");
        let error = hooks.before(&topic, &mut envelope).unwrap_err();
        assert_eq!(envelope.headers()["seen"], "ab");
        assert_eq!(error.kind(), ErrorKind::Invalid);
        let text = format!("{error:?}");
        assert!(text.contains("orders"), "{text}");
        assert!(text.contains("hook::tests::Refuses"), "{text}");
        assert!(text.contains("no tenant"), "{text}");
    }

    #[test]
    fn an_error_of_redstart_keeps_its_kind() {
        let mut hooks = PublishHooks::default();
        let cause = Error::new(ErrorKind::Unavailable, "get", "no connection");
        hooks.add(Refuses(Some(cause)));
        let mut envelope = Envelope::new("t", &1).unwrap();
        let topic = Topic::from_static("orders");
        let error = hooks.before(&topic, &mut envelope).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
}
