//! Publishing dead letters to another topic, for sweeps.

use std::time::Duration;

use futures_util::future::join_all;
use uuid::Uuid;

use crate::api::PublishOptions;
use crate::domain::{EntryId, Envelope, Error, ErrorKind, Group, Reason, Topic};
use crate::operate::dead_letters::handle::DeadLetters;

/// For how long a topic remembers the dead letters that a sweep published to it.
const REMEMBERED: Duration = Duration::from_secs(600);

/// What became of the dead letters of one portion.
#[derive(Debug, Default)]
pub(super) struct PublishedPortion {
    /// The topic has them: the sweep removes them here.
    pub(super) published: Vec<EntryId>,
    /// They stay: the message breaks a rule, and every further try would fail too.
    pub(super) refused: Vec<(EntryId, Error)>,
    /// The first error that says nothing about its message. It ends the sweep, once the published
    /// ones are removed.
    pub(super) failed: Option<Error>,
}

impl PublishedPortion {
    fn note(&mut self, id: EntryId, error: Error) {
        if is_of_message(&error) {
            self.refused.push((id, error));
        } else {
            self.failed.get_or_insert(error);
        }
    }
}

/// Whether another message could be published where this one fails.
fn is_of_message(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Invalid | ErrorKind::TooLarge | ErrorKind::Encode | ErrorKind::Decode
    )
}

impl DeadLetters {
    /// Publishes dead letters, which the caller then removes: in this order an interruption loses
    /// none. For ten minutes the topic remembers each dead letter, not its envelope: neither a
    /// resumed sweep nor another operator publishes it again within that time, and an envelope that
    /// the topic has had before still goes out.
    pub(super) async fn publish(
        &self,
        topic: &Topic,
        group: &Group,
        ids: &[EntryId],
        to: &Topic,
    ) -> Result<PublishedPortion, Error> {
        let mut portion = PublishedPortion::default();
        for ids in self.portions(topic, group, ids).await? {
            self.publish_some(topic, group, &ids, (to, &mut portion))
                .await?;
            if portion.failed.is_some() {
                break;
            }
        }
        Ok(portion)
    }

    async fn publish_some(
        &self,
        topic: &Topic,
        group: &Group,
        ids: &[EntryId],
        (to, portion): (&Topic, &mut PublishedPortion),
    ) -> Result<(), Error> {
        let mut messages: Vec<(EntryId, Envelope)> = Vec::with_capacity(ids.len());
        for (id, letter) in self.find(topic, group, ids).await? {
            let envelope = letter.and_then(|letter| match letter.reason {
                Reason::Undecodable => Err(undecodable(topic, group, id)),
                _ => letter.envelope(),
            });
            match envelope {
                Ok(mut envelope) => {
                    envelope.reset_attempts();
                    messages.push((id, envelope));
                }
                // The bytes are what they are: whatever the kind of this error, no try succeeds.
                Err(error) => portion.refused.push((id, error)),
            }
        }
        let published = messages.iter().map(async |(id, envelope)| {
            let instance = format!("{topic}/{group}/{id}");
            let instance = Uuid::new_v5(&Uuid::NAMESPACE_URL, instance.as_bytes());
            let options = PublishOptions::new().with_instance(instance, REMEMBERED);
            (*id, self.bus.publish_with(to, envelope, options).await)
        });
        for (id, published) in join_all(published).await {
            match published {
                Ok(_) => portion.published.push(id),
                Err(error) => portion.note(id, error),
            }
        }
        Ok(())
    }
}

fn undecodable(topic: &Topic, group: &Group, id: EntryId) -> Error {
    let rule = "an undecodable message cannot be published";
    Error::new(ErrorKind::Decode, "publish", rule).on(format!("{topic}/{group} {id}"))
}
