//! Which server is the primary, by what sentinels have said so far.

use std::time::Duration;

use tokio::time::Instant;

use crate::adapters::redis::net::redirect::Address;

/// How long sentinels must name another primary without a newer configuration before that counts.
const DOUBT: Duration = Duration::from_secs(10);

/// What a sentinel says of a service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Statement {
    pub(super) primary: Address,
    /// Grows with each failover. A sentinel that has not heard of the last one has a lower one.
    pub(super) epoch: u64,
}

/// The primary that counts, and since which failover.
///
/// After a failover some sentinels name the former primary for a while, and that server may still
/// answer as a primary. So a statement counts only if its epoch is higher.
#[derive(Debug, Default)]
pub(super) struct Belief {
    primary: Option<Address>,
    epoch: u64,
    /// Another primary, named without a higher epoch, and since when.
    doubt: Option<(Address, Instant)>,
}

impl Belief {
    /// Takes what one sentinel says, which may be behind alone. Returns the primary if it is another one
    /// now.
    pub(super) fn learn_of_one(&mut self, statement: Statement) -> Option<Address> {
        let counts = self.primary.is_none() || statement.epoch > self.epoch;
        counts.then(|| self.accept(statement)).flatten()
    }

    /// Takes what the sentinels say that have answered of all. Returns the primary if it is another one
    /// now.
    pub(super) fn learn(
        &mut self,
        statements: impl IntoIterator<Item = Statement>,
        now: Instant,
    ) -> Option<Address> {
        let current = self.primary.clone();
        let newest = statements.into_iter().max_by_key(|one| {
            let is_current = Some(&one.primary) == current.as_ref();
            (one.epoch, is_current)
        })?;
        if self.primary.is_none() || newest.epoch > self.epoch {
            return self.accept(newest);
        }
        if self.primary.as_ref() == Some(&newest.primary) {
            self.doubt = None;
            return None;
        }
        // A sentinel that is behind, or an operator who had the sentinels watch another server.
        match &self.doubt {
            Some((named, since)) if *named == newest.primary => {
                if now.duration_since(*since) >= DOUBT {
                    return self.accept(newest);
                }
            }
            _ => self.doubt = Some((newest.primary, now)),
        }
        None
    }

    /// Takes the word of a sentinel that a failover has ended. Returns the primary if it is another one
    /// now.
    pub(super) fn switched(&mut self, from: &Address, to: &Address) -> Option<Address> {
        if self.primary.as_ref() != Some(from) || from == to {
            return None;
        }
        self.doubt = None;
        self.primary = Some(to.clone());
        self.primary.clone()
    }

    fn accept(&mut self, newest: Statement) -> Option<Address> {
        self.epoch = newest.epoch;
        self.doubt = None;
        if self.primary.as_ref() == Some(&newest.primary) {
            return None;
        }
        self.primary = Some(newest.primary);
        self.primary.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(port: u16, epoch: u64) -> Statement {
        Statement {
            primary: Address::new("h", port),
            epoch,
        }
    }

    fn at(port: u16) -> Option<Address> {
        Some(Address::new("h", port))
    }

    #[test]
    fn the_newest_statement_counts() {
        let (mut belief, now) = (Belief::default(), Instant::now());
        assert_eq!(belief.learn([], now), None);
        let all = [says(1, 3), says(2, 4), says(1, 3)];
        assert_eq!(belief.learn(all, now), at(2));
        assert_eq!(belief.learn([says(2, 5)], now), None, "the same server");
        assert_eq!(belief.learn([says(1, 6)], now), at(1), "and back");
    }

    #[test]
    fn a_sentinel_that_is_behind_does_not_bring_the_former_primary_back() {
        let (mut belief, now) = (Belief::default(), Instant::now());
        belief.learn([says(1, 3)], now);
        assert_eq!(belief.learn([says(2, 4)], now), at(2));
        for passed in [0, 1, 9] {
            let later = now + Duration::from_secs(passed);
            assert_eq!(belief.learn([says(1, 3)], later), None);
        }
        assert_eq!(belief.learn([says(1, 3), says(2, 4)], now), None);
        // The doubt has ended, so it begins again.
        let later = now + Duration::from_secs(11);
        assert_eq!(belief.learn([says(1, 3)], later), None);
    }

    #[test]
    fn one_sentinel_alone_brings_back_no_former_primary() {
        let (mut belief, now) = (Belief::default(), Instant::now());
        assert_eq!(belief.learn_of_one(says(1, 3)), at(1));
        assert_eq!(belief.learn_of_one(says(2, 4)), at(2));
        belief.learn([says(1, 3), says(2, 4)], now);
        for passed in [Duration::ZERO, DOUBT, 3 * DOUBT] {
            assert_eq!(belief.learn_of_one(says(1, 3)), None);
            // It begins no doubt either, which a later answer of all would end.
            let all = [says(2, 4), says(1, 3)];
            assert_eq!(belief.learn(all, now + passed), None);
        }
        assert_eq!(belief.learn([says(1, 3)], now + 4 * DOUBT), None);
        assert_eq!(belief.learn_of_one(says(1, 5)), at(1));
    }

    #[test]
    fn an_older_configuration_counts_when_the_sentinels_stay_with_it() {
        let (mut belief, now) = (Belief::default(), Instant::now());
        belief.learn([says(1, 3)], now);
        assert_eq!(belief.learn([says(7, 0)], now), None);
        assert_eq!(belief.learn([says(7, 0)], now + DOUBT), at(7));
        assert_eq!(belief.learn([says(7, 0)], now + DOUBT), None);
    }

    #[test]
    fn the_end_of_a_failover_counts_only_for_the_server_that_it_names() {
        let (mut belief, now) = (Belief::default(), Instant::now());
        belief.learn([says(1, 3)], now);
        let address = |port| Address::new("h", port);
        // Old news of a sentinel that is behind.
        assert_eq!(belief.switched(&address(5), &address(6)), None);
        assert_eq!(belief.switched(&address(1), &address(1)), None);
        assert_eq!(belief.switched(&address(1), &address(2)), at(2));
        assert_eq!(belief.learn([says(1, 3)], now), None, "it is behind");
        assert_eq!(belief.learn([says(2, 4)], now), None);
        assert_eq!(belief.learn([says(1, 5)], now), at(1));
    }
}
