//! The hash slots of a cluster, and which node holds which.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use redis::{RedisError, Value};

use crate::adapters::redis::net::redirect::Address;
use crate::adapters::redis::resp::reply;
use crate::domain::crc16;

/// The number of slots of every cluster.
pub(in crate::adapters::redis::net) const SLOTS: u16 = 16_384;

/// The slot of a key. Keys with the same text in their first braces share a slot.
pub(in crate::adapters::redis) fn of(key: &[u8]) -> u16 {
    crc16(hashed(key)) % SLOTS
}

/// The part of a key that decides on its slot: the text in its first braces, or else the whole key.
pub(in crate::adapters::redis) fn hashed(key: &[u8]) -> &[u8] {
    hash_tag(key).unwrap_or(key)
}

/// The text between the first brace and its end. Empty braces count as no braces.
fn hash_tag(key: &[u8]) -> Option<&[u8]> {
    let rest = &key[key.iter().position(|byte| *byte == b'{')? + 1..];
    let end = rest.iter().position(|byte| *byte == b'}')?;
    (end > 0).then(|| &rest[..end])
}

/// The node of each slot, or the only node where there is no cluster.
#[derive(Debug)]
pub(in crate::adapters::redis::net) struct SlotMap<N> {
    nodes: Vec<Arc<N>>,
    /// The position in `nodes` for each slot. Empty where the first node holds all slots.
    owners: Vec<u16>,
}

impl<N> Clone for SlotMap<N> {
    fn clone(&self) -> Self {
        Self {
            nodes: self.nodes.clone(),
            owners: self.owners.clone(),
        }
    }
}

/// Stands for a slot that no node serves.
const NOBODY: u16 = u16::MAX;

impl<N> SlotMap<N> {
    /// The map of a single server, and of a cluster that was not asked yet.
    pub(in crate::adapters::redis::net) fn of_one(node: Arc<N>) -> Self {
        Self {
            nodes: vec![node],
            owners: Vec::new(),
        }
    }

    /// Builds a map of ranges of slots. `otherwise` answers for slots that no node serves: any node
    /// of the cluster can say that the slot is not served.
    pub(in crate::adapters::redis::net) fn of_ranges(
        ranges: impl IntoIterator<Item = (u16, u16, Arc<N>)>,
        otherwise: Arc<N>,
    ) -> Self {
        let mut map = Self {
            nodes: vec![otherwise],
            owners: vec![NOBODY; usize::from(SLOTS)],
        };
        for (first, last, node) in ranges {
            let number = map.number(&node);
            for slot in first..=last.min(SLOTS - 1) {
                map.owners[usize::from(slot)] = number;
            }
        }
        map
    }

    /// The node that holds a slot.
    pub(in crate::adapters::redis::net) fn owner(&self, slot: u16) -> &Arc<N> {
        let number = self.owners.get(usize::from(slot)).copied();
        number
            .and_then(|number| self.nodes.get(usize::from(number)))
            .unwrap_or(&self.nodes[0])
    }

    /// The node that holds a slot; `None` for a slot that no node serves.
    pub(in crate::adapters::redis::net) fn holder(&self, slot: u16) -> Option<&Arc<N>> {
        let is_unserved = self.owners.get(usize::from(slot)) == Some(&NOBODY);
        (!is_unserved).then(|| self.owner(slot))
    }

    /// Notes that a node holds a slot.
    pub(in crate::adapters::redis::net) fn set(&mut self, slot: u16, node: &Arc<N>) {
        if slot >= SLOTS {
            return;
        }
        if self.owners.is_empty() {
            self.owners = vec![0; usize::from(SLOTS)];
        }
        let number = self.number(node);
        self.owners[usize::from(slot)] = number;
    }

    fn number(&mut self, node: &Arc<N>) -> u16 {
        let known = self.nodes.iter().position(|known| Arc::ptr_eq(known, node));
        let at = known.unwrap_or_else(|| {
            self.nodes.push(Arc::clone(node));
            self.nodes.len() - 1
        });
        u16::try_from(at).unwrap_or(NOBODY)
    }

    /// Each node that holds a slot, in the order of the slots.
    pub(in crate::adapters::redis::net) fn owners(&self) -> Vec<Arc<N>> {
        let mut numbers = self.owners.clone();
        numbers.dedup();
        if numbers.is_empty() {
            numbers.push(0);
        }
        let mut owners: Vec<Arc<N>> = Vec::new();
        for node in numbers
            .iter()
            .filter_map(|one| self.nodes.get(usize::from(*one)))
        {
            if !owners.iter().any(|known| Arc::ptr_eq(known, node)) {
                owners.push(Arc::clone(node));
            }
        }
        owners
    }

    /// The ranges of slots that a node holds; none where the first node holds all slots.
    pub(in crate::adapters::redis::net) fn ranges_of(&self, node: &Arc<N>) -> Vec<(u16, u16)> {
        let same = |one: &Arc<N>| Arc::ptr_eq(one, node);
        let Some(number) = self.nodes.iter().position(same) else {
            return Vec::new();
        };
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for (slot, owner) in (0..SLOTS).zip(&self.owners) {
            match ranges.last_mut() {
                _ if usize::from(*owner) != number => {}
                Some((_, last)) if *last + 1 == slot => *last = slot,
                _ => ranges.push((slot, slot)),
            }
        }
        ranges
    }

    /// A number that changes when a slot gets another owner.
    pub(in crate::adapters::redis::net) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.owners.hash(&mut hasher);
        for node in &self.nodes {
            Arc::as_ptr(node).hash(&mut hasher);
        }
        hasher.finish()
    }

    /// How many slots no node serves.
    pub(in crate::adapters::redis::net) fn unserved(&self) -> usize {
        self.owners.iter().filter(|one| **one == NOBODY).count()
    }
}

/// A range of slots and the primary that holds it.
pub(in crate::adapters::redis::net) type Range = (u16, u16, Address);

/// Reads the reply of CLUSTER SLOTS: `[[first, last, [host, port, …], replica…], …]`.
pub(in crate::adapters::redis::net) fn read(reply: Value) -> Result<Vec<Range>, RedisError> {
    let unexpected = || reply::unexpected("CLUSTER SLOTS");
    let slot = |value: &Value| u16::try_from(reply::integer(value)?).map_err(|_| unexpected());
    let mut ranges = Vec::new();
    for row in reply::array(reply)? {
        let mut row = reply::array(row)?.into_iter();
        let (Some(first), Some(last), Some(primary)) = (row.next(), row.next(), row.next()) else {
            return Err(unexpected());
        };
        let mut primary = reply::array(primary)?.into_iter();
        let (Some(host), Some(port)) = (primary.next(), primary.next()) else {
            return Err(unexpected());
        };
        let host = match host {
            // The node does not know by which name its clients reach it.
            Value::Nil => String::new(),
            host => reply::text(host)?,
        };
        let port = slot(&port)?;
        ranges.push((slot(&first)?, slot(&last)?, Address::new(&host, port)));
    }
    Ok(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_the_slot_that_the_server_computes() {
        // As CLUSTER KEYSLOT answers.
        for (key, slot) in [
            ("123456789", 0x31C3),
            ("foo", 12_182),
            ("{foo}:log", 12_182),
            ("a{foo}b{bar}", 12_182),
            ("{}:topics", 3_025),
            ("{}:schema", 12_994),
            ("", 0),
        ] {
            assert_eq!(of(key.as_bytes()), slot, "{key}");
        }
    }

    #[test]
    fn a_map_knows_the_owner_of_each_slot() {
        let [one, two, three] = [1, 2, 3].map(Arc::new);
        let ranges = [(0, 99, one.clone()), (200, 16_383, two.clone())];
        let mut map = SlotMap::of_ranges(ranges, one.clone());
        assert_eq!((**map.owner(0), **map.owner(16_383)), (1, 2));
        assert_eq!(**map.owner(150), 1, "any node answers for it");
        assert_eq!((map.holder(150), map.holder(99)), (None, Some(&one)));
        assert_eq!(map.unserved(), 100);
        let before = map.fingerprint();
        map.set(5_000, &three);
        assert_ne!(map.fingerprint(), before);
        assert_eq!((**map.owner(5_000), **map.owner(5_001)), (3, 2));
        assert_eq!(map.ranges_of(&two), [(200, 4_999), (5_001, 16_383)]);
        assert_eq!(map.ranges_of(&three), [(5_000, 5_000)]);
        assert_eq!(map.ranges_of(&Arc::new(4)), []);
        let owners = map.owners();
        assert_eq!(owners, [one, two, three]);
    }

    #[test]
    fn the_map_of_one_server_gives_it_every_slot() {
        let map = SlotMap::of_one(Arc::new("one"));
        assert_eq!((**map.owner(0), **map.owner(16_383)), ("one", "one"));
        assert_eq!(map.holder(150), Some(map.owner(150)));
        assert_eq!(map.owners().len(), 1);
        assert_eq!(map.ranges_of(&map.owners()[0]), []);
        assert_eq!(map.unserved(), 0);
    }

    #[test]
    fn the_reply_of_cluster_slots_is_read() {
        let reply = b"*2\r\n*4\r\n:0\r\n:5460\r\n*4\r\n$9\r\n127.0.0.1\r\n:7000\r\n$1\r\na\r\n*0\r\n*3\r\n$9\r\n127.0.0.1\r\n:7003\r\n$1\r\nb\r\n*3\r\n:5461\r\n:16383\r\n*3\r\n$-1\r\n:7001\r\n$1\r\nc\r\n";
        let ranges = read(redis::parse_redis_value(reply).unwrap()).unwrap();
        let expected = [
            (0, 5_460, Address::new("127.0.0.1", 7_000)),
            (5_461, 16_383, Address::new("", 7_001)),
        ];
        assert_eq!(ranges, expected);
        assert!(read(Value::Array(vec![Value::Int(1)])).is_err());
    }
}
