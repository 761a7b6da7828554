//! Effects: checked as a whole, then written as a whole, under the store's one lock.

use bytes::Bytes;

use super::adapter::{MemoryAdapter, turn};
use super::log::fields;
use super::owned::Owned;
use super::sessions::session_of;
use super::state::Space;
use super::table::{Now, TRUE};
use super::values::integer;
use crate::domain::{BoxFuture, Error, ttl_millis, whole_millis};
use crate::store::{
    Appended, Effect, EffectCommit, EffectFate, EffectStore, Holder, Member, NewEntry, Partition,
    Refusal, Session, check_key,
};

/// Checks what a caller may pass in wrongly, before anything is looked at.
fn check(effects: &[Effect]) -> Result<(), Error> {
    for effect in effects {
        let (key, ttl) = match effect {
            Effect::Publish { .. } | Effect::Schedule { .. } | Effect::Cancel { .. } => continue,
            Effect::Set { key, ttl, .. }
            | Effect::Insert { key, ttl, .. }
            | Effect::Replace { key, ttl, .. } => (key, *ttl),
            Effect::Once { key, ttl } => (key, Some(*ttl)),
            Effect::Delete { key }
            | Effect::Increment { key, .. }
            | Effect::Unchanged { key, .. } => (key, None),
        };
        check_key("commit", key)?;
        ttl_millis("commit", ttl).map_err(|e| e.on(key.as_str()))?;
    }
    Ok(())
}

/// Why the effects cannot be written, if they cannot.
fn refusal(space: &mut Space, effects: &[Effect], now: u64) -> Option<EffectFate> {
    let topics = &space.topics;
    let values = Now {
        table: &mut space.values,
        now,
    };
    let skips = |effect: &Effect| match effect {
        Effect::Once { key, .. } => values.get(key).is_some(),
        _ => false,
    };
    if effects.iter().any(skips) {
        return Some(EffectFate::Skipped);
    }
    let problem = |(at, effect): (usize, &Effect)| match effect {
        Effect::Insert { key, .. } => values.get(key).map(|_| EffectFate::Differs(at)),
        Effect::Replace { key, seen, .. } | Effect::Unchanged { key, seen } => {
            (values.get(key) != *seen).then_some(EffectFate::Differs(at))
        }
        Effect::Increment { key, by, within } => {
            let refused = |refusal| Some(EffectFate::Refused(at, refusal));
            let current = match values.get(key) {
                Some(bytes) => match integer(&bytes) {
                    Some(number) => number,
                    None => return refused(Refusal::NotAnInteger),
                },
                None => 0,
            };
            let (least, greatest) = within.unwrap_or((i64::MIN, i64::MAX));
            match current.checked_add(*by) {
                Some(sum) if (least..=greatest).contains(&sum) => None,
                _ => refused(Refusal::OutOfRange),
            }
        }
        Effect::Schedule {
            at: partition,
            message,
        } => {
            let topic = topics.get(partition)?;
            if topic.later.contains(&message.id) {
                return None;
            }
            // Effects schedule an id once, so each of those before it is another message.
            let before = effects[..at].iter().filter(|effect| {
                matches!(effect, Effect::Schedule { at, message }
                    if at == partition && !topic.later.contains(&message.id))
            });
            let is_full = before.count() as u64 >= topic.left_for_later();
            let partition = None;
            is_full.then_some(EffectFate::Refused(at, Refusal::LaterFull { partition }))
        }
        _ => None,
    };
    effects.iter().enumerate().find_map(problem)
}

fn append(
    space: &mut Space,
    (at, entry): (&Partition, &NewEntry),
    window: Option<u64>,
    now: u64,
) -> Appended {
    let state = space.topics.entry(at.clone()).or_default();
    let known = window.and_then(|window| state.ids.within(entry.id, window, now));
    if let Some(id) = known {
        let duplicate = true;
        return Appended { id, duplicate };
    }
    let id = state.log.push(now, fields(entry));
    if let Some(window) = window {
        state.ids.remember(entry.id, id, window, now);
    }
    state.arrived.notify_waiters();
    let duplicate = false;
    Appended { id, duplicate }
}

/// Writes effects that were checked.
fn write(space: &mut Space, effects: &[Effect], now: u64) -> Vec<Appended> {
    let mut appended = Vec::new();
    for effect in effects {
        let mut values = Now {
            table: &mut space.values,
            now,
        };
        // The bounds were checked before.
        let millis = |ttl| ttl_millis("commit", ttl).unwrap_or(0);
        match effect {
            Effect::Publish { at, entry, window } => {
                appended.push(append(space, (at, entry), window.map(whole_millis), now));
            }
            Effect::Set { key, value, ttl }
            | Effect::Insert { key, value, ttl }
            | Effect::Replace {
                key, value, ttl, ..
            } => values.set(key, value.clone(), millis(*ttl)),
            Effect::Once { key, ttl } => {
                values.set(key, Bytes::from_static(TRUE[0]), millis(Some(*ttl)));
            }
            Effect::Delete { key } => {
                values.remove(key);
            }
            Effect::Increment { key, by, .. } => {
                let current = values.get(key).and_then(|bytes| integer(&bytes));
                let sum = current.unwrap_or(0).saturating_add(*by);
                values.replace(key, sum.to_string().into());
            }
            Effect::Schedule { at, message } => {
                let topic = space.topics.entry(at.clone()).or_default();
                topic.later.put(message, now);
            }
            Effect::Cancel { at, id } => {
                if let Some(topic) = space.topics.get_mut(at) {
                    topic.later.remove(id);
                }
            }
            Effect::Unchanged { .. } => {}
        }
    }
    appended
}

/// Checks and writes one list of effects.
fn apply_one(space: &mut Space, effects: &[Effect], now: u64) -> EffectFate {
    match refusal(space, effects, now) {
        Some(fate) => fate,
        None => EffectFate::Done(write(space, effects, now)),
    }
}

fn commit_one(space: &mut Space, by: &Member, commit: &EffectCommit, now: u64) -> EffectFate {
    let EffectCommit {
        delivery,
        acknowledges,
        only_copy,
        effects,
    } = commit;
    let Some(group) = space.group(&by.at) else {
        return EffectFate::Lost;
    };
    match group
        .cursor(delivery.lane)
        .holder(delivery.id, &by.consumer)
    {
        Holder::Member => {}
        Holder::Nobody if *only_copy => {}
        Holder::Nobody => return EffectFate::NotHeld,
        _ => return EffectFate::Lost,
    }
    let fate = apply_one(space, effects, now);
    let ends = matches!(fate, EffectFate::Done(_) | EffectFate::Skipped);
    if ends
        && *acknowledges
        && let Some(group) = space.group(&by.at)
    {
        group.cursor(delivery.lane).pending.remove(&delivery.id);
    }
    fate
}

/// The same of a delivery of an owned partition.
fn commit_one_owned(
    space: &mut Space,
    (by, token): (&Member, u64),
    commit: &EffectCommit,
    now: u64,
) -> EffectFate {
    let delivery = commit.delivery;
    let may_end = |owned: &mut Owned| owned.may_end((&by.consumer, token), delivery);
    if !owned_at(space, by).is_some_and(may_end) {
        return EffectFate::Lost;
    }
    let fate = apply_one(space, &commit.effects, now);
    let ends = matches!(fate, EffectFate::Done(_) | EffectFate::Skipped);
    if ends
        && commit.acknowledges
        && let Some(owned) = owned_at(space, by)
    {
        owned.mark_settled(delivery);
    }
    fate
}

fn owned_at<'s>(space: &'s mut Space, by: &Member) -> Option<&'s mut Owned> {
    space.group(&by.at)?.owned.as_mut()
}

impl MemoryAdapter {
    /// Carries out a numbered call, or finds the answer that it got before.
    fn in_session(
        &self,
        session: String,
        number: u64,
        work: impl FnOnce(&mut Space, u64) -> Vec<EffectFate>,
    ) -> Result<Vec<EffectFate>, Error> {
        self.with(|space| {
            let now = self.shared.now();
            if let Some(answer) = space.sessions.answer(&session, number, now)? {
                return Ok(answer);
            }
            let fates = work(space, now);
            space.sessions.note(session, number, &fates, now);
            Ok(fates)
        })
    }

    fn commit_effects(
        &self,
        (by, token): (&Member, Option<u64>),
        number: u64,
        commits: &[EffectCommit],
    ) -> Result<Vec<EffectFate>, Error> {
        commits.iter().try_for_each(|one| check(&one.effects))?;
        let session = session_of(&by.at, &by.consumer);
        self.in_session(session, number, |space, now| {
            let mut ended = Vec::new();
            let commit = |one: &EffectCommit| {
                if ended.contains(&one.delivery) {
                    return EffectFate::Lost;
                }
                let fate = match token {
                    Some(token) => commit_one_owned(space, (by, token), one, now),
                    None => commit_one(space, by, one, now),
                };
                let ends = matches!(fate, EffectFate::Done(_) | EffectFate::Skipped);
                if ends && one.acknowledges {
                    ended.push(one.delivery);
                }
                fate
            };
            commits.iter().map(commit).collect()
        })
    }
}

impl EffectStore for MemoryAdapter {
    fn commit<'a>(
        &'a self,
        by: &'a Member,
        number: u64,
        commits: &'a [EffectCommit],
    ) -> BoxFuture<'a, Result<Vec<EffectFate>, Error>> {
        turn(move || {
            let fates = self.commit_effects((by, None), number, commits)?;
            self.ring_for(commits.iter().flat_map(|commit| &commit.effects));
            Ok(fates)
        })
    }

    fn commit_owned<'a>(
        &'a self,
        by: &'a Member,
        token: u64,
        number: u64,
        commits: &'a [EffectCommit],
    ) -> BoxFuture<'a, Result<Vec<EffectFate>, Error>> {
        turn(move || {
            let fates = self.commit_effects((by, Some(token)), number, commits)?;
            self.ring_for(commits.iter().flat_map(|commit| &commit.effects));
            Ok(fates)
        })
    }

    fn apply<'a>(
        &'a self,
        session: Session,
        commits: &'a [Vec<Effect>],
    ) -> BoxFuture<'a, Result<Vec<EffectFate>, Error>> {
        turn(move || {
            commits.iter().try_for_each(|effects| check(effects))?;
            let name = session.id.simple().to_string();
            let fates = self.in_session(name, session.number, |space, now| {
                let apply = |effects: &Vec<Effect>| apply_one(space, effects, now);
                commits.iter().map(apply).collect()
            })?;
            self.ring_for(commits.iter().flatten());
            Ok(fates)
        })
    }

    fn rehearse<'a>(&'a self, effects: &'a [Effect]) -> BoxFuture<'a, Result<EffectFate, Error>> {
        turn(move || {
            check(effects)?;
            let now = self.shared.now();
            let refused = self.with(|space| refusal(space, effects, now));
            Ok(refused.unwrap_or(EffectFate::Done(Vec::new())))
        })
    }
}
