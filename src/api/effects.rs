//! Effects in the hands of users: messages of a type, and what a commit has done.

use serde::Serialize;

use crate::api::Published;
use crate::api::handler::{Message, message};
use crate::domain::{Effects, Topic};

/// What a commit of [`Effects`] has done.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Committed {
    /// The messages, in the order of [`Effects::published`].
    pub published: Vec<Published>,
    /// Whether the key of an [`Effects::once`] existed. Nothing was written then.
    pub skipped: bool,
}

/// What a commit of [`Effects`] would do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Rehearsal {
    /// It would write everything.
    Writes,
    /// It would write nothing, because the key of an [`Effects::once`] exists.
    Skips,
}

impl Effects {
    /// Publishes a message under its [type](Message::TYPE), with its [key](Message::key). See
    /// [`publish`](Self::publish).
    ///
    /// # Example
    ///
    /// ```
    /// use redstart::{Effects, Message, Topic};
    /// use serde::Serialize;
    ///
    /// const INVOICES: Topic = Topic::from_static("invoices");
    ///
    /// #[derive(Serialize)]
    /// struct Due {
    ///     cents: u64,
    /// }
    ///
    /// impl Message for Due {
    ///     const TYPE: &'static str = "invoice.due";
    /// }
    ///
    /// let mut effects = Effects::new();
    /// effects.send(&INVOICES, &Due { cents: 1250 }).incr("revenue", 1250);
    /// assert_eq!(effects.published().count(), 1);
    /// ```
    pub fn send<T: Message + Serialize>(&mut self, topic: &Topic, message: &T) -> &mut Self {
        match message::envelope(message) {
            Ok(envelope) => self.publish(topic, envelope),
            Err(error) => self.refuse(error.on(topic.as_str())),
        }
    }
}
