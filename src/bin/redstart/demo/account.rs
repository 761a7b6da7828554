//! The account: every published message must be handled or a dead letter.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

/// The reports on the messages so far.
#[derive(Debug, Default)]
pub(super) struct Account {
    published: HashSet<Uuid>,
    /// How often workers reported each message as handled.
    handled: HashMap<Uuid, u64>,
    retries: u64,
}

/// The account at the end.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Sums {
    pub(super) published: u64,
    /// Handled at least once.
    pub(super) handled: u64,
    pub(super) dead: u64,
    /// Reports beyond the first of each message.
    pub(super) duplicates: u64,
    /// Neither handled nor dead.
    pub(super) lost: u64,
    pub(super) retries: u64,
    /// Contradictions, in words.
    pub(super) contradictions: Vec<String>,
}

impl Account {
    pub(super) fn published(&mut self, ids: impl Iterator<Item = Uuid>) {
        self.published.extend(ids);
    }

    pub(super) fn handled(&mut self, id: Uuid) {
        *self.handled.entry(id).or_default() += 1;
    }

    pub(super) fn retried(&mut self) {
        self.retries += 1;
    }

    /// How many messages were handled at least once.
    pub(super) fn distinct(&self) -> u64 {
        self.handled.len() as u64
    }

    pub(super) fn retries(&self) -> u64 {
        self.retries
    }

    /// Whether the account adds up with this number of dead letters.
    pub(super) fn is_complete_with(&self, dead: u64) -> bool {
        self.distinct() + dead >= self.published.len() as u64
    }

    /// Closes the account with the message ids of all dead letters.
    pub(super) fn close(&self, dead_letters: &[Uuid]) -> Sums {
        let dead: HashSet<&Uuid> = dead_letters.iter().collect();
        let is_known = |id: &&Uuid| self.handled.contains_key(id) || dead.contains(id);
        let both = dead.iter().filter(|id| self.handled.contains_key(id));
        let seen = self.handled.keys().chain(dead_letters);
        let foreign: HashSet<&Uuid> = seen.filter(|id| !self.published.contains(id)).collect();
        let contradictions = [
            (both.count(), "both handled and dead"),
            (foreign.len(), "never published"),
            (dead_letters.len() - dead.len(), "dead more than once"),
        ];
        Sums {
            published: self.published.len() as u64,
            handled: self.distinct(),
            dead: dead.len() as u64,
            duplicates: self.handled.values().map(|times| times - 1).sum(),
            lost: (self.published.len() - self.published.iter().filter(is_known).count()) as u64,
            retries: self.retries,
            contradictions: contradictions
                .iter()
                .filter(|(count, _)| *count > 0)
                .map(|(count, what)| format!("{count} {what}"))
                .collect(),
        }
    }
}

impl Sums {
    /// Whether every message has exactly one end.
    pub(super) fn adds_up(&self) -> bool {
        self.lost == 0
            && self.contradictions.is_empty()
            && self.handled + self.dead == self.published
    }

    /// The contradictions in one sentence.
    pub(super) fn complaint(&self) -> String {
        let lost = (self.lost > 0).then(|| format!("{} lost", self.lost));
        let all: Vec<String> = lost
            .into_iter()
            .chain(self.contradictions.clone())
            .collect();
        format!("the account does not add up: {}", all.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(count: usize) -> Vec<Uuid> {
        (0..count).map(|_| Uuid::now_v7()).collect()
    }

    fn account(published: &[Uuid], handled: &[Uuid]) -> Account {
        let mut account = Account::default();
        account.published(published.iter().copied());
        for id in handled {
            account.handled(*id);
        }
        account
    }

    #[test]
    fn handled_and_dead_messages_add_up_to_the_published_ones() {
        let ids = ids(4);
        let account = account(&ids, &[ids[0], ids[1], ids[0], ids[2]]);
        assert!(!account.is_complete_with(0));
        assert!(account.is_complete_with(1));
        let sums = account.close(&[ids[3]]);
        assert!(sums.adds_up(), "{sums:?}");
        assert_eq!(
            (
                sums.published,
                sums.handled,
                sums.dead,
                sums.duplicates,
                sums.lost
            ),
            (4, 3, 1, 1, 0)
        );
    }

    #[test]
    fn a_lost_message_is_found_even_when_the_numbers_agree() {
        let ids = ids(3);
        // Two handled, one of them also dead: 2 + 1 = 3, but the third message is gone.
        let sums = account(&ids, &ids[..2]).close(&[ids[0]]);
        assert_eq!(sums.lost, 1);
        assert!(!sums.adds_up());
        assert_eq!(
            sums.complaint(),
            "the account does not add up: 1 lost, 1 both handled and dead"
        );
    }

    #[test]
    fn foreign_and_doubly_dead_messages_do_not_add_up() {
        let ids = ids(3);
        let foreign = account(&ids[..2], &ids).close(&[]);
        assert!(!foreign.adds_up(), "{foreign:?}");
        let twice = account(&ids, &ids[..2]).close(&[ids[2], ids[2]]);
        assert!(!twice.adds_up(), "{twice:?}");
    }
}
