//! Checks messages from publish to settlement.

use std::collections::{BTreeMap, BTreeSet};

use super::keys::{self, Stories};
use super::{Faults, Promise, Rules, Verdict, attempts};
use crate::history::{End, Event, Fate, Letter, Line};

struct Published {
    begun: u64,
    ended: u64,
    fate: Fate,
}

/// One call of a handler.
pub(super) struct Call<'a> {
    pub(super) at: u64,
    pub(super) attempt: u32,
    pub(super) entry: &'a str,
    /// Of the partition's owner, in an owned group.
    pub(super) token: Option<u64>,
    pub(super) consumer: &'a str,
    pub(super) ended: Option<(u64, End)>,
}

impl Call<'_> {
    pub(super) fn is_open_at(&self, at: u64) -> bool {
        self.ended.is_none_or(|(ended, _)| ended > at)
    }
}

/// The deliveries of one message to one group.
#[derive(Default)]
pub(super) struct Story<'a> {
    pub(super) calls: Vec<Call<'a>>,
    pub(super) redrives: Vec<u64>,
    dead_letters: u64,
    /// The dead letters that somebody found, with the time.
    pub(super) letters: Vec<(u64, &'a Letter)>,
}

/// Entry ids by topic, partition, group and consumer, in the order of their first deliveries.
type Order<'a> = BTreeMap<(&'a str, &'a str, &'a str, &'a str), Vec<((u64, u64), u64)>>;

#[derive(Default)]
struct Seen<'a> {
    groups: Vec<(&'a str, &'a str)>,
    owned: BTreeSet<(&'a str, &'a str)>,
    published: BTreeMap<(&'a str, u64), Published>,
    stories: Stories<'a>,
    entries: BTreeMap<(&'a str, u64), BTreeSet<&'a str>>,
    /// Of ordered topics, with the time of each delivery.
    order: Order<'a>,
}

pub(super) fn check(
    history: &[Line],
    rules: &Rules,
    faults: &Faults<'_>,
    forgotten_at: u64,
    verdict: &mut Verdict,
) {
    let seen = gather(history, rules, verdict);
    for ((topic, n), published) in &seen.published {
        let counter = match published.fate {
            Fate::Ok => &mut verdict.counts.published,
            Fate::No => &mut verdict.counts.certainly_not,
            Fate::Unknown => &mut verdict.counts.unknown,
        };
        *counter += 1;
        let may_be_lost = (rules.may_be_lost)(*n);
        verdict.counts.published_accepted += u64::from(may_be_lost && published.fate == Fate::Ok);
        let stories = seen.groups.iter().filter(|(of, _)| of == topic);
        let stories = stories.map(|(_, group)| (group, seen.stories.get(&(topic, group, *n))));
        let mut known = false;
        let mut is_lost = false;
        for (group, story) in stories {
            known |= story.is_some();
            let settled = story.is_some_and(Story::is_settled);
            if published.fate == Fate::Ok && !settled {
                if published.begun <= forgotten_at {
                    verdict.counts.forgotten += 1;
                    continue;
                }
                if may_be_lost && faults.took_back(published.begun, published.ended) {
                    is_lost = true;
                    continue;
                }
                verdict.counts.lost += 1;
                let state = if story.is_some() { "begun" } else { "not seen" };
                let what = format!("{topic} {n} by {group}: {state}");
                verdict.breaks(Promise::NothingLost, what);
            }
        }
        verdict.counts.lost_accepted += u64::from(is_lost);
        match published.fate {
            Fate::Unknown => verdict.counts.unknown_seen += u64::from(known),
            Fate::No if known => {
                let what = format!("{topic} {n} certainly was not published, and was seen");
                verdict.breaks(Promise::NothingInvented, what);
            }
            _ => {}
        }
    }
    for ((topic, group, n), story) in &seen.stories {
        if !seen.published.contains_key(&(*topic, *n)) {
            let what = format!("{topic} {n}, seen by {group}: nobody published it");
            verdict.breaks(Promise::NothingInvented, what);
        }
        let name = format!("{topic}/{group} {n}");
        story.check(topic, &name, rules, faults, verdict);
        let is_owned = seen.owned.contains(&(*topic, *group));
        let published = seen.published.get(&(*topic, *n));
        let since = published.map_or(0, |published| published.begun);
        attempts::check(topic, (&name, is_owned, since), story, faults, verdict);
        if let Some((_, letter)) = story.letters.first()
            && !(rules.may_die)(topic, *n)
        {
            let what = format!("{name} is {} after {}", letter.reason, letter.attempts);
            verdict.breaks(Promise::NeighboursLive, what);
        }
    }
    keys::check(&seen.stories, &seen.owned, rules, faults, verdict);
    for ((topic, n), entries) in &seen.entries {
        if entries.len() > 1 {
            let what = format!("{topic} {n} lies in {entries:?}");
            verdict.breaks(Promise::OneEntry, what);
        }
    }
    for ((topic, partition, group, consumer), entries) in &seen.order {
        let mut pairs = entries.windows(2).filter_map(|pair| match pair {
            [(one, at), (next, then)] if one >= next => Some((one, next, *at, *then)),
            _ => None,
        });
        // Of two primaries, the reader left one for the other.
        if let Some((one, next, ..)) = pairs.find(|(.., at, then)| !faults.took_back(*at, *then)) {
            let what = format!(
                "{topic}/{group}, partition {partition}: {consumer} saw {one:?} before {next:?}"
            );
            verdict.breaks(Promise::Order, what);
        }
    }
}

fn gather<'a>(history: &'a [Line], rules: &Rules, verdict: &mut Verdict) -> Seen<'a> {
    let mut seen = Seen::default();
    for line in history {
        match &line.event {
            Event::Group {
                topic,
                group,
                owned,
            } => {
                seen.groups.push((topic, group));
                if *owned {
                    seen.owned.insert((topic, group));
                }
            }
            Event::Publish { topic, n } => {
                // Until more is known.
                let published = Published {
                    begun: line.at,
                    ended: u64::MAX,
                    fate: Fate::Unknown,
                };
                seen.published.insert((topic, *n), published);
            }
            Event::Published { topic, n, fate } => {
                if let Some(published) = seen.published.get_mut(&(&**topic, *n)) {
                    (published.ended, published.fate) = (line.at, *fate);
                }
            }
            Event::Begun {
                topic,
                group,
                n,
                entry,
                consumer,
                attempt,
                token,
            } => {
                verdict.counts.delivered += 1;
                seen.entries.entry((topic, *n)).or_default().insert(entry);
                let story = seen.stories.entry((topic, group, *n)).or_default();
                if story.calls.is_empty() && *attempt == 1 && rules.ordered.contains(topic) {
                    let (partition, id) = entry_id(entry);
                    let place = (&**topic, partition, &**group, &**consumer);
                    seen.order.entry(place).or_default().push((id, line.at));
                }
                story.calls.push(Call {
                    at: line.at,
                    attempt: *attempt,
                    entry,
                    token: *token,
                    consumer,
                    ended: None,
                });
            }
            Event::Returned {
                topic,
                group,
                n,
                consumer,
                end,
                ..
            } => {
                let story = seen.stories.entry((topic, group, *n)).or_default();
                let mut calls = story.calls.iter_mut().rev();
                let call = calls.find(|call| call.consumer == consumer && call.ended.is_none());
                if let Some(call) = call {
                    call.ended = Some((line.at, *end));
                }
                verdict.counts.given_back += u64::from(*end == End::GiveBack);
                verdict.counts.aborted += u64::from(*end == End::Abort);
            }
            Event::Redrive {
                topic,
                group,
                records,
                ..
            } => {
                for (_, n) in records {
                    let story = seen.stories.entry((topic, group, *n)).or_default();
                    story.redrives.push(line.at);
                }
            }
            Event::Listed {
                topic,
                group,
                letters,
                ..
            } => {
                for letter in letters {
                    seen.found(topic, group, line.at, letter);
                }
            }
            Event::DeadLettered {
                topic,
                group,
                letter,
            } => {
                if let Some(story) = seen.found(topic, group, line.at, letter) {
                    verdict.counts.dead += 1;
                    story.dead_letters += 1;
                }
            }
            _ => {}
        }
    }
    seen
}

/// The partition of an entry, and its place there.
pub(super) fn entry_id(text: &str) -> (&str, (u64, u64)) {
    let (partition, id) = text.split_once('/').unwrap_or(("0", text));
    let (millis, sequence) = id.split_once('-').expect("an entry id");
    let id = (millis.parse().unwrap(), sequence.parse().unwrap());
    (partition, id)
}

impl<'a> Seen<'a> {
    /// Notes that somebody found a dead letter. `None` where its message is not known.
    fn found(
        &mut self,
        topic: &'a str,
        group: &'a str,
        at: u64,
        letter: &'a Letter,
    ) -> Option<&mut Story<'a>> {
        let story = self.stories.entry((topic, group, letter.n?)).or_default();
        let is_new = |(_, known): &(u64, &Letter)| known.record != letter.record;
        if story.letters.iter().all(is_new) {
            story.letters.push((at, letter));
        }
        Some(story)
    }
}

impl Story<'_> {
    fn is_settled(&self) -> bool {
        let acked = |call: &Call<'_>| matches!(call.ended, Some((_, End::Ack)));
        self.dead_letters > 0 || self.calls.iter().any(acked)
    }

    fn check(
        &self,
        topic: &str,
        name: &str,
        rules: &Rules,
        faults: &Faults<'_>,
        verdict: &mut Verdict,
    ) {
        let acks = self.calls.iter().filter_map(|call| call.ended);
        let acks = acks.filter(|(_, end)| *end == End::Ack).count() as u64;
        verdict.counts.acked += acks.min(1);
        verdict.counts.duplicates += acks.saturating_sub(1);
        // A delivery that was taken back comes again, beside the retry of its message.
        let life = self.calls.iter().map(|call| call.at);
        let was_taken_back = match (life.clone().min(), life.max()) {
            (Some(first), Some(last)) => faults.took_back(first, last),
            _ => false,
        };
        if self.dead_letters > 1 && !was_taken_back {
            let what = format!("{name} has {} dead letters", self.dead_letters);
            verdict.breaks(Promise::Attempts, what);
        }
        let most = (rules.max_attempts)(topic);
        if let Some(call) = self.calls.iter().find(|call| call.attempt > most) {
            let what = format!("{name} was attempted a {}th time", call.attempt);
            verdict.breaks(Promise::Attempts, what);
        }
        if let Some((_, letter)) = self.letters.iter().find(|(_, one)| one.attempts > most) {
            let what = format!("{name} is dead after {}", letter.attempts);
            verdict.breaks(Promise::Attempts, what);
        }
        for pair in self.calls.windows(2) {
            let [first, second] = pair else { continue };
            let expected = match first.ended {
                Some((_, End::Fail | End::Abort)) => second.attempt == first.attempt + 1,
                Some((_, End::Snooze)) => second.attempt == first.attempt,
                Some((_, End::Reject | End::Ack | End::GiveBack)) | None => false,
            };
            let redriven = self
                .redrives
                .iter()
                .any(|at| (first.at..=second.at).contains(at));
            if matches!(first.ended, Some((_, End::GiveBack)))
                && second.attempt != first.attempt
                && !faults.keep_from_giving_back(topic, first.at, second.at)
            {
                let what = format!(
                    "{name} was given back, and attempt {} counts",
                    first.attempt
                );
                verdict.breaks(Promise::Begun, what);
            }
            // The owner of a partition knows what it has handled, whatever happens around it.
            let same_owner = first.token.is_some() && first.token == second.token;
            let excused = !same_owner && faults.between(topic, first.at, second.at);
            if !expected && !redriven && !excused {
                let what = format!(
                    "{name} came as attempt {} and, after {:?}, as attempt {}",
                    first.attempt, first.ended, second.attempt,
                );
                verdict.breaks(Promise::NoNeedlessRepeat, what);
            }
        }
    }
}
