//! Numbers messages, so that a server adds one that is sent again only once.
//!
//! Servers with `XADD … IDMP` remember, in each stream, the last ids of each producer: by default 100
//! ids for 100 seconds. A producer here gives out at most [`REMEMBERED`] numbers, and then no more before
//! all of them are answered. So a server still remembers each unanswered number, whatever else is sent.
//!
//! A network may deliver a number late, after its repeat was answered and others have taken its place. So a
//! producer that has sent a number whose outcome was unknown gets another name before it gives out others:
//! the server goes on remembering what it sent under the old one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use uuid::Uuid;

/// How many ids of a producer a stream remembers by default.
pub(in crate::adapters::redis) const REMEMBERED: u32 = 100;
/// How long a number may be sent again. A stream remembers it longer by default; the rest is for clocks
/// that do not agree.
pub(in crate::adapters::redis) const REPEATED_FOR: Duration = Duration::from_secs(60);
/// The most producers of a process, which bounds the memory of its numbers on a server: about 12 KB for
/// each producer in each stream.
const MOST_PRODUCERS: usize = 100;

/// Gives out the numbers of one process.
#[derive(Clone, Debug)]
pub(in crate::adapters::redis::net) struct Numbering {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// The first part of the names of all producers. No other process has it.
    name: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: u64,
    producers: Vec<Producer>,
    /// The producer that gives out the next numbers.
    current: usize,
}

#[derive(Debug, Default)]
struct Producer {
    /// How many numbers it has given out since all were answered.
    given: u32,
    unanswered: u32,
    /// How often it got another name.
    generation: u32,
    /// A copy of one of its numbers may still be on its way.
    may_come_late: bool,
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The numbers that the current producer may still give out. Where it has none left, another takes its
    /// place; 0 if there are too many.
    fn capacity(&mut self) -> u32 {
        if let Some(current) = self.producers.get(self.current)
            && current.given < REMEMBERED
        {
            return REMEMBERED - current.given;
        }
        let free = self.producers.iter().position(|one| one.unanswered == 0);
        self.current = free.unwrap_or(self.producers.len());
        if free.is_none() && self.producers.len() == MOST_PRODUCERS {
            return 0;
        }
        match self.producers.get_mut(self.current) {
            Some(free) => {
                free.given = 0;
                free.generation += u32::from(std::mem::take(&mut free.may_come_late));
            }
            None => self.producers.push(Producer::default()),
        }
        REMEMBERED
    }
}

impl Default for Numbering {
    fn default() -> Self {
        let (high, low) = Uuid::new_v4().as_u64_pair();
        Self {
            inner: Arc::new(Inner {
                name: format!("{:016x}", high ^ low.rotate_left(32)),
                state: Mutex::default(),
            }),
        }
    }
}

impl Numbering {
    /// Numbers for messages that are sent together. `None` while too many are unanswered.
    pub(in crate::adapters::redis::net) fn give(&self, count: usize) -> Option<Numbers> {
        let mut numbers = Numbers {
            ranges: Vec::with_capacity(1),
            until: SystemTime::now() + REPEATED_FOR,
            may_come_late: AtomicBool::new(false),
            inner: Arc::clone(&self.inner),
        };
        let mut left = count;
        let mut state = self.inner.state();
        while left > 0 {
            let most = state.capacity();
            if most == 0 {
                drop(state);
                return None;
            }
            let count = most.min(u32::try_from(left).unwrap_or(u32::MAX));
            let (producer, first) = (state.current, state.last + 1);
            state.last += u64::from(count);
            let current = &mut state.producers[producer];
            current.given += count;
            current.unanswered += count;
            let generation = current.generation;
            left -= count as usize;
            numbers.ranges.push(Range {
                producer,
                generation,
                first,
                count,
            });
        }
        drop(state);
        Some(numbers)
    }
}

#[derive(Debug)]
struct Range {
    producer: usize,
    generation: u32,
    first: u64,
    count: u32,
}

/// The numbers of messages that are sent together. They count as unanswered until this is dropped.
#[derive(Debug)]
pub(in crate::adapters::redis) struct Numbers {
    ranges: Vec<Range>,
    until: SystemTime,
    may_come_late: AtomicBool,
    inner: Arc<Inner>,
}

impl Numbers {
    /// Calls a function with the producer and the id of each message, in their order.
    pub(in crate::adapters::redis) fn each(&self, mut each: impl FnMut(&str, &str)) {
        for Range {
            producer,
            generation,
            first,
            count,
        } in &self.ranges
        {
            let mut producer = format!("{}.{producer}", self.inner.name);
            if *generation > 0 {
                producer = format!("{producer}.{generation}");
            }
            for id in *first..*first + u64::from(*count) {
                each(&producer, &format!("{id:x}"));
            }
        }
    }

    /// Notes whether a copy of the messages may still be on its way after this is dropped: nobody knows what
    /// became of one that was sent.
    pub(in crate::adapters::redis::net) fn note_late(&self, may_come_late: bool) {
        self.may_come_late.store(may_come_late, Ordering::Relaxed);
    }

    /// Whether servers still remember all of them. Asks the clock of the day: a machine that was suspended
    /// has missed the time on the other clock.
    pub(in crate::adapters::redis::net) fn are_remembered(&self) -> bool {
        SystemTime::now() < self.until
    }
}

#[cfg(test)]
impl Numbers {
    /// Lets the time pass in which servers remember them.
    pub(in crate::adapters::redis::net) fn end(&mut self) {
        self.until = SystemTime::UNIX_EPOCH;
    }
}

impl Drop for Numbers {
    fn drop(&mut self) {
        let mut state = self.inner.state();
        for range in &self.ranges {
            if let Some(producer) = state.producers.get_mut(range.producer) {
                producer.unanswered -= range.count;
                producer.may_come_late |= *self.may_come_late.get_mut();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet, VecDeque};

    use super::*;

    fn named(numbers: &Numbers) -> Vec<(String, String)> {
        let mut all = Vec::new();
        numbers.each(|producer, id| all.push((producer.to_owned(), id.to_owned())));
        all
    }

    #[test]
    fn a_stream_remembers_each_unanswered_number() {
        let numbering = Numbering::default();
        // The ids that a stream remembers of each producer.
        let mut stream: HashMap<String, VecDeque<String>> = HashMap::new();
        let mut given = HashSet::new();
        let mut unanswered: Vec<Numbers> = Vec::new();
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..5_000 {
            if unanswered.len() > 12 || random.bool() && !unanswered.is_empty() {
                unanswered.swap_remove(random.usize(..unanswered.len()));
            }
            let numbers = numbering.give(random.usize(1..300)).unwrap();
            for (producer, id) in named(&numbers) {
                let known = stream.entry(producer.clone()).or_default();
                known.push_back(id.clone());
                if known.len() > REMEMBERED as usize {
                    known.pop_front();
                }
                assert!(given.insert((producer, id)), "given twice");
            }
            unanswered.push(numbers);
            for (producer, id) in unanswered.iter().flat_map(named) {
                assert!(
                    stream[&producer].contains(&id),
                    "{producer} {id} is forgotten"
                );
            }
        }
    }

    #[test]
    fn a_producer_whose_number_may_come_late_gets_another_name() {
        let numbering = Numbering::default();
        let sent = || {
            let numbers = numbering.give(REMEMBERED as usize).unwrap();
            let producer = named(&numbers)[0].0.clone();
            (numbers, producer)
        };
        let (answered, first) = sent();
        drop(answered);
        let (late, again) = sent();
        assert_eq!(first, again);
        late.note_late(true);
        drop(late);
        let (_, other) = sent();
        assert_ne!(first, other);
    }

    #[test]
    fn answered_numbers_make_room_for_others() {
        let numbering = Numbering::default();
        for _ in 0..10 * MOST_PRODUCERS {
            let numbers = numbering.give(REMEMBERED as usize + 1).unwrap();
            assert!(named(&numbers).iter().all(|(producer, _)| {
                let (_, number) = producer.split_once('.').unwrap();
                number.parse::<usize>().unwrap() <= 2
            }));
        }
        let most = MOST_PRODUCERS * REMEMBERED as usize;
        let held: Vec<_> = (0..most - 300).filter_map(|_| numbering.give(1)).collect();
        assert_eq!(held.len(), most - 300);
        assert!(numbering.give(most).is_none(), "too many at once");
        drop(held);
        assert!(numbering.give(most - 300).is_some(), "all are answered");
    }

    #[test]
    fn two_processes_have_no_producer_in_common() {
        let names = || named(&Numbering::default().give(1).unwrap());
        assert_ne!(names(), names());
    }
}
