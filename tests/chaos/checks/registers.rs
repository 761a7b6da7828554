//! The search for an order of what clients saw of a register.

use crate::checker::register::{LONGEST, Operation, linearizable};
use crate::history::{Op, Told};

fn did(asked: u64, told_at: u64, op: Op, told: Told) -> Operation {
    Operation {
        asked,
        told_at,
        op,
        told,
    }
}

const fn cas(expected: Option<u64>, new: u64) -> Op {
    Op::CasResult { expected, new }
}

#[test]
fn sequential_operations_must_fit_the_register() {
    let sound = [
        did(1, 2, Op::Set(7), Told::Set),
        did(3, 4, Op::Get, Told::Got(Some(7))),
        did(5, 6, cas(Some(7), 8), Told::Swapped(true)),
        did(7, 8, cas(Some(7), 9), Told::Swapped(false)),
        did(9, 10, Op::Get, Told::Got(Some(8))),
    ];
    assert_eq!(linearizable(&sound), Ok(true));
    let mut stale = sound;
    stale[4].told = Told::Got(Some(7));
    assert_eq!(linearizable(&stale), Ok(false));
}

#[test]
fn of_two_at_once_only_one_swaps_the_same_value() {
    let both = [
        did(1, 10, cas(None, 1), Told::Swapped(true)),
        did(2, 9, cas(None, 2), Told::Swapped(true)),
    ];
    assert_eq!(linearizable(&both), Ok(false));
    let mut one = both;
    one[1].told = Told::Swapped(false);
    assert_eq!(linearizable(&one), Ok(true));
}

#[test]
fn an_unknown_publish_may_arrive_late_or_never_but_only_once() {
    let unknown = did(1, u64::MAX, cas(None, 5), Told::Unknown);
    let seen = did(10, 11, Op::Get, Told::Got(Some(5)));
    let not_yet = did(5, 6, Op::Get, Told::Got(None));
    assert_eq!(linearizable(&[unknown, not_yet, seen]), Ok(true));
    assert_eq!(linearizable(&[unknown, not_yet]), Ok(true));
    let back = did(12, 13, Op::Get, Told::Got(None));
    assert_eq!(linearizable(&[unknown, seen, back]), Ok(false));
    // What was certainly not done is never seen.
    let refused = did(1, 2, cas(None, 5), Told::No);
    assert_eq!(linearizable(&[refused, seen]), Ok(false));
}

#[test]
fn a_long_history_of_many_clients_is_searched_in_time() {
    let mut all = Vec::new();
    for round in 0..50_u64 {
        let before = round.checked_sub(1);
        let at = round * 10;
        all.push(did(at, at + 9, cas(before, round), Told::Swapped(true)));
        for other in 0..4 {
            let new = 1000 + round * 4 + other;
            let lost = cas(Some(9999), new);
            all.push(did(at + 1, at + 8, lost, Told::Swapped(false)));
        }
    }
    for (n, one) in all.iter_mut().enumerate().filter(|(n, _)| n % 25 == 4) {
        one.told = Told::Unknown;
        one.told_at = u64::MAX;
        assert!(n < LONGEST);
    }
    assert_eq!(linearizable(&all), Ok(true));
    assert_eq!(linearizable(&[all[0]; LONGEST + 1]), Err(LONGEST + 1));
}
