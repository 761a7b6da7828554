//! Effects on their way to a store: encode → admit; and from the store's answer to a result.

use std::collections::BTreeMap;
use std::time::Duration;

use super::draft::{Hooked, begin};
use super::gate::Admitted;
use super::publish::Publishing;
use crate::api::{Committed, PublishOptions, Published, Rehearsal};
use crate::domain::{Effects, Envelope, Error, ErrorKind, Operation, Topic, When, Write};
use crate::store::{Effect, EffectFate, NewEntry, Partition, Refusal};
use crate::wire::{Arena, value};

const OPERATION: &str = "commit";
/// How far the clocks of this machine and of the store may be apart for an exact first look.
const CLOCK_SKEW: Duration = Duration::from_secs(1);

/// Effects as the store writes them.
#[derive(Debug)]
pub(crate) struct Prepared {
    effects: Vec<Effect>,
    /// Empty without hooks.
    messages: Vec<Hooked>,
}

impl Prepared {
    pub(crate) fn effects(&self) -> &[Effect] {
        &self.effects
    }
}

/// Permission to publish the messages of some effects. Dropped after the commit.
#[derive(Debug, Default)]
pub(crate) struct Admission(Vec<Admitted>);

impl Publishing {
    /// Runs the hooks and encodes effects. Where this fails, the hooks learn it of each message that they
    /// have seen.
    ///
    /// # Errors
    ///
    /// The first rule that the effects break, or the error of a hook; nothing was done.
    pub(crate) fn prepare(&self, effects: &Effects) -> Result<Prepared, Error> {
        let (prepared, failed) = self.encode_effects(effects);
        match failed {
            Some(error) => {
                self.fail(&prepared, &error);
                Err(error)
            }
            None => Ok(prepared),
        }
    }

    /// Encodes effects up to the first error.
    fn encode_effects(&self, effects: &Effects) -> (Prepared, Option<Error>) {
        let operations = effects.operations();
        let mut prepared = Prepared {
            effects: Vec::with_capacity(operations.len()),
            messages: Vec::new(),
        };
        let valid = self.check_open("commit").and_then(|()| effects.check());
        if let Err(error) = valid {
            return (prepared, Some(error));
        }
        for operation in operations {
            match self.encode_operation(operation, &mut prepared.messages) {
                Ok(effect) => prepared.effects.push(effect),
                Err(error) => {
                    let error = match error.subject() {
                        None => error.on(operation.subject()),
                        Some(_) => error,
                    };
                    return (prepared, Some(error));
                }
            }
        }
        (prepared, None)
    }

    fn encode_message(
        &self,
        topic: &Topic,
        (envelope, options): (&Envelope, PublishOptions),
        messages: &mut Vec<Hooked>,
    ) -> Result<NewEntry, Error> {
        let encode = |envelope: &Envelope| {
            let (name, value) = self.encoder.encode(envelope, &mut Arena::new(1))?;
            Ok(NewEntry {
                id: options.identity(envelope),
                name,
                value,
                slot: envelope.slot(),
            })
        };
        let traced = self.with_trace(std::slice::from_ref(envelope));
        let envelope = traced.first().unwrap_or(envelope);
        if self.hooks.is_empty() {
            return encode(&begin(envelope));
        }
        let mut envelope = envelope.clone();
        envelope.reset_attempts();
        let accepted = self.hooks.before(topic, &mut envelope);
        let encoded = accepted.and_then(|()| encode(&envelope));
        messages.push(Hooked {
            topic: topic.clone(),
            envelope,
            is_later: false,
        });
        encoded
    }

    fn encode_operation(
        &self,
        operation: &Operation,
        messages: &mut Vec<Hooked>,
    ) -> Result<Effect, Error> {
        let encode = |portable| value::encode_portable(self.codec, portable);
        Ok(match operation {
            Operation::Publish {
                topic,
                envelope,
                options,
            } => Effect::Publish {
                at: Partition::of(topic),
                entry: self.encode_message(topic, (envelope, *options), messages)?,
                window: options.window(self.deduplication)?,
            },
            Operation::PublishLater {
                topic,
                envelope,
                due,
                options,
            } => {
                let traced = self.with_trace(std::slice::from_ref(envelope));
                let envelope = traced.first().unwrap_or(envelope);
                Effect::Schedule {
                    at: Partition::of(topic),
                    message: self.encode_later(topic, envelope, (*due, options), messages)?,
                }
            }
            Operation::Cancel { topic, id } => Effect::Cancel {
                at: Partition::of(topic),
                id: id.clone(),
            },
            Operation::Unchanged { key, seen } => Effect::Unchanged {
                key: key.clone(),
                seen: seen.clone(),
            },
            Operation::Once { key, ttl } => Effect::Once {
                key: key.clone(),
                ttl: *ttl,
            },
            Operation::Write { key, write } => {
                let key = key.clone();
                match write {
                    Write::Set { value, ttl } => Effect::Set {
                        key,
                        value: encode(value)?,
                        ttl: *ttl,
                    },
                    Write::Insert { value, ttl } => Effect::Insert {
                        key,
                        value: encode(value)?,
                        ttl: *ttl,
                    },
                    Write::Replace { seen, value, ttl } => Effect::Replace {
                        key,
                        seen: seen.clone(),
                        value: encode(value)?,
                        ttl: *ttl,
                    },
                    Write::Delete => Effect::Delete { key },
                    Write::Increment { by, within } => Effect::Increment {
                        key,
                        by: *by,
                        within: *within,
                    },
                }
            }
        })
    }

    /// Asks the backlogs for all messages of some effects. Creates missing topics.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::BacklogFull`] if a topic has no space for its messages, and the kinds of the
    /// connection. Nothing was published.
    pub(crate) async fn admit_all(&self, prepared: &Prepared) -> Result<Admission, Error> {
        let mut messages: BTreeMap<&Topic, u64> = BTreeMap::new();
        for effect in prepared.effects() {
            match effect {
                Effect::Publish { at, .. } => *messages.entry(at.topic()).or_default() += 1,
                // The store checks the number of messages for later, in the same step.
                Effect::Schedule { at, .. } => self.later.ensure_topic(at.topic()).await?,
                _ => {}
            }
        }
        let mut admission = Admission::default();
        for (topic, count) in messages {
            let admitted = self.backlog.admit_together(topic, count).await?;
            admission.0.push(admitted);
        }
        Ok(admission)
    }

    /// Says what a commit of effects would do now. Nothing is published, so `after` of the hooks does not
    /// run.
    pub(crate) async fn rehearse(&self, effects: &Effects) -> Result<Rehearsal, Error> {
        let (prepared, failed) = self.encode_effects(effects);
        if let Some(error) = failed {
            return Err(error);
        }
        let effects = prepared.effects();
        let fate = self.store.effects().rehearse(effects).await?;
        Ok(match committed(effects, fate)?.skipped {
            true => Rehearsal::Skips,
            false => Rehearsal::Writes,
        })
    }

    /// Counts the messages of a commit, and tells the hooks what became of them.
    pub(crate) fn finish(
        &self,
        prepared: &Prepared,
        admission: Admission,
        done: &Result<Committed, Error>,
    ) {
        if done.as_ref().is_ok_and(|done| !done.skipped) {
            for admitted in &admission.0 {
                admitted.count_published(admitted.count);
            }
            self.count_scheduled(prepared);
        }
        let mut published = done.iter().flat_map(|done| &done.published).copied();
        let is_skipped = done.as_ref().is_ok_and(|done| done.skipped);
        for message in &prepared.messages {
            let result = match done {
                Err(error) => Err(error.clone()),
                Ok(_) if message.is_later && !is_skipped => continue,
                Ok(_) if message.is_later => Err(skipped_message()),
                Ok(_) => published.next().ok_or_else(skipped_message),
            };
            self.hooks.after(&message.topic, &message.envelope, &result);
        }
    }

    /// Tells the hooks that the messages of some effects were not published.
    pub(crate) fn fail(&self, prepared: &Prepared, error: &Error) {
        self.finish(prepared, Admission::default(), &Err(error.clone()));
    }
}

impl Publishing {
    /// Counts the scheduled messages of a commit, and looks at their topics when they are due.
    fn count_scheduled(&self, prepared: &Prepared) {
        for effect in prepared.effects() {
            let Effect::Schedule { at, message } = effect else {
                continue;
            };
            metrics::counter!("redstart_scheduled_total", "topic" => at.topic().to_string())
                .increment(1);
            let delay = match message.due {
                When::After(delay) => delay,
                When::At(time) => {
                    let now = self.store.now().as_millis();
                    let millis = time.as_millis().saturating_sub(now);
                    let until = Duration::from_millis(u64::try_from(millis).unwrap_or(0));
                    // The store's clock may be ahead. A look tells how long is left.
                    until.saturating_sub(CLOCK_SKEW)
                }
            };
            self.due_in(at.topic(), delay);
        }
    }
}

/// A message that was left out with the other effects.
fn skipped_message() -> Error {
    let rule = "the key of a `once` exists; nothing was published";
    Error::new(ErrorKind::Conflict, OPERATION, rule)
}

/// What the caller of a commit learns.
pub(crate) fn committed(effects: &[Effect], fate: EffectFate) -> Result<Committed, Error> {
    let skipped = |skipped| Committed {
        skipped,
        ..Committed::default()
    };
    match fate {
        EffectFate::Done(appended) => {
            let published = appended.into_iter().map(|one| Published {
                id: one.id,
                duplicate: one.duplicate,
            });
            Ok(Committed {
                published: published.collect(),
                ..skipped(false)
            })
        }
        EffectFate::Skipped => Ok(skipped(true)),
        fate => Err(refused(effects, &fate)),
    }
}

/// The error of effects that were not written.
pub(crate) fn refused(effects: &[Effect], fate: &EffectFate) -> Error {
    let (at, kind, rule) = match fate {
        EffectFate::Differs(at) => {
            let rule = "the value is not the one that was read; nothing was written";
            (Some(*at), ErrorKind::Conflict, rule)
        }
        EffectFate::Refused(at, refusal) => {
            let rule = match refusal {
                Refusal::WrongType => "the key has another type; nothing was written",
                Refusal::NotAnInteger => "the value is not an integer; nothing was written",
                Refusal::OutOfRange => "the sum is out of range; nothing was written",
                Refusal::LaterFull { partition } => {
                    let topic = effects.get(*at).map_or("", Effect::subject);
                    return super::later::effects_full_of(topic, *partition);
                }
                Refusal::StreamFull => "the stream has given its last id; nothing was written",
            };
            (Some(*at), ErrorKind::Refused, rule)
        }
        _ => {
            let rule = "another consumer holds the message; nothing was written";
            (None, ErrorKind::LeaseLost, rule)
        }
    };
    let error = Error::new(kind, OPERATION, rule);
    match at.and_then(|at| effects.get(at)) {
        Some(effect) => error.on(effect.subject()),
        None => error,
    }
}
