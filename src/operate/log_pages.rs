//! Pages of whole log entries, read in steps of a bounded size.
//!
//! A store does not tell the size of an entry before it reads it. The first step is therefore short,
//! and the sizes that it has seen say how long the next one may be.

use crate::domain::{EntryId, Error};
use crate::store::batch::READ_BYTES;
use crate::store::{Fields, Partition, Store};

type Entries = Vec<(EntryId, Fields)>;

/// How many entries the first step reads. Each partition can send that many.
const FIRST: usize = 8;
/// How many entries a step reads at most: a store may send heavy ones after light ones.
const LONGEST: usize = 128;

/// Entries after an id, oldest first, up to `max`: fewer where they are heavy, none only at the end.
pub(super) async fn after(
    store: &dyn Store,
    at: &Partition,
    after: Option<EntryId>,
    max: usize,
) -> Result<Entries, Error> {
    page(store, at, (after, Way::Forward), max).await
}

/// Entries before an id, or before the end, newest first, up to `max`: fewer where they are heavy, none
/// only at the end.
pub(super) async fn before(
    store: &dyn Store,
    at: &Partition,
    before: Option<EntryId>,
    max: usize,
) -> Result<Entries, Error> {
    page(store, at, (before, Way::Back), max).await
}

#[derive(Clone, Copy)]
enum Way {
    Forward,
    Back,
}

async fn page(
    store: &dyn Store,
    at: &Partition,
    (mut place, way): (Option<EntryId>, Way),
    max: usize,
) -> Result<Entries, Error> {
    // A step over several partitions reads each of them.
    let partitions = match at.is_whole() && max > 1 {
        true => store.topics().partitions(at.topic()).await?.unwrap_or(1),
        false => 1,
    };
    let partitions = usize::from(partitions).max(1);
    let (mut all, mut bytes) = (Entries::new(), 0);
    let mut step = (FIRST / partitions).max(1);
    while all.len() < max {
        step = step.min(max - all.len());
        let some = match way {
            Way::Forward => store.log().browse(at, place, step).await?,
            Way::Back => store.log().browse_back(at, place, step).await?,
        };
        let ended = some.len() < step;
        place = some.last().map(|(id, _)| *id);
        bytes += some.iter().map(|(_, fields)| weight(fields)).sum::<usize>();
        all.extend(some);
        if ended || bytes >= READ_BYTES {
            break;
        }
        let mean = (bytes / all.len()).max(1);
        let fitting = (READ_BYTES - bytes) / mean / partitions;
        step = fitting.clamp(1, LONGEST);
    }
    Ok(all)
}

pub(super) fn weight(fields: &Fields) -> usize {
    let fields = fields.iter();
    fields.map(|(name, value)| name.len() + value.len()).sum()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use bytes::Bytes;
    use uuid::Uuid;

    use super::*;
    use crate::adapters::memory::MemoryStore;
    use crate::domain::{BoxFuture, Topic, TopicSettings};
    use crate::store::decorate::{Answer, Decorated, Decorator, Next, Op};
    use crate::store::{LogAnswer, NewEntry};

    const MIB: usize = 1024 * 1024;

    /// Notes how many bytes and entries each answer has.
    #[derive(Debug, Default)]
    struct Scales {
        answers: Mutex<Vec<(usize, usize)>>,
    }

    impl Decorator for Scales {
        fn call<'a>(
            &'a self,
            op: Op<'a>,
            mut next: Next<'a>,
        ) -> BoxFuture<'a, Result<Answer, Error>> {
            Box::pin(async move {
                let answer = next.run(op).await?;
                if let Answer::Log(LogAnswer::Browse(entries) | LogAnswer::BrowseBack(entries)) =
                    &answer
                {
                    let bytes = entries.iter().map(|(_, fields)| weight(fields)).sum();
                    self.answers.lock().unwrap().push((bytes, entries.len()));
                }
                Ok(answer)
            })
        }
    }

    async fn filled(sizes: &[usize], partitions: u16) -> (Decorated, Arc<Scales>, Partition) {
        let scales = Arc::new(Scales::default());
        let store = Decorated::new(scales.clone(), MemoryStore::new().store(None));
        let topic = Topic::new("orders").unwrap();
        let settings = TopicSettings::default().with_partitions(partitions);
        let made = store.topics().ensure_topic(&topic, settings).await;
        made.unwrap();
        // Entries of one size share their bytes.
        let longest = Bytes::from(vec![b'x'; sizes.iter().copied().max().unwrap_or(0)]);
        let at = Partition::of(&topic);
        for (number, size) in (0..).zip(sizes) {
            let entry = NewEntry {
                id: Uuid::from_u128(number),
                name: "json",
                value: longest.slice(..*size),
                slot: Some(number as u16),
            };
            for appended in store.log().append(&at, &[entry]).await.unwrap() {
                appended.unwrap();
            }
        }
        (store, scales, at)
    }

    /// All ids of a topic, page by page, and the greatest number of bytes of a page.
    async fn walk(store: &dyn Store, at: &Partition, way: Way) -> (Vec<EntryId>, usize) {
        let (mut ids, mut most, mut last) = (Vec::new(), 0, None);
        loop {
            let page = page(store, at, (last, way), 500).await.unwrap();
            if page.is_empty() {
                return (ids, most);
            }
            most = most.max(page.iter().map(|(_, fields)| weight(fields)).sum());
            ids.extend(page.iter().map(|(id, _)| *id));
            last = ids.last().copied();
        }
    }

    #[tokio::test]
    async fn pages_of_heavy_entries_are_short_and_complete() {
        for partitions in [1, 4] {
            let (store, scales, at) = filled(&[MIB; 60], partitions).await;
            for way in [Way::Forward, Way::Back] {
                let (mut ids, most) = walk(&store, &at, way).await;
                assert!(most <= 8 * (MIB + 64), "{most} bytes in a page");
                assert_eq!(ids.len(), 60, "{partitions} partitions");
                if let Way::Back = way {
                    ids.reverse();
                }
                assert!(ids.is_sorted_by(|one, two| one < two));
            }
            let answers = scales.answers.lock().unwrap();
            assert!(answers.iter().all(|(bytes, _)| *bytes <= 9 * MIB));
        }
    }

    #[tokio::test]
    async fn light_entries_come_in_few_steps_and_heavy_ones_after_them_are_bounded() {
        let sizes: Vec<usize> = [vec![100; 300], vec![MIB; 300]].concat();
        let (store, scales, at) = filled(&sizes, 1).await;
        let page = after(&store, &at, None, 200).await.unwrap();
        assert_eq!(page.len(), 200);
        assert_eq!(scales.answers.lock().unwrap().len(), 3);
        let (ids, most) = walk(&store, &at, Way::Forward).await;
        assert_eq!(ids.len(), 600);
        assert!(most <= (LONGEST + 8) * (MIB + 64), "{most} bytes in a page");
    }
}
