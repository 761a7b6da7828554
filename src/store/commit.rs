//! How deliveries end: the only way to settle them.

use std::time::Duration;

use bytes::Bytes;

use super::attempts::Attempts;
use super::source::DeliveryId;
use crate::domain::Error;
use crate::wire::Record;

/// How one delivery ends.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum End {
    /// Its message is handled.
    Ack,
    /// Comes back to the same group through its redelivery stream, once `delay` has passed. Without
    /// a delay it is in the redelivery stream at once, and never scheduled.
    Reschedule {
        /// How long to wait, by the store's clock.
        delay: Duration,
        /// What the redelivery stream will hold.
        redelivery: Bytes,
    },
    /// Goes to the group's dead letters.
    DeadLetter(Box<Record>),
    /// Is given back: [`claim_expired`](super::Deliveries::claim_expired) can take it at once.
    Release {
        /// The attempts at the entry from now on. `None` takes nothing back but the member's own
        /// unmarked hand-out, and leaves a mark as it is. Giving back twice, as after a lost answer,
        /// is the same as once.
        attempts: Option<Attempts>,
    },
}

/// One delivery and how it ends.
#[derive(Clone, Debug)]
pub struct Commit {
    delivery: DeliveryId,
    end: End,
    only_copy: bool,
}

impl Commit {
    /// Acknowledges a delivery.
    #[must_use]
    pub fn ack(delivery: DeliveryId) -> Self {
        Self::new(delivery, End::Ack)
    }

    /// Lets a message come back after a delay.
    #[must_use]
    pub fn reschedule(delivery: DeliveryId, delay: Duration, redelivery: Bytes) -> Self {
        Self::new(delivery, End::Reschedule { delay, redelivery })
    }

    /// Dead-letters a message.
    #[must_use]
    pub fn dead_letter(delivery: DeliveryId, record: Record) -> Self {
        Self::new(delivery, End::DeadLetter(Box::new(record)))
    }

    /// Gives a delivery back at which the member has begun no attempt.
    #[must_use]
    pub fn release(delivery: DeliveryId) -> Self {
        Self::new(delivery, End::Release { attempts: None })
    }

    /// Gives a delivery back, with the attempts at it that count.
    #[must_use]
    pub fn release_counted(delivery: DeliveryId, attempts: impl Into<Attempts>) -> Self {
        let attempts = Some(attempts.into());
        Self::new(delivery, End::Release { attempts })
    }

    fn new(delivery: DeliveryId, end: End) -> Self {
        Self {
            delivery,
            end,
            only_copy: false,
        }
    }

    /// Says that the member has the only copy of the message: the store lost its record of the
    /// delivery. The store then writes a retry or a dead letter also where nobody holds the delivery.
    ///
    /// Nothing tells a repeated call from the first, so a retry without a delay and a dead letter
    /// can be written twice when the first answer was lost.
    #[must_use]
    pub fn of_only_copy(mut self) -> Self {
        self.only_copy = true;
        self
    }

    /// The delivery.
    #[must_use]
    pub fn delivery(&self) -> DeliveryId {
        self.delivery
    }

    /// The same end of another delivery.
    #[must_use]
    pub(crate) fn of(mut self, delivery: DeliveryId) -> Self {
        self.delivery = delivery;
        self
    }

    /// How it ends.
    #[must_use]
    pub fn end(&self) -> &End {
        &self.end
    }

    /// Whether the member has the only copy of the message.
    #[must_use]
    pub fn is_of_only_copy(&self) -> bool {
        self.only_copy
    }
}

/// The commits of one call, sorted as they are put in: acknowledgements, many of which are one
/// cheap command, and the fenced rest, which the store checks one by one.
#[derive(Clone, Debug, Default)]
pub struct Commits {
    acks: Vec<DeliveryId>,
    fenced: Vec<Commit>,
}

impl Commits {
    /// Adds a commit.
    pub fn push(&mut self, commit: Commit) {
        match commit.end {
            End::Ack => self.acks.push(commit.delivery),
            _ => self.fenced.push(commit),
        }
    }

    /// The acknowledged deliveries.
    #[must_use]
    pub fn acks(&self) -> &[DeliveryId] {
        &self.acks
    }

    /// The acknowledged deliveries, for a caller that fills in nothing else.
    pub fn acks_mut(&mut self) -> &mut Vec<DeliveryId> {
        &mut self.acks
    }

    /// The commits that hold only while the member holds the delivery.
    #[must_use]
    pub fn fenced(&self) -> &[Commit] {
        &self.fenced
    }

    /// How many commits there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.acks.len() + self.fenced.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps the commits of some deliveries only.
    pub fn retain(&mut self, mut keep: impl FnMut(DeliveryId) -> bool) {
        self.acks.retain(|delivery| keep(*delivery));
        self.fenced.retain(|commit| keep(commit.delivery));
    }

    /// Removes all commits, and keeps the memory for the next ones.
    pub fn clear(&mut self) {
        self.acks.clear();
        self.fenced.clear();
    }
}

impl Extend<Commit> for Commits {
    fn extend<T: IntoIterator<Item = Commit>>(&mut self, commits: T) {
        commits.into_iter().for_each(|commit| self.push(commit));
    }
}

impl FromIterator<Commit> for Commits {
    fn from_iter<T: IntoIterator<Item = Commit>>(commits: T) -> Self {
        let mut made = Self::default();
        made.extend(commits);
        made
    }
}

/// The result of one commit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Fate {
    /// The delivery ended as the commit says.
    Done,
    /// Another member holds the delivery, or the group is gone; the store wrote nothing.
    Lost,
    /// Nobody holds the delivery; the store wrote nothing. The delivery has ended, or something
    /// other than Redstart removed the consumer.
    NotHeld,
}

/// The answer to [`Commits`]. The two groups fail apart: a server whose memory is full still
/// acknowledges.
#[derive(Clone, Debug)]
#[must_use]
pub struct Replies {
    /// The result of all acknowledgements; `Done` when there were none.
    pub acks: Result<Fate, Error>,
    /// The results of the fenced commits, in the order of [`Commits::fenced`].
    pub fenced: Vec<Result<Fate, Error>>,
}

impl Replies {
    /// The results of the fenced commits, if the store answered every commit.
    ///
    /// # Errors
    ///
    /// The first failure. The caller then repeats the whole call: acknowledging again succeeds, and
    /// a commit that was done is [`Fate::NotHeld`] the second time.
    pub fn answered(self) -> Result<Vec<Fate>, Error> {
        self.acks?;
        self.fenced.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{EntryId, ErrorKind};
    use crate::store::Lane;

    fn delivery(sequence: u64) -> DeliveryId {
        DeliveryId {
            lane: Lane::Log,
            id: EntryId::new(1, sequence),
        }
    }

    #[test]
    fn acknowledgements_are_sorted_out_and_the_rest_keeps_its_order() {
        let later = |n| Commit::reschedule(delivery(n), Duration::ZERO, Bytes::new());
        let all = [
            later(3),
            Commit::ack(delivery(1)),
            Commit::release(delivery(2)),
        ];
        let mut commits = Commits::from_iter(all);
        assert_eq!(commits.acks(), [delivery(1)]);
        let fenced = |commits: &Commits| {
            let fenced = commits.fenced().iter();
            fenced.map(Commit::delivery).collect::<Vec<_>>()
        };
        assert_eq!(fenced(&commits), [delivery(3), delivery(2)]);
        assert_eq!(commits.len(), 3);
        commits.retain(|one| one == delivery(2));
        assert_eq!(
            (commits.acks(), fenced(&commits)),
            (&[][..], vec![delivery(2)])
        );
        commits.clear();
        assert!(commits.is_empty());
    }

    #[test]
    fn replies_are_answered_only_when_every_commit_is() {
        let failed = || Error::new(ErrorKind::OutcomeUnknown, "settle", "cut");
        let replies = |acks, fenced| Replies { acks, fenced };
        let done = replies(Ok(Fate::Done), vec![Ok(Fate::Done), Ok(Fate::Lost)]);
        assert_eq!(done.answered().unwrap(), [Fate::Done, Fate::Lost]);
        let half = replies(Ok(Fate::Done), vec![Ok(Fate::Done), Err(failed())]);
        assert!(half.answered().is_err());
        assert!(replies(Err(failed()), Vec::new()).answered().is_err());
    }
}
