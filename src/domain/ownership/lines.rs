//! The order of the messages of each key: one at a time.

use std::collections::{HashMap, VecDeque};

/// The messages that wait for their turn. A message without a key waits for no other.
///
/// Of each key, the first message is ready or under way, and the others wait until it has ended.
#[derive(Debug)]
pub(crate) struct Lines<P> {
    /// Of each key that has one: the message whose turn it is, then those that wait.
    by_key: HashMap<Box<str>, VecDeque<P>>,
    ready: VecDeque<P>,
}

impl<P> Default for Lines<P> {
    fn default() -> Self {
        Self {
            by_key: HashMap::new(),
            ready: VecDeque::new(),
        }
    }
}

impl<P: Copy + PartialEq> Lines<P> {
    /// Adds a message behind those of its key.
    pub(crate) fn enter(&mut self, message: P, key: Option<&str>) {
        if let Some(key) = key {
            if let Some(line) = self.by_key.get_mut(key) {
                line.push_back(message);
                return;
            }
            self.by_key.insert(key.into(), VecDeque::from([message]));
        }
        self.ready.push_back(message);
    }

    /// Takes the next message that is ready.
    pub(crate) fn next(&mut self) -> Option<P> {
        self.ready.pop_front()
    }

    /// Up to `max` messages that are ready, the next one first.
    pub(crate) fn upcoming(&self, max: usize) -> impl Iterator<Item = P> {
        self.ready.iter().take(max).copied()
    }

    /// How many messages are ready.
    pub(crate) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Makes a message ready again whose turn it still is, before all others.
    pub(crate) fn put_back(&mut self, message: P) {
        self.ready.push_front(message);
    }

    /// Whether a message waits for the end of another one of its key.
    pub(crate) fn has_next(&self, key: &str) -> bool {
        self.by_key.get(key).is_some_and(|line| line.len() > 1)
    }

    /// Ends the turn of a message: the next one of its key is ready.
    pub(crate) fn end(&mut self, message: P, key: Option<&str>) {
        let Some(key) = key else { return };
        let Some(line) = self.by_key.get_mut(key) else {
            return;
        };
        if line.front() != Some(&message) {
            return;
        }
        line.pop_front();
        match line.front() {
            Some(next) => {
                self.ready.push_back(*next);
            }
            None => {
                self.by_key.remove(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_message_of_a_key_has_its_turn_and_the_others_wait() {
        let mut lines = Lines::default();
        for (n, key) in [(1, Some("a")), (2, Some("a")), (3, None), (4, Some("b"))] {
            lines.enter(n, key);
        }
        assert_eq!(lines.ready(), 3);
        let ready: Vec<_> = std::iter::from_fn(|| lines.next()).collect();
        assert_eq!(ready, [1, 3, 4]);
        lines.put_back(1);
        assert_eq!(lines.next(), Some(1), "its turn is not over");
        lines.end(3, None);
        lines.end(2, Some("a"));
        assert_eq!(lines.next(), None, "2 had no turn to end");
        lines.end(1, Some("a"));
        assert_eq!(lines.next(), Some(2));
        lines.end(2, Some("a"));
        lines.end(4, Some("b"));
        assert!(
            lines.by_key.is_empty(),
            "a key without messages takes no memory"
        );
    }

    proptest! {
        /// However handlers end: the messages of a key begin in their order and one at a time, and
        /// none is forgotten.
        #[test]
        fn the_messages_of_a_key_begin_in_their_order(
            keys in proptest::collection::vec(proptest::option::of(0_u8..5), 1..60),
            choices in proptest::collection::vec(0_usize..8, 200),
        ) {
            let name = |key: &Option<u8>| key.map(|key| key.to_string());
            let mut lines = Lines::default();
            for (n, key) in keys.iter().enumerate() {
                lines.enter(n, name(key).as_deref());
            }
            let (mut under_way, mut begun): (Vec<usize>, Vec<usize>) = (Vec::new(), Vec::new());
            for choice in choices {
                if choice < 4 && let Some(next) = lines.next() {
                    let same = |other: &&usize| keys[next].is_some() && keys[**other] == keys[next];
                    prop_assert_eq!(under_way.iter().find(same), None);
                    under_way.push(next);
                    begun.push(next);
                } else if !under_way.is_empty() {
                    let ended = under_way.swap_remove(choice % under_way.len());
                    lines.end(ended, name(&keys[ended]).as_deref());
                }
            }
            for one in under_way {
                lines.end(one, name(&keys[one]).as_deref());
            }
            while let Some(next) = lines.next() {
                begun.push(next);
                lines.end(next, name(&keys[next]).as_deref());
            }
            prop_assert_eq!(begun.len(), keys.len());
            for key in 0..5 {
                let of_key = begun.iter().filter(|n| keys[**n] == Some(key));
                prop_assert!(of_key.is_sorted());
            }
        }
    }
}
