//! Lists of partitions as one, places in it as each partition sees them, and sums of what partitions
//! answer.

use std::cmp::Ordering;
use std::collections::VecDeque;

use futures_util::future::join_all;

use crate::domain::{BoxFuture, EntryId, Error, Timestamp};
use crate::store::batch::READ_BYTES;
use crate::store::{GroupStatus, Partition};

/// The next items of a partition's list.
pub(super) struct Portion<T> {
    pub(super) items: Vec<T>,
    /// Whether nothing follows them.
    pub(super) ended: bool,
    /// The time of the answer, where it says one.
    pub(super) now: Option<Timestamp>,
}

impl<T> Portion<T> {
    /// What follows the end.
    pub(super) fn none() -> Self {
        Self {
            items: Vec::new(),
            ended: true,
            now: None,
        }
    }

    /// A page which may end before its partition does, but not before its first item.
    pub(super) fn page(items: Vec<T>, now: Timestamp) -> Self {
        Self {
            ended: items.is_empty(),
            items,
            now: Some(now),
        }
    }
}

/// An item of a list that partitions have parts of.
pub(super) trait Listed {
    /// Its place in the whole list, which no other item has.
    type Place: Clone + Ord;

    fn place(&self) -> Self::Place;

    /// How many bytes it has, for lists whose pages are short where items are heavy.
    fn weight(&self) -> usize {
        0
    }
}

/// What the list of one partition holds ahead of the merged list.
struct Ahead<T: Listed> {
    partition: Partition,
    items: VecDeque<T>,
    last: Option<T::Place>,
    ended: bool,
    now: Option<Timestamp>,
}

impl<T: Listed> Ahead<T> {
    fn first(&self) -> Option<T::Place> {
        self.items.front().map(Listed::place)
    }

    fn add(&mut self, portion: Portion<T>) {
        self.ended = portion.ended;
        self.now = self.now.max(portion.now);
        if let Some(last) = portion.items.last() {
            self.last = Some(last.place());
        }
        self.items.extend(portion.items);
    }
}

/// The next items of all partitions after a place, in the order of their places: `max` of them, fewer
/// where they are heavy and at the end. Returns the latest time of an answer, too.
///
/// Asks the partitions all at once, each for little more than its share. Where that does not do, it asks
/// again, for twice as many. `next` gives at most that number of items of a partition after a place. The
/// place may be that of an item of another partition.
pub(super) async fn merged<'a, T: Listed>(
    partitions: Vec<Partition>,
    after: Option<T::Place>,
    max: usize,
    next: impl Fn(Partition, Option<T::Place>, usize) -> BoxFuture<'a, Result<Portion<T>, Error>>,
) -> Result<(Vec<T>, Option<Timestamp>), Error> {
    let share = max.div_ceil(partitions.len().max(1));
    let parts = partitions.into_iter().map(|partition| Ahead {
        partition,
        items: VecDeque::new(),
        last: after.clone(),
        ended: false,
        now: None,
    });
    let mut parts: Vec<Ahead<T>> = parts.collect();
    let mut depth = share.saturating_mul(2).saturating_add(2);
    let (mut all, mut bytes) = (Vec::new(), 0);
    while all.len() < max && bytes < READ_BYTES {
        let wanted = depth.min(max - all.len());
        depth = depth.saturating_mul(2);
        let asked = parts
            .iter_mut()
            .filter(|part| !part.ended && part.items.len() < wanted);
        let asked = asked.map(|part| {
            let left = wanted - part.items.len();
            let portion = next(part.partition.clone(), part.last.clone(), left);
            async move { portion.await.map(|portion| part.add(portion)) }
        });
        let asked: Vec<_> = asked.collect();
        join_all(asked)
            .await
            .into_iter()
            .collect::<Result<(), _>>()?;
        // An item is the next one once that of every other partition is known.
        while all.len() < max
            && bytes < READ_BYTES
            && parts
                .iter()
                .all(|part| part.ended || !part.items.is_empty())
        {
            let filled = parts.iter_mut().filter(|part| !part.items.is_empty());
            let Some(first) = filled.min_by_key(|part| part.first()) else {
                return Ok((all, now_of(&parts)));
            };
            let item = first.items.pop_front();
            bytes += item.as_ref().map_or(0, Listed::weight);
            all.extend(item);
        }
    }
    Ok((all, now_of(&parts)))
}

fn now_of<T: Listed>(parts: &[Ahead<T>]) -> Option<Timestamp> {
    parts.iter().filter_map(|part| part.now).max()
}

/// In a list by due time, then by partition: the place after which the items of a partition follow a place
/// of any partition. `first` is before all of its items of one time. `None` where none can follow.
pub(super) fn due_after<I>(
    (due, partition, item): (Timestamp, u16, I),
    number: u16,
    first: I,
) -> Option<(Timestamp, I)> {
    match number.cmp(&partition) {
        Ordering::Equal => Some((due, item)),
        Ordering::Greater => Some((due, first)),
        Ordering::Less => {
            let next = Timestamp::from_millis(due.as_millis().saturating_add(1));
            Some((next.ok()?, first))
        }
    }
}

fn next(id: EntryId) -> EntryId {
    match id.sequence.checked_add(1) {
        Some(sequence) => EntryId::new(id.millis, sequence),
        None => EntryId::new(id.millis.saturating_add(1), 0),
    }
}

fn bare(id: EntryId) -> EntryId {
    id.in_partition(0)
}

/// After which id of a partition its entries are after an id of any partition.
pub(super) fn after_in(after: Option<EntryId>, number: u16) -> Option<EntryId> {
    let id = after?;
    match number > id.partition() {
        true => bare(id).before(),
        false => Some(bare(id)),
    }
}

/// Before which id of a partition its entries are before an id of any partition.
pub(super) fn before_in(before: Option<EntryId>, number: u16) -> Option<EntryId> {
    let id = before?;
    match number < id.partition() {
        true => Some(next(id)),
        false => Some(bare(id)),
    }
}

/// Up to which id of a partition its entries are not after an id of any partition. No entry has the
/// smallest id.
pub(super) fn until_in(until: Option<EntryId>, number: u16) -> Option<EntryId> {
    let id = until?;
    match number > id.partition() {
        true => Some(bare(id).before().unwrap_or_default()),
        false => Some(bare(id)),
    }
}

/// The first id of a partition that is not before an id of any partition.
pub(super) fn first_in(id: EntryId, number: u16) -> EntryId {
    match number < id.partition() {
        true => next(id),
        false => bare(id),
    }
}

/// The status of a group on two partitions. A consumer is known on every partition.
pub(super) fn join_groups(one: GroupStatus, other: GroupStatus) -> GroupStatus {
    GroupStatus {
        group: one.group,
        lag: one.lag + other.lag,
        in_flight: one.in_flight + other.in_flight,
        scheduled: one.scheduled + other.scheduled,
        dead: one.dead + other.dead,
        consumers: one.consumers.max(other.consumers),
        owned: one.owned,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Mutex;

    use futures_util::FutureExt as _;
    use proptest::prelude::*;

    use super::*;
    use crate::domain::Topic;

    fn id() -> impl Strategy<Value = EntryId> {
        (0..3_u64, 0..3_u64, 0..3_u16)
            .prop_map(|(millis, sequence, at)| EntryId::new(millis, sequence).in_partition(at))
    }

    /// When an item is due, its partition, and its id there.
    #[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
    struct Item(i64, u16, u8);

    impl Listed for Item {
        type Place = Item;

        fn place(&self) -> Item {
            self.clone()
        }
    }

    /// Lists of partitions, as an adapter keeps them, and what was asked of them.
    struct Lists {
        items: BTreeSet<Item>,
        partitions: u16,
        /// How many items an answer has at most, as if they were heavy.
        most: usize,
        cost: Mutex<Cost>,
    }

    #[derive(Clone, Copy, Debug, Default, PartialEq)]
    struct Cost {
        /// How often partitions were asked, one after the other.
        rounds: usize,
        asking: usize,
        items: usize,
    }

    impl Lists {
        fn new(items: impl IntoIterator<Item = Item>, partitions: u16, most: usize) -> Self {
            Self {
                items: items.into_iter().collect(),
                partitions,
                most,
                cost: Mutex::default(),
            }
        }

        /// As an adapter: after a due time and an item of it.
        fn list(&self, number: u16, after: Option<(i64, u8)>, max: usize) -> Vec<Item> {
            let own = self.items.iter().filter(|item| item.1 == number);
            let next = own.filter(|item| after.is_none_or(|after| (item.0, item.2) > after));
            next.take(max.min(self.most)).cloned().collect()
        }

        fn page(&self, after: Option<Item>, max: usize) -> Vec<Item> {
            let topic = Topic::new("orders").unwrap();
            let partitions = (0..self.partitions).map(|number| Partition::numbered(&topic, number));
            let next = |at: Partition, after: Option<Item>, max| -> BoxFuture<'_, _> {
                let mut cost = self.cost.lock().unwrap();
                cost.rounds += usize::from(cost.asking == 0);
                cost.asking += 1;
                Box::pin(async move {
                    self.cost.lock().unwrap().asking -= 1;
                    let number = at.number();
                    let after = after.map(|Item(due, partition, item)| {
                        let due = Timestamp::from_millis(due).unwrap();
                        due_after((due, partition, item), number, 0)
                    });
                    let Some(after) = after.map_or(Some(None), |after| after.map(Some)) else {
                        return Ok(Portion::none());
                    };
                    let after = after.map(|(due, item)| (due.as_millis(), item));
                    let page = self.list(number, after, max);
                    self.cost.lock().unwrap().items += page.len();
                    Ok(Portion::page(page, Timestamp::from_millis(0).unwrap()))
                })
            };
            let merging = merged(partitions.collect(), after, max, next);
            let (page, _) = merging.now_or_never().unwrap().unwrap();
            page
        }

        fn cost(&self) -> (usize, usize) {
            let cost = self.cost.lock().unwrap();
            (cost.rounds, cost.items)
        }
    }

    #[test]
    fn a_page_costs_few_rounds_and_few_items() {
        // One item in each partition: one look, and one for the end.
        let lists = Lists::new((0..64).map(|n| Item(n.into(), n, 1)), 64, 500);
        assert_eq!(lists.page(None, 500).len(), 64);
        assert_eq!(lists.cost(), (2, 64));
        // Partitions that are all full: about twice the page.
        let full = |spread: bool| {
            let due = move |n: i64, at: u16| match spread {
                true => n * 64 + i64::from(at),
                false => i64::from(at) * 500 + n,
            };
            let of = move |at| (0..500).map(move |n| Item(due(n, at), at, 1));
            Lists::new((0..64).flat_map(of), 64, 500)
        };
        let lists = full(true);
        assert_eq!(lists.page(None, 500).len(), 500);
        assert_eq!(lists.cost(), (1, 64 * 18));
        // One partition has the whole page.
        let lists = full(false);
        assert_eq!(lists.page(None, 500).len(), 500);
        let (rounds, _) = lists.cost();
        assert!(rounds <= 6, "{rounds} rounds");
    }

    proptest! {
        #[test]
        fn pages_are_full_in_order_and_complete(
            all in prop::collection::btree_set((0..4_i64, 0..5_u16, 1..9_u8), 0..60),
            size in 1..20_usize, most in 1..20_usize,
        ) {
            let items = all.into_iter().map(|(due, at, item)| match due {
                3 => Item(Timestamp::MAX.as_millis(), at, item),
                due => Item(due, at, item),
            });
            let lists = Lists::new(items, 5, most);
            let mut seen: Vec<Item> = Vec::new();
            while seen.len() < lists.items.len() {
                let page = lists.page(seen.last().cloned(), size);
                prop_assert_eq!(page.len(), size.min(lists.items.len() - seen.len()));
                seen.extend(page);
            }
            prop_assert_eq!(lists.page(seen.last().cloned(), size), []);
            prop_assert_eq!(seen, lists.items.iter().cloned().collect::<Vec<_>>());
        }
    }

    proptest! {
        #[test]
        fn each_partition_sees_a_place_as_the_whole_topic_does(place in id(), entry in id()) {
            // No entry has the smallest id.
            prop_assume!(bare(entry) > EntryId::default());
            let (number, own) = (entry.partition(), bare(entry));
            let after = after_in(Some(place), number).is_none_or(|after| own > after);
            prop_assert_eq!(after, entry > place);
            let before = before_in(Some(place), number).is_none_or(|before| own < before);
            prop_assert_eq!(before, entry < place);
            let until = until_in(Some(place), number).is_none_or(|until| own <= until);
            prop_assert_eq!(until, entry <= place);
            prop_assert_eq!(own >= first_in(place, number), entry >= place);
        }
    }
}
