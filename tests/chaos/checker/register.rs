//! Whether the operations on one register are linearizable.
//!
//! The search of Wing and Gong: try each operation that may come next. An operation with a reply must
//! fit the value; an operation with an unknown outcome may happen at any time or never.

use std::collections::HashSet;

use crate::history::{Op, Told};

/// The largest number of operations on one key that the search accepts.
pub(crate) const LONGEST: usize = 256;

/// An operation on one register, from request to reply.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operation {
    pub(crate) asked: u64,
    /// `u64::MAX` without a reply.
    pub(crate) told_at: u64,
    pub(crate) op: Op,
    pub(crate) told: Told,
}

type Set = [u64; LONGEST / 64];

/// Whether the operations on a register that begins absent are linearizable.
///
/// # Errors
///
/// When there are more than [`LONGEST`].
pub(crate) fn linearizable(operations: &[Operation]) -> Result<bool, usize> {
    // Operations that certainly did not happen do not count.
    let operations: Vec<Operation> = operations
        .iter()
        .filter(|operation| operation.told != Told::No)
        .copied()
        .collect();
    if operations.len() > LONGEST {
        return Err(operations.len());
    }
    let mut search = Search {
        operations: &operations,
        dead_ends: HashSet::new(),
    };
    Ok(search.goes_on([0; LONGEST / 64], None))
}

struct Search<'a> {
    operations: &'a [Operation],
    dead_ends: HashSet<(Set, Option<u64>)>,
}

impl Search<'_> {
    fn goes_on(&mut self, done: Set, value: Option<u64>) -> bool {
        let open = |at: &usize| done[at / 64] & (1 << (at % 64)) == 0;
        let left: Vec<usize> = (0..self.operations.len()).filter(open).collect();
        let first_told = left.iter().map(|at| self.operations[*at].told_at).min();
        // Operations with an unknown outcome may never happen.
        let Some(first_told) = first_told.filter(|at| *at < u64::MAX) else {
            return true;
        };
        if !self.dead_ends.insert((done, value)) {
            return false;
        }
        left.into_iter().any(|at| {
            let operation = self.operations[at];
            if operation.asked > first_told {
                return false;
            }
            let Some(after) = step(operation, value) else {
                return false;
            };
            let mut done = done;
            done[at / 64] |= 1 << (at % 64);
            self.goes_on(done, after)
        })
    }
}

/// The value after an operation; `None` when the operation does not fit the value before.
fn step(operation: Operation, value: Option<u64>) -> Option<Option<u64>> {
    match (operation.op, operation.told) {
        (Op::Get, Told::Got(seen)) => (seen == value).then_some(value),
        (Op::Set(new), Told::Set | Told::Unknown) => Some(Some(new)),
        (Op::CasResult { expected, new }, Told::Swapped(true) | Told::Unknown) => {
            (expected == value).then_some(Some(new))
        }
        (Op::CasResult { expected, .. }, Told::Swapped(false)) => {
            (expected != value).then_some(value)
        }
        // An unknown read changes nothing; anything else is not an answer to the question.
        _ => None,
    }
}
