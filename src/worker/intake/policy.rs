//! The tuned numbers of the intake, in one place.
//!
//! They were found with `benches/run` and belong together: a change of one needs a run of the
//! figures for consuming and for both.

use std::time::Duration;

/// How far ahead a subscription reads, and when a command or a wake-up pays.
#[derive(Debug)]
pub(crate) struct Policy {
    /// A queued delivery should reach a handler within this time: the prefetch follows the number
    /// of deliveries that the handlers finish in it.
    pub(crate) lookahead: Duration,
    /// The upper bound of an adaptive prefetch. Reading further ahead gains nothing.
    pub(crate) max_prefetch: usize,
    /// The prefetch adapts at most this often, unless as many deliveries as are read ahead have been
    /// finished. A shorter time of handling can raise the prefetch, but not lower it.
    pub(crate) adapt_every: Duration,
    /// The number of finished deliveries a second, of all subscriptions of the container, from which
    /// fetchers pause: after a small read, or after a ring. A read costs the server as much as ten messages.
    pub(crate) gather_pace: u64,
    /// A read that brings fewer deliveries is small.
    pub(crate) gather_below: usize,
    /// Messages of a topic come in bursts if a read after a ring brings as many. Then the fetcher pauses
    /// after the next ring instead: the rest of that burst is under way.
    pub(crate) burst: usize,
    /// The pause, in which more messages come together.
    pub(crate) gather_for: Duration,
    /// A handler that runs longer than this before it first waits is worth the wake-up of another
    /// worker.
    pub(crate) quick_handler: Duration,
    /// After this number of quick handlers in a row the queue expects the next one to be quick.
    pub(crate) quick_streak: u32,
    /// A queued delivery that has waited for this long behind busy handlers goes back to the store,
    /// where an idle process finds it.
    pub(crate) give_back_after: Duration,
    /// Handlers that each finish within this time are quick enough for reading ahead again.
    pub(crate) quick_again: Duration,
    /// An empty queue, table or settler frees its memory if it had room for more deliveries than this.
    pub(crate) keep_memory_for: usize,
    /// How soon the reclaimer looks again after it ran out of capacity.
    pub(crate) reclaim_when_full: Duration,
}

pub(crate) const POLICY: Policy = Policy {
    lookahead: Duration::from_millis(50),
    max_prefetch: 1024,
    adapt_every: Duration::from_millis(10),
    gather_pace: 40_000,
    gather_below: 400,
    burst: 32,
    gather_for: Duration::from_millis(2),
    quick_handler: Duration::from_micros(50),
    quick_streak: 64,
    give_back_after: Duration::from_secs(5),
    quick_again: Duration::from_secs(1),
    keep_memory_for: 64,
    reclaim_when_full: Duration::from_millis(10),
};
