//! How far the owner of a partition has come in one of its lanes, as the store keeps it.

use crate::domain::EntryId;

/// How far the owner of a partition has come in one of its lanes.
///
/// - `low`: every entry up to here is settled.
/// - `high`: no entry after this one has begun. The owner writes it before a handler begins.
/// - `done`: ranges of settled entries between the two.
///
/// The next owner takes each entry between `low` and `high` that is not done for one that may have begun.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Cursor {
    /// Every entry up to here is settled.
    pub low: EntryId,
    /// No entry after this one has begun; at least `low`.
    pub high: EntryId,
    /// Ranges of settled entries above `low`, first and last id of each, in their order.
    pub done: Vec<(EntryId, EntryId)>,
}

impl Cursor {
    /// Everything up to an entry is settled, and nothing after it has begun.
    #[must_use]
    pub fn at(low: EntryId) -> Self {
        Self {
            low,
            high: low,
            done: Vec::new(),
        }
    }

    /// Whether an entry is settled.
    #[must_use]
    pub fn is_done(&self, id: EntryId) -> bool {
        let after = self.done.partition_point(|(first, _)| *first <= id);
        let range = after.checked_sub(1).map(|at| self.done[at]);
        id <= self.low || range.is_some_and(|(_, last)| id <= last)
    }

    /// The last entry of the settled ones from this one on without a gap; the entry itself where it is not
    /// settled.
    pub(crate) fn end_of_done(&self, id: EntryId) -> EntryId {
        let range = self
            .done
            .iter()
            .find(|(first, last)| *first <= id && id <= *last);
        range.map_or(id, |(_, last)| *last)
    }

    /// Whether an entry may have begun and is not settled.
    #[must_use]
    pub fn may_have_begun(&self, id: EntryId) -> bool {
        id <= self.high && !self.is_done(id)
    }

    /// The ranges as text, such as `7-0..7-3,9-0..9-0`.
    #[must_use]
    pub fn done_text(&self) -> String {
        let ranges = self.done.iter();
        let ranges = ranges.map(|(first, last)| format!("{first}..{last}"));
        ranges.collect::<Vec<_>>().join(",")
    }

    /// The ranges that [`done_text`](Self::done_text) wrote; `None` for any other text.
    #[must_use]
    pub fn parse_done(text: &str) -> Option<Vec<(EntryId, EntryId)>> {
        let parse = |range: &str| {
            let (first, last) = range.split_once("..")?;
            Some((first.parse().ok()?, last.parse().ok()?))
        };
        let ranges = text.split(',').filter(|range| !range.is_empty());
        ranges.map(parse).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u64) -> EntryId {
        EntryId::new(n, 0)
    }

    #[test]
    fn entries_in_a_range_are_done_and_the_others_may_have_begun() {
        let cursor = Cursor {
            low: id(3),
            high: id(9),
            done: vec![(id(5), id(6)), (id(8), id(8))],
        };
        let done = (1..=10).filter(|n| cursor.is_done(id(*n)));
        assert_eq!(done.collect::<Vec<_>>(), [1, 2, 3, 5, 6, 8]);
        let begun = (1..=10).filter(|n| cursor.may_have_begun(id(*n)));
        assert_eq!(begun.collect::<Vec<_>>(), [4, 7, 9]);
        assert!(!Cursor::at(id(3)).may_have_begun(id(4)));
    }

    #[test]
    fn ranges_are_text_and_back() {
        for done in [vec![], vec![(id(5), id(6)), (id(8), id(8))]] {
            let cursor = Cursor {
                done,
                ..Cursor::default()
            };
            assert_eq!(Cursor::parse_done(&cursor.done_text()), Some(cursor.done));
        }
        for bad in ["7", "7-0", "7-0..", "7-0..x", "a..b,"] {
            assert_eq!(Cursor::parse_done(bad), None, "{bad}");
        }
    }
}
