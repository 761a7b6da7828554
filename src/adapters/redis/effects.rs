//! Effects: messages, values and acknowledgements in one step, by script.

use std::collections::HashMap;

use bytes::Bytes;
use redis::{RedisError, Value};
use uuid::Uuid;

use super::adapter::RedisAdapter;
use super::deliveries::push_ranges;
use super::keys::{Keys, lane_name};
use super::later::{due_words, keep_word};
use super::resp::reply;
use super::scripts::{self, Call};
use crate::domain::{BoxFuture, Error, ErrorKind, describe, ttl_millis, whole_millis};
use crate::store::{
    Appended, Effect, EffectCommit, EffectFate, EffectStore, Member, Refusal, SESSION_LIVES,
    Session,
};

const OPERATION: &str = "commit";

/// The words of commits, and the keys that they name by number.
struct Words<'a> {
    keys: &'a Keys,
    /// How many keys stand before those of the effects.
    before: usize,
    names: Vec<String>,
    numbers: HashMap<String, usize>,
    words: Vec<Vec<u8>>,
}

impl<'a> Words<'a> {
    fn new(keys: &'a Keys, before: usize) -> Self {
        Self {
            keys,
            before,
            names: Vec::new(),
            numbers: HashMap::new(),
            words: Vec::new(),
        }
    }

    fn push(&mut self, word: impl AsRef<[u8]>) {
        self.words.push(word.as_ref().to_vec());
    }

    /// The number of a key among the script's keys.
    fn key(&mut self, name: String) -> usize {
        let next = self.before + self.names.len() + 1;
        let number = *self.numbers.entry(name.clone()).or_insert(next);
        if number == next {
            self.names.push(name);
        }
        number
    }

    fn value_key(&mut self, key: &str) -> Result<usize, Error> {
        Ok(self.key(self.keys.value(OPERATION, key)?))
    }

    fn effects(&mut self, effects: &[Effect]) -> Result<(), Error> {
        effects.iter().try_for_each(|effect| self.effect(effect))
    }

    fn effect(&mut self, effect: &Effect) -> Result<(), Error> {
        let millis = |key: &str, ttl| ttl_millis(OPERATION, ttl).map_err(|e| e.on(key));
        match effect {
            Effect::Publish { at, entry, window } => {
                let log = self.keys.log(at);
                let [ids, before] = match window {
                    Some(_) => self.keys.ids(at),
                    None => [log.clone(), log.clone()],
                };
                let keys = [log, ids, before].map(|name| self.key(name));
                let [log, ids, before] = keys;
                let (window, name) = (window.map_or(0, whole_millis), entry.name);
                self.push(format!("publish {log} {ids} {before} {window} {name}"));
                self.push(entry.id.as_bytes());
                self.push(&entry.value);
            }
            Effect::Schedule { at, message } => {
                let names = [
                    self.keys.later(at),
                    self.keys.later_body(at),
                    self.keys.meta(at),
                    self.keys.later_bell(at),
                ];
                let [later, bodies, settings, bell] = names.map(|name| self.key(name));
                let (word, millis) = due_words(message.due);
                let keep = keep_word(message);
                self.push(format!(
                    "schedule {later} {bodies} {settings} {bell} {word} {millis} {keep}"
                ));
                self.push(message.id.as_str());
                self.push([message.name.as_bytes(), b" ", &message.value].concat());
            }
            Effect::Cancel { at, id } => {
                let names = [self.keys.later(at), self.keys.later_body(at)];
                let [later, bodies] = names.map(|name| self.key(name));
                self.push(format!("cancel {later} {bodies}"));
                self.push(id.as_str());
            }
            Effect::Set { key, value, ttl } => {
                let (number, ttl) = (self.value_key(key)?, millis(key, *ttl)?);
                self.push(format!("set {number} {ttl}"));
                self.push(value);
            }
            Effect::Insert { key, value, ttl } => {
                let (number, ttl) = (self.value_key(key)?, millis(key, *ttl)?);
                self.push(format!("insert {number} {ttl}"));
                self.push(value);
            }
            Effect::Delete { key } => {
                let number = self.value_key(key)?;
                self.push(format!("delete {number}"));
            }
            Effect::Increment { key, by, within } => {
                let number = self.value_key(key)?;
                let bound =
                    |bound: Option<i64>| bound.map_or_else(|| "-".to_owned(), |it| it.to_string());
                let low = bound(within.map(|(low, _)| low));
                let high = bound(within.map(|(_, high)| high));
                self.push(format!("increment {number} {by} {low} {high}"));
            }
            Effect::Replace {
                key,
                seen,
                value,
                ttl,
            } => {
                let (number, ttl) = (self.value_key(key)?, millis(key, *ttl)?);
                self.push(format!(
                    "replace {number} {ttl} {}",
                    seen_word(seen.as_ref())
                ));
                self.push(seen.as_deref().unwrap_or_default());
                self.push(value);
            }
            Effect::Unchanged { key, seen } => {
                let number = self.value_key(key)?;
                self.push(format!("unchanged {number} {}", seen_word(seen.as_ref())));
                self.push(seen.as_deref().unwrap_or_default());
            }
            Effect::Once { key, ttl } => {
                let (number, ttl) = (self.value_key(key)?, millis(key, Some(*ttl))?);
                self.push(format!("once {number} {ttl}"));
            }
        }
        Ok(())
    }

    fn commit(&mut self, commit: &EffectCommit) -> Result<(), Error> {
        let lane = lane_name(commit.delivery.lane);
        let action = if commit.acknowledges { "ack" } else { "keep" };
        let holder = if commit.only_copy {
            "only-copy"
        } else {
            "held"
        };
        let count = commit.effects.len();
        self.push(commit.delivery.id.to_string());
        self.push(format!("{lane} {action} {holder} {count}"));
        self.effects(&commit.effects)
    }

    /// Adds a list of effects without a delivery.
    fn list(&mut self, effects: &[Effect]) -> Result<(), Error> {
        self.push(effects.len().to_string());
        self.effects(effects)
    }

    /// Adds the keys to a call that has its own.
    fn add_keys(&self, call: Call) -> Call {
        self.names.iter().fold(call, |call, name| call.key(name))
    }

    /// Adds the words to a call that has its own arguments.
    fn add_words(&self, call: &mut Call) {
        self.words.iter().for_each(|word| call.push(&word[..]));
    }
}

/// Whether an effect demands a value, as `lua/lib/effects.lua` names it.
fn seen_word(seen: Option<&Bytes>) -> &'static str {
    if seen.is_some() { "seen" } else { "-" }
}

/// Refuses keys that lie in several slots of a cluster, before anything is sent.
fn check_slots<'k>(
    keys: impl Iterator<Item = &'k str>,
    slot: impl Fn(&str) -> Option<u16>,
) -> Result<(), Error> {
    let mut slots: Vec<(u16, &str)> = Vec::new();
    for key in keys {
        if let Some(slot) = slot(key)
            && slots.iter().all(|(known, _)| *known != slot)
        {
            slots.push((slot, key));
        }
    }
    if slots.len() < 2 {
        return Ok(());
    }
    let shown = slots.iter().take(4);
    let shown: Vec<String> = shown.map(|(slot, key)| format!("{key} ({slot})")).collect();
    let rule = format!(
        "its keys lie in {} Cluster slots: {}; a namespace set up with Placement::Together has one",
        slots.len(),
        shown.join(", ")
    );
    Err(Error::new(ErrorKind::Invalid, OPERATION, rule))
}

impl RedisAdapter {
    /// The slot of the first key that effects name; 0 on a server without a cluster.
    pub(super) fn lane_of_effects(&self, effects: &[Effect]) -> u16 {
        if !self.net.is_clustered() {
            return 0;
        }
        let key = effects.first().and_then(|first| match first {
            Effect::Publish { at, .. } => Some(self.keys.log(at)),
            Effect::Schedule { at, .. } | Effect::Cancel { at, .. } => Some(self.keys.later(at)),
            // Effects that break a rule fail in their call.
            first => self.keys.value(OPERATION, first.subject()).ok(),
        });
        key.and_then(|key| self.net.slot(&key)).unwrap_or(0)
    }

    async fn commit_effects(
        &self,
        by: &Member,
        number: u64,
        commits: &[EffectCommit],
    ) -> Result<Vec<EffectFate>, Error> {
        let mut words = Words::new(&self.keys, 3);
        commits.iter().try_for_each(|one| words.commit(one))?;
        let log = self.keys.log(&by.at.partition);
        let keys = std::iter::once(&log).chain(&words.names);
        check_slots(keys.map(String::as_str), |key| self.net.slot(key))
            .map_err(|e| e.on(by.to_string()))?;
        let call = scripts::commit()
            .with_more_keys(words.names.len())
            .key(log)
            .key(self.keys.redelivery(&by.at))
            .key(self.keys.session_of(by));
        let mut call = words
            .add_keys(call)
            .arg(number)
            .arg(whole_millis(SESSION_LIVES))
            .arg(by.group().as_str())
            .arg(by.consumer.as_str());
        push_ranges(&mut call, commits.iter().map(|commit| commit.delivery));
        words.add_words(&mut call);
        let fates = self.call_effects(&call, commits.len()).await;
        let mut fates = fates.map_err(|e| e.on(by.to_string()))?;
        // Another consumer may have had them, and has ended them since.
        if fates.contains(&EffectFate::NotHeld) && self.ended_leases_early(&by.at.partition).await?
        {
            let not_held = fates.iter_mut().filter(|one| **one == EffectFate::NotHeld);
            not_held.for_each(|fate| *fate = EffectFate::Lost);
        }
        Ok(fates)
    }

    async fn commit_owned_effects(
        &self,
        (by, token): (&Member, u64),
        number: u64,
        commits: &[EffectCommit],
    ) -> Result<Vec<EffectFate>, Error> {
        let mut words = Words::new(&self.keys, 3);
        commits.iter().try_for_each(|one| words.commit(one))?;
        let cursor = self.keys.cursor(&by.at);
        let keys = std::iter::once(&cursor).chain(&words.names);
        check_slots(keys.map(String::as_str), |key| self.net.slot(key))
            .map_err(|e| e.on(by.to_string()))?;
        let call = scripts::cursor_commit()
            .with_more_keys(words.names.len())
            .key(cursor)
            .key(self.keys.unsettled_notes(&by.at))
            .key(self.keys.session_of(by));
        let mut call = words
            .add_keys(call)
            .arg(number)
            .arg(whole_millis(SESSION_LIVES))
            .arg(by.consumer.as_str())
            .arg(token);
        words.add_words(&mut call);
        let fates = self.call_effects(&call, commits.len()).await;
        fates.map_err(|e| e.on(by.to_string()))
    }

    async fn apply_effects(
        &self,
        session: Uuid,
        number: &str,
        lists: &[&[Effect]],
    ) -> Result<Vec<EffectFate>, Error> {
        let mut words = Words::new(&self.keys, 1);
        lists.iter().try_for_each(|list| words.list(list))?;
        let session = match words.names.first() {
            Some(beside) if self.net.is_clustered() => self.keys.session_beside(beside, session),
            _ => self.keys.session(session),
        };
        let keys = words.names.iter().chain([&session]);
        check_slots(keys.map(String::as_str), |key| self.net.slot(key))?;
        let call = scripts::apply()
            .with_more_keys(words.names.len())
            .key(session);
        let mut call = words
            .add_keys(call)
            .arg(number)
            .arg(whole_millis(SESSION_LIVES));
        words.add_words(&mut call);
        self.call_effects(&call, lists.len()).await
    }

    async fn call_effects(&self, call: &Call, count: usize) -> Result<Vec<EffectFate>, Error> {
        let fates = self.net.call(OPERATION, call, |reply| fates(&reply)).await;
        let fates = fates.map_err(not_ready)?;
        if fates.len() != count {
            let rule = "the server's answer is not one line for each commit";
            return Err(Error::new(ErrorKind::OutcomeUnknown, OPERATION, rule));
        }
        Ok(fates)
    }
}

/// Turns the refusal of a full memory into an error that callers wait on. The script has then written
/// nothing.
fn not_ready(error: Error) -> Error {
    if error.kind() != ErrorKind::Refused || !describe(&error).contains("\"OOM\"") {
        return error;
    }
    let rule = "the server's memory is full; nothing was written";
    Error::new(ErrorKind::Unavailable, OPERATION, rule).because(error)
}

fn fates(reply: &Value) -> Result<Vec<EffectFate>, RedisError> {
    let unexpected = || reply::unexpected("a script of effects");
    let text = match reply {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).map_err(|_| unexpected())?,
        Value::SimpleString(text) => text,
        _ => return Err(unexpected()),
    };
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let lines = text.split('\n');
    lines
        .map(|line| fate(line).ok_or_else(unexpected))
        .collect()
}

/// The head of `lua/commit.lua` lists the lines.
fn fate(line: &str) -> Option<EffectFate> {
    let mut words = line.split(' ');
    let refused = |words: &mut std::str::Split<'_, char>, refusal| {
        Some(EffectFate::Refused(words.next()?.parse().ok()?, refusal))
    };
    match words.next()? {
        "done" => {
            let appended = words.map(|word| {
                let id = word.strip_prefix('=');
                Some(Appended {
                    id: id.unwrap_or(word).parse().ok()?,
                    duplicate: id.is_some(),
                })
            });
            Some(EffectFate::Done(appended.collect::<Option<_>>()?))
        }
        "lost" => Some(EffectFate::Lost),
        "not-held" => Some(EffectFate::NotHeld),
        "skipped" => Some(EffectFate::Skipped),
        "differs" => Some(EffectFate::Differs(words.next()?.parse().ok()?)),
        "wrong-type" => refused(&mut words, Refusal::WrongType),
        "not-an-integer" => refused(&mut words, Refusal::NotAnInteger),
        "out-of-range" => refused(&mut words, Refusal::OutOfRange),
        "stream-full" => refused(&mut words, Refusal::StreamFull),
        "later-full" => refused(&mut words, Refusal::LaterFull { partition: None }),
        _ => None,
    }
}

impl EffectStore for RedisAdapter {
    fn commit<'a>(
        &'a self,
        by: &'a Member,
        number: u64,
        commits: &'a [EffectCommit],
    ) -> BoxFuture<'a, Result<Vec<EffectFate>, Error>> {
        Box::pin(self.commit_effects(by, number, commits))
    }

    fn commit_owned<'a>(
        &'a self,
        by: &'a Member,
        token: u64,
        number: u64,
        commits: &'a [EffectCommit],
    ) -> BoxFuture<'a, Result<Vec<EffectFate>, Error>> {
        Box::pin(self.commit_owned_effects((by, token), number, commits))
    }

    fn apply<'a>(
        &'a self,
        session: Session,
        commits: &'a [Vec<Effect>],
    ) -> BoxFuture<'a, Result<Vec<EffectFate>, Error>> {
        Box::pin(async move {
            let lists: Vec<&[Effect]> = commits.iter().map(|list| &list[..]).collect();
            let number = session.number.to_string();
            self.apply_effects(session.id, &number, &lists).await
        })
    }

    fn rehearse<'a>(&'a self, effects: &'a [Effect]) -> BoxFuture<'a, Result<EffectFate, Error>> {
        Box::pin(async move {
            // A dry call does not use its session.
            let fates = self.apply_effects(Uuid::nil(), "dry", &[effects]).await?;
            let missing = || Error::new(ErrorKind::Decode, "rehearse", "the answer is empty");
            fates.into_iter().next().ok_or_else(missing)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_in_several_slots_are_named_with_their_slots() {
        let slot = |key: &str| Some(if key.contains("orders") { 14563 } else { 2646 });
        let keys = ["{shop:orders}:log", "{shop:orders}:ids", "shop:stock:7"];
        let error = check_slots(keys.into_iter(), slot).unwrap_err();
        assert_eq!(
            error.to_string(),
            "commit: its keys lie in 2 Cluster slots: {shop:orders}:log (14563), \
             shop:stock:7 (2646); a namespace set up with Placement::Together has one"
        );
        check_slots(keys[..2].iter().copied(), slot).unwrap();
        check_slots(keys.into_iter(), |_| None).unwrap();
    }

    #[test]
    fn each_line_of_a_reply_is_a_fate() {
        let of = |text: &str| fates(&Value::BulkString(text.into()));
        let text = "done 5-0 =4-1\ndone\nlost\nnot-held\nskipped\ndiffers 3\nwrong-type 0\n\
                    not-an-integer 1\nout-of-range 2\nstream-full 4\nlater-full 5";
        let entry = |id: &str, duplicate| Appended {
            id: id.parse().unwrap(),
            duplicate,
        };
        assert_eq!(
            of(text).unwrap(),
            [
                EffectFate::Done(vec![entry("5-0", false), entry("4-1", true)]),
                EffectFate::Done(Vec::new()),
                EffectFate::Lost,
                EffectFate::NotHeld,
                EffectFate::Skipped,
                EffectFate::Differs(3),
                EffectFate::Refused(0, Refusal::WrongType),
                EffectFate::Refused(1, Refusal::NotAnInteger),
                EffectFate::Refused(2, Refusal::OutOfRange),
                EffectFate::Refused(4, Refusal::StreamFull),
                EffectFate::Refused(5, Refusal::LaterFull { partition: None }),
            ]
        );
        assert_eq!(of("").unwrap(), []);
        for bad in ["differs", "differs x", "done 1", "perhaps"] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
