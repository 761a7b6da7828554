//! The model: the meaning of the port, without adapters, time and ids.

use std::collections::BTreeMap;

use redstart::store::Lane;
use redstart::topics::Retention;

/// A day, in the model's milliseconds.
pub(crate) const DAY: u64 = 86_400_000;

/// The name of a message within a group, unique in a case.
pub(crate) type Label = String;
/// A result of a fetch or a reclaim.
pub(crate) type Handed = Vec<(Lane, Label, u32)>;

#[derive(Clone, Debug)]
pub(crate) struct Unsettled {
    consumer: u8,
    /// `None` while it is unmarked.
    begun: Option<u32>,
    given_back: bool,
}

#[derive(Clone, Debug)]
enum State {
    Pending(Unsettled),
    Settled,
}

/// Entries in order, with the state of the delivered ones.
#[derive(Clone, Debug, Default)]
struct Cursor {
    delivered: usize,
    states: BTreeMap<usize, State>,
}

impl Cursor {
    fn pending(&self) -> impl Iterator<Item = (usize, &Unsettled)> {
        self.states.iter().filter_map(|(at, state)| match state {
            State::Pending(held) => Some((*at, held)),
            State::Settled => None,
        })
    }

    /// The first place that the group still needs.
    fn floor(&self) -> usize {
        let first = self.pending().next();
        first.map_or(self.delivered, |(at, _)| at)
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Group {
    log: Cursor,
    redo: Vec<Label>,
    redone: Cursor,
    /// By due time and order.
    scheduled: BTreeMap<(u64, u64), Label>,
    dead: Vec<Label>,
    /// Every dead letter that there ever was, and everything that was ever delivered.
    pub(crate) ever_dead: Vec<Label>,
    pub(crate) ever_seen: Vec<(Lane, Label)>,
}

/// How a delivery ends, other than by an ack.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    Now,
    /// Due when the next step begins.
    Soon,
    Tomorrow,
    DeadLetter,
}

#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) retention: Retention,
    now: u64,
    made: u64,
    /// Everything that was ever published; the first `removed` are gone.
    log: Vec<Label>,
    removed: usize,
    pub(crate) groups: BTreeMap<u8, Group>,
}

impl Model {
    pub(crate) fn new(retention: Retention) -> Self {
        Self {
            retention,
            now: 0,
            made: 0,
            log: Vec::new(),
            removed: 0,
            groups: BTreeMap::new(),
        }
    }

    /// A label that was never there.
    pub(crate) fn label(&mut self) -> Label {
        self.made += 1;
        format!("m{}", self.made)
    }

    pub(crate) fn create(&mut self, group: u8, from_the_beginning: bool) {
        let delivered = if from_the_beginning {
            self.removed
        } else {
            self.log.len()
        };
        self.groups.entry(group).or_insert_with(|| Group {
            log: Cursor {
                delivered,
                states: BTreeMap::new(),
            },
            ..Group::default()
        });
    }

    pub(crate) fn publish(&mut self, labels: &[Label]) {
        self.log.extend_from_slice(labels);
    }

    /// A lane's entries and cursor.
    fn lane<'a>(
        log: &'a [Label],
        group: &'a mut Group,
        lane: Lane,
    ) -> (&'a [Label], &'a mut Cursor) {
        match lane {
            Lane::Log => (log, &mut group.log),
            Lane::Redelivery => (&group.redo, &mut group.redone),
        }
    }

    pub(crate) fn fetch(&mut self, group: u8, consumer: u8, max: usize) -> Handed {
        let group = self.groups.get_mut(&group).unwrap();
        let mut handed = Vec::new();
        for lane in [Lane::Log, Lane::Redelivery] {
            let (entries, cursor) = Self::lane(&self.log, group, lane);
            for (at, label) in entries.iter().enumerate().skip(cursor.delivered).take(max) {
                let held = Unsettled {
                    consumer,
                    begun: None,
                    given_back: false,
                };
                cursor.states.insert(at, State::Pending(held));
                cursor.delivered = at + 1;
                handed.push((lane, label.clone(), 0));
            }
        }
        let seen = handed.iter().map(|(lane, label, _)| (*lane, label.clone()));
        group.ever_seen.extend(seen);
        handed
    }

    /// The state of an unsettled delivery, where a consumer has it.
    fn unsettled(&mut self, group: u8, lane: Lane, label: &str) -> Option<&mut State> {
        let group = self.groups.get_mut(&group).unwrap();
        let (entries, cursor) = Self::lane(&self.log, group, lane);
        let at = entries.iter().position(|entry| entry == label)?;
        let state = cursor.states.get_mut(&at);
        state.filter(|state| matches!(state, State::Pending(_)))
    }

    fn pending_at(&mut self, group: u8, lane: Lane, label: &str, by: u8) -> Option<&mut State> {
        let state = self.unsettled(group, lane, label);
        state.filter(|state| matches!(state, State::Pending(held) if held.consumer == by))
    }

    pub(crate) fn acknowledge(&mut self, group: u8, lane: Lane, label: &str) {
        if let Some(state) = self.unsettled(group, lane, label) {
            *state = State::Settled;
        }
    }

    /// Whether the consumer had the delivery; `as_what` names the message that returns or dies.
    pub(crate) fn settle(
        &mut self,
        group: u8,
        consumer: u8,
        (lane, label): (Lane, &str),
        end: End,
        as_what: Label,
    ) -> bool {
        let Some(state) = self.pending_at(group, lane, label, consumer) else {
            return false;
        };
        *state = State::Settled;
        let (now, made) = (self.now, self.made);
        let group = self.groups.get_mut(&group).unwrap();
        match end {
            End::Now => group.redo.push(as_what),
            End::Soon => drop(group.scheduled.insert((now, made), as_what)),
            End::Tomorrow => drop(group.scheduled.insert((now + DAY, made), as_what)),
            End::DeadLetter => {
                group.dead.push(as_what.clone());
                group.ever_dead.push(as_what);
            }
        }
        true
    }

    pub(crate) fn pass(&mut self, millis: u64) {
        self.now += millis;
    }

    pub(crate) fn extend(&mut self, group: u8, consumer: u8, lane: Lane, label: &str) -> bool {
        let held = self.pending_at(group, lane, label, consumer);
        if let Some(State::Pending(held)) = held {
            held.given_back = false;
            return true;
        }
        false
    }

    pub(crate) fn release(&mut self, group: u8, consumer: u8, lane: Lane, label: &str) -> bool {
        let held = self.pending_at(group, lane, label, consumer);
        if let Some(State::Pending(held)) = held {
            held.begun.get_or_insert(0);
            held.given_back = true;
            return true;
        }
        false
    }

    /// Takes over the released deliveries, or all.
    pub(crate) fn reclaim(&mut self, group: u8, consumer: u8, everything: bool) -> Handed {
        let group = self.groups.get_mut(&group).unwrap();
        let mut handed = Vec::new();
        for lane in [Lane::Log, Lane::Redelivery] {
            let (entries, cursor) = Self::lane(&self.log, group, lane);
            for (at, state) in &mut cursor.states {
                let State::Pending(held) = state else {
                    continue;
                };
                if everything || held.given_back {
                    held.consumer = consumer;
                    held.given_back = false;
                    let begun = *held.begun.get_or_insert(1);
                    handed.push((lane, entries[*at].clone(), begun));
                }
            }
        }
        handed
    }

    pub(crate) fn pending_of(&mut self, group: u8, consumer: u8) -> Vec<(Lane, Label)> {
        let group = self.groups.get_mut(&group).unwrap();
        let mut all = Vec::new();
        for lane in [Lane::Log, Lane::Redelivery] {
            let (entries, cursor) = Self::lane(&self.log, group, lane);
            let own = cursor
                .pending()
                .filter(|(_, held)| held.consumer == consumer);
            all.extend(own.map(|(at, _)| (lane, entries[at].clone())));
        }
        all
    }

    pub(crate) fn promote(&mut self, group: u8, max: usize) -> u64 {
        let now = self.now;
        let group = self.groups.get_mut(&group).unwrap();
        let mut moved = 0;
        while moved < max as u64
            && let Some(first) = group.scheduled.first_entry()
            && first.key().0 <= now
        {
            group.redo.push(first.remove());
            moved += 1;
        }
        moved
    }

    /// Moves a dead letter out: to the redelivery stream as a redelivery, or away.
    pub(crate) fn take_dead(&mut self, group: u8, label: &str, redelivery: Option<Label>) -> bool {
        let group = self.groups.get_mut(&group).unwrap();
        let Some(at) = group.dead.iter().position(|dead| dead == label) else {
            return false;
        };
        group.dead.remove(at);
        group.redo.extend(redelivery);
        true
    }

    pub(crate) fn dead(&self, group: u8) -> &[Label] {
        &self.groups[&group].dead
    }

    /// Removed, left, backlog.
    pub(crate) fn trim(&mut self) -> [u64; 3] {
        let floor = self.groups.values().map(|group| group.log.floor()).min();
        let left = self.log.len() - self.removed;
        let later = self.groups.values().map(|group| {
            let unread = group.redo.len() - group.redone.delivered;
            group.scheduled.len() + unread + group.redone.pending().count()
        });
        let kept = floor.map_or(left, |floor| self.log.len() - floor);
        let backlog = kept + later.sum::<usize>();
        let unwanted = match self.retention {
            Retention::Count(keep) => self.log.len().saturating_sub(keep as usize),
            _ => floor.unwrap_or(0),
        };
        let until = unwanted.min(floor.unwrap_or(unwanted)).max(self.removed);
        let removed = until - self.removed;
        self.removed = until;
        [removed, left - removed, backlog].map(|count| count as u64)
    }

    pub(crate) fn length(&self) -> u64 {
        (self.log.len() - self.removed) as u64
    }

    /// Lag, in-flight, scheduled, dead.
    pub(crate) fn counts(&self, group: u8) -> [u64; 4] {
        let group = &self.groups[&group];
        [
            self.log.len() - group.log.delivered,
            group.log.pending().count() + group.redone.pending().count(),
            group.scheduled.len() + group.redo.len() - group.redone.delivered,
            group.dead.len(),
        ]
        .map(|count| count as u64)
    }
}
