//! How long a reader waits after a ring, so that few of the readers of a group ask for one message.
//!
//! All processes of a group hear a ring, and each read that comes too late costs the server as much as
//! one that finds the message. So a reader that mostly comes too late waits for a random time and lets
//! the others go first. After some messages, one reader reads at once and the others look behind it,
//! now and then. Where that reader has no room or is gone, the first of the others finds the next
//! message, and waits less from then on.

use std::time::Duration;

use tokio::time::Instant;

/// A reader begins to wait once its empty reads exceed its successful reads by this many.
const MISSES: u32 = 4;
const SHORTEST: Duration = Duration::from_millis(2);
/// Of a fleet of ten that waits, the first reads after a tenth of it, on average.
const LONGEST: Duration = Duration::from_millis(250);

/// How long a reader waits after a ring.
#[derive(Debug, Default)]
pub(super) struct Courtesy {
    /// Reads that found nothing, less those that found something.
    misses: u32,
    /// When the reader reads, once it has heard a ring.
    turn: Option<Instant>,
}

impl Courtesy {
    /// Notes what a read after a ring has brought. A full answer says that there is more: then the
    /// reader waits no longer.
    pub(super) fn note(&mut self, found: usize, full: bool) {
        self.end_turn();
        self.misses = match (found, full) {
            (_, true) => 0,
            (0, _) if self.longest() < LONGEST => self.misses + 1,
            (0, _) => self.misses,
            _ => self.misses.saturating_sub(1),
        };
    }

    /// Notes a read that no ring has caused. That it finds nothing means nothing.
    pub(super) fn end_turn(&mut self) {
        self.turn = None;
    }

    /// When a reader reads that hears a ring now. Asking again changes nothing until it has read.
    pub(super) fn turn(&mut self, now: Instant) -> Instant {
        let longest = self.longest();
        *self.turn.get_or_insert_with(|| match longest.is_zero() {
            true => now,
            false => now + longest.mul_f64(fastrand::f64()),
        })
    }

    /// The longest wait after a ring.
    fn longest(&self) -> Duration {
        match self.misses.checked_sub(MISSES) {
            None => Duration::ZERO,
            Some(more) => SHORTEST.saturating_mul(1 << more.min(16)).min(LONGEST),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after_misses(misses: usize) -> Courtesy {
        let mut courtesy = Courtesy::default();
        for _ in 0..misses {
            courtesy.note(0, false);
        }
        courtesy
    }

    fn millis(courtesy: &Courtesy) -> u128 {
        courtesy.longest().as_millis()
    }

    #[test]
    fn a_reader_that_always_comes_too_late_lets_others_go_first() {
        let waits: Vec<_> = (0..13).map(|n| millis(&after_misses(n))).collect();
        assert_eq!(waits, [0, 0, 0, 0, 2, 4, 8, 16, 32, 64, 128, 250, 250]);
    }

    #[test]
    fn a_reader_that_finds_something_waits_half_as_long_and_one_that_finds_more_does_not_wait() {
        let mut courtesy = after_misses(100);
        courtesy.note(1, false);
        assert_eq!(millis(&courtesy), 128);
        courtesy.note(100, true);
        assert_eq!(millis(&courtesy), 0);
    }

    #[test]
    fn a_turn_stays_until_the_reader_has_read() {
        let mut courtesy = after_misses(100);
        let now = Instant::now();
        let turn = courtesy.turn(now);
        assert!(turn <= now + LONGEST);
        let later = now + Duration::from_secs(60);
        assert_eq!(courtesy.turn(later), turn);
        courtesy.end_turn();
        assert!(courtesy.turn(later) >= later);
    }

    /// A fleet of readers, to which messages come one by one. Returns the reads for each message after the
    /// first hundred, and the longest time that a message waited.
    fn fleet(
        members: usize,
        between: Duration,
        has_room: impl Fn(usize, u32) -> bool,
    ) -> (f64, Duration) {
        const MESSAGES: u32 = 1_000;
        fastrand::seed(7);
        let mut readers: Vec<(Courtesy, Option<Instant>)> = Vec::new();
        readers.resize_with(members, Default::default);
        let began = Instant::now();
        let (mut reads, mut longest) = (0, Duration::ZERO);
        let mut unread: Vec<Instant> = Vec::new();
        for number in 0..MESSAGES {
            let at = began + between * number;
            unread.push(at);
            for (courtesy, turn) in &mut readers {
                // It learns of the ring after a while, and its read takes some time.
                let delay = Duration::from_micros(fastrand::u64(200..800));
                turn.get_or_insert(courtesy.turn(at) + delay);
            }
            let due = |readers: &[(Courtesy, Option<Instant>)]| {
                let turns = readers.iter().enumerate();
                let turns = turns.filter(|(member, _)| has_room(*member, number));
                let turns = turns.filter_map(|(member, (_, turn))| Some(((*turn)?, member)));
                turns.filter(|(turn, _)| *turn < at + between).min()
            };
            while let Some((turn, member)) = due(&readers) {
                let (courtesy, next) = &mut readers[member];
                *next = None;
                courtesy.note(unread.len(), false);
                reads += u32::from(number >= 100);
                for at in unread.drain(..) {
                    longest = longest.max(turn - at);
                }
            }
        }
        (f64::from(reads) / f64::from(MESSAGES - 100), longest)
    }

    #[test]
    fn most_messages_are_read_by_one_member_of_a_fleet() {
        for (members, millis, most) in [(2, 10, 1.3), (10, 10, 2.0), (30, 10, 4.0), (30, 2, 2.0)] {
            let (reads, longest) = fleet(members, Duration::from_millis(millis), |_, _| true);
            assert!(
                reads < most,
                "{members} members, one in {millis} ms: {reads} reads a message"
            );
            assert!(longest < Duration::from_millis(20), "{longest:?}");
        }
    }

    #[test]
    fn others_read_soon_where_the_first_reader_has_no_room() {
        let between = Duration::from_millis(10);
        // From the middle on, half of the members have no room.
        let (_, longest) = fleet(10, between, |member, number| {
            number < 500 || member % 2 == 0
        });
        assert!(longest <= LONGEST, "{longest:?}");
    }
}
