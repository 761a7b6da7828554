//! Owned groups: each partition of a topic has one process at a time.
//!
//! An owned group has no pending list. The owner of a partition reads it with plain range reads and keeps
//! in the store how far it has come. That is cheaper than a pending list, and it lets the store refuse
//! whatever a former owner writes.
//!
//! # What the store keeps
//!
//! With partition 0, for the whole group:
//!
//! | Key | Holds |
//! |---|---|
//! | `members` | the members, each with the end of its lease |
//! | `owners` | the owner of each partition, the lease of each member, and the members that are about to leave |
//! | `tokens` | the last token of each partition; tokens only grow |
//!
//! With each partition:
//!
//! | Key | Holds |
//! |---|---|
//! | `cursor` | the token that last took it, its owner, the number of its last step; and for the log and the redelivery stream `low`, `high` and `done` |
//! | `held` | attempts at unsettled messages, failed messages that keep their place, and marks of messages that effects have settled |
//!
//! The group's own last delivered id in each stream equals `low`, so lag, status and retention work as for
//! shared groups.
//!
//! # Invariants
//!
//! 1. **The fence.** A cursor knows the token that last took it. A step under any other token writes
//!    nothing: no acknowledgement, no retry, no dead letter, no note. So a process that was suspended while
//!    another took its partition changes nothing when it comes back.
//! 2. **`high` before a handler.** No entry after `high` has begun. The owner writes `high` before it hands a
//!    message to a worker. The next owner takes each entry up to `high` that is not settled for one that may
//!    have begun: it counts one attempt, and marks the next one before it begins.
//! 3. **`low` and `done`.** Every entry up to `low` is settled, and above it exactly those in `done` and those
//!    with a mark in `held`. The owner's next step counts the marked ones in the cursor and removes the marks. What
//!    is settled is never handed out again.
//! 4. **One step, one number.** A step has a number, and the store does it once. One step is under way for a
//!    partition. After an unknown outcome the owner sends the same step again before any other.
//! 5. **Let go before another claims.** The store grants a claim only on a partition without an owner. An
//!    owner that is to give a partition up hands out nothing more, waits for its handlers, writes its last
//!    step and only then gives it up. After the time for a handover it cancels them. A process that shuts
//!    down gives all of its partitions up in this way, and cancels handlers when its grace is over.
//! 6. **Nothing begins late.** A member begins no handler after four fifths of its lease, counted from before
//!    it sent the renewal, by its own clock. Other members wait for the whole lease, by the server's clock.
//! 7. **A token is taken once.** A process that lost its time and owns the partition still claims it again and
//!    gets a greater token, so that steps of the two times cannot be taken for each other.
//! 8. **One message of a key.** The later messages of a key are handed out when the earlier ones are settled
//!    in the store, and not before.
//! 9. **In its line until it is handed out.** The store allows messages to begin while they wait in their lines.
//!    Then one look of the reader takes them and nothing waits until they are in flight. So a call that hangs
//!    or whose time is over holds no message, and a recovery finds only those that nobody has.
//!
//! # The parts
//!
//! | File | Does |
//! |---|---|
//! | `membership.rs` | stays in the group, claims partitions, gives them up |
//! | `partition/` | one owned partition: windows, order by key, steps |
//! | `flusher.rs` | tells the store of acknowledgements that no other step has told it |
//! | `effects.rs` | commits effects under the token of their partition |
//! | `group.rs` | the owned partitions as [`Deliveries`](crate::store::Deliveries) |
//! | `reader.rs` | the owned partitions as a [`Reader`](crate::store::Reader) |
//! | `store.rs` | the store with these two in place of its own |
//!
//! Each partition is read, written and settled by itself, so one whose server does not answer delays no other.
//!
//! The rules without I/O are in `domain/ownership/`. The rest of the runtime does not know of ownership, except
//! that a delivery's lease ends with the time in which its process owns the partition.

mod effects;
pub(crate) mod flusher;
mod group;
pub(crate) mod membership;
mod partition;
mod reader;
mod store;
#[cfg(test)]
mod tests;

pub(crate) use group::OwnedGroup;
pub(crate) use partition::{MOST_BYTES, MOST_ENTRIES};
pub(crate) use store::OwnedStore;
