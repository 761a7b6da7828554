//! The entries that the owner of a partition has read and not settled, in one lane.

use std::collections::VecDeque;

use super::cursor::Cursor;
use crate::domain::EntryId;

/// The entries of one lane from the first unsettled one to the last one read, and what earlier owners settled
/// after it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Window {
    low: EntryId,
    high: EntryId,
    /// From the first entry after `low`, in their order, and whether each is settled.
    entries: VecDeque<(EntryId, bool)>,
    /// How many of them are settled.
    settled: usize,
    /// The last entry read.
    last: EntryId,
    /// How many entries `low` has passed.
    passed: u64,
    /// Ranges that earlier owners settled and this owner has not read.
    unread: VecDeque<(EntryId, EntryId)>,
    /// No entry after this one had begun when the window began.
    begun: EntryId,
}

impl Window {
    /// Begins where a cursor stands.
    pub(crate) fn at(cursor: &Cursor) -> Self {
        Self {
            low: cursor.low,
            high: cursor.high,
            last: cursor.low,
            unread: cursor.done.iter().copied().collect(),
            begun: cursor.high,
            ..Self::default()
        }
    }

    /// The last entry read: the next read begins after it.
    pub(crate) fn last(&self) -> EntryId {
        self.last
    }

    /// How many entries are between `low` and the last one read.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many of them are not settled.
    pub(crate) fn unsettled(&self) -> usize {
        self.entries.len() - self.settled
    }

    /// Adds the next entry that was read.
    pub(crate) fn enter(&mut self, id: EntryId, is_done: bool) {
        debug_assert!(id > self.last, "entries are read in their order");
        self.last = id;
        while self.unread.front().is_some_and(|(_, last)| *last <= id) {
            self.unread.pop_front();
        }
        self.entries.push_back((id, is_done));
        self.settled += usize::from(is_done);
        self.advance();
    }

    /// Notes that an entry is settled. Does nothing where it is settled already.
    pub(crate) fn settle(&mut self, id: EntryId) {
        if let Ok(at) = self.entries.binary_search_by_key(&id, |(id, _)| *id) {
            self.settled += usize::from(!self.entries[at].1);
            self.entries[at].1 = true;
            self.advance();
        }
    }

    fn advance(&mut self) {
        while let Some((id, true)) = self.entries.front() {
            self.low = *id;
            self.entries.pop_front();
            self.settled -= 1;
            self.passed += 1;
        }
        self.high = self.high.max(self.low);
    }

    /// No entry after this one has begun.
    pub(crate) fn high(&self) -> EntryId {
        self.high
    }

    /// Allows entries up to this one to begin.
    pub(crate) fn raise(&mut self, high: EntryId) {
        self.high = self.high.max(high);
    }

    /// The entry that is this many entries after another one, or the last one read.
    pub(crate) fn ahead(&self, of: EntryId, count: usize) -> EntryId {
        let after = self.entries.partition_point(|(id, _)| *id <= of);
        let at = (after + count).min(self.entries.len());
        let found = at.checked_sub(1).and_then(|at| self.entries.get(at));
        found.map_or(of, |(id, _)| (*id).max(of))
    }

    /// Says that no unsettled entry that was read has begun. Those that were not read may have begun under
    /// an owner before.
    pub(crate) fn lower(&mut self) {
        self.high = match self.last < self.begun {
            true => self.begun,
            false => self.low,
        };
    }

    /// How many entries `low` has passed since the window began.
    pub(crate) fn passed(&self) -> u64 {
        self.passed
    }

    /// What the store keeps.
    pub(crate) fn cursor(&self) -> Cursor {
        let mut done: Vec<(EntryId, EntryId)> = Vec::new();
        let mut continues = false;
        for (id, is_done) in &self.entries {
            match done.last_mut() {
                Some((_, last)) if *is_done && continues => *last = *id,
                _ if *is_done => done.push((*id, *id)),
                _ => {}
            }
            continues = *is_done;
        }
        for (first, last) in &self.unread {
            match done.last_mut() {
                // The window ends within this range.
                Some((_, end)) if *first <= *end => *end = *last,
                _ => done.push((*first, *last)),
            }
        }
        Cursor {
            low: self.low,
            high: self.high,
            done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(n: u64) -> EntryId {
        EntryId::new(n, 0)
    }

    fn window(entries: u64) -> Window {
        let mut window = Window::at(&Cursor::default());
        (1..=entries).for_each(|n| window.enter(id(n), false));
        window
    }

    #[test]
    fn low_passes_settled_entries_only() {
        let mut window = window(5);
        window.raise(id(4));
        for n in [2, 4, 2] {
            window.settle(id(n));
        }
        let cursor = window.cursor();
        assert_eq!((cursor.low, cursor.high), (id(0), id(4)));
        assert_eq!(cursor.done_text(), "2-0..2-0,4-0..4-0");
        window.settle(id(1));
        assert_eq!((window.cursor().low, window.passed()), (id(2), 2));
        window.settle(id(3));
        assert_eq!(window.cursor(), Cursor::at(id(4)));
        assert_eq!((window.len(), window.passed()), (1, 4));
    }

    #[test]
    fn a_window_that_is_lowered_has_nothing_that_may_have_begun() {
        let mut window = window(5);
        window.raise(id(5));
        window.settle(id(3));
        window.lower();
        let cursor = window.cursor();
        assert_eq!((cursor.high, cursor.is_done(id(3))), (id(0), true));
        assert!((1..=5).all(|n| !cursor.may_have_begun(id(n))));
    }

    #[test]
    fn a_look_ahead_ends_at_the_last_entry_read() {
        let window = window(5);
        for (of, count, ahead) in [(0, 0, 0), (0, 2, 2), (3, 1, 4), (3, 9, 5), (9, 1, 9)] {
            assert_eq!(window.ahead(id(of), count), id(ahead), "{of} + {count}");
        }
        assert_eq!(Window::default().ahead(id(2), 5), id(2));
    }

    proptest! {
        /// Whatever was settled: exactly the settled entries are done for the next owner, and it reads
        /// on where this one stopped.
        #[test]
        fn the_next_owner_knows_exactly_what_is_settled(
            entries in 1_u64..60,
            settled in proptest::collection::vec(1_u64..60, 0..60),
            high in 0_u64..60,
        ) {
            let mut first = window(entries);
            first.raise(id(high.min(entries)));
            settled.iter().for_each(|n| first.settle(id(*n)));
            let cursor = first.cursor();
            let text = cursor.done_text();
            prop_assert_eq!(Cursor::parse_done(&text), Some(cursor.done.clone()));
            let mut next = Window::at(&cursor);
            for n in 1..=entries {
                let done = settled.contains(&n);
                prop_assert_eq!(cursor.is_done(id(n)), done, "{}", n);
                if id(n) > cursor.low {
                    next.enter(id(n), cursor.is_done(id(n)));
                }
            }
            prop_assert_eq!(next.cursor(), cursor);
            prop_assert_eq!(first.passed() + first.len() as u64, entries);
        }

        /// However far an owner has read: the next one knows the same of the rest.
        #[test]
        fn an_owner_that_has_not_read_everything_forgets_nothing(
            settled in proptest::collection::vec(1_u64..30, 0..30),
            high in 0_u64..30,
            read in 0_u64..30,
            lowers in proptest::bool::ANY,
        ) {
            let mut first = window(29);
            first.raise(id(high));
            settled.iter().for_each(|n| first.settle(id(*n)));
            let stored = first.cursor();
            let mut second = Window::at(&stored);
            for n in (1..=read).filter(|n| id(*n) > stored.low) {
                second.enter(id(n), stored.is_done(id(n)));
            }
            prop_assert!(lowers || second.cursor() == stored);
            if lowers {
                second.lower();
            }
            let cursor = second.cursor();
            for n in 1..=29 {
                prop_assert_eq!(cursor.is_done(id(n)), settled.contains(&n), "{}", n);
                if n > read {
                    let begun = stored.may_have_begun(id(n));
                    prop_assert_eq!(cursor.may_have_begun(id(n)), begun, "{}", n);
                }
            }
            let text = cursor.done_text();
            prop_assert_eq!(Cursor::parse_done(&text), Some(cursor.done));
        }
    }
}
