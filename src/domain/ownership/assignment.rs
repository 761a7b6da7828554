//! Which partitions a member gives up and which it claims.
//!
//! Every member decides for itself, from the same roster and by the same rule, so no member leads the
//! group. The store grants a claim only on a partition that nobody owns. A partition therefore moves in
//! two steps: its owner gives it up, and another member claims it.

use std::cmp::Reverse;
use std::collections::BTreeMap;

/// What a member does next.
#[derive(Debug, Default, Eq, PartialEq)]
pub(crate) struct Plan {
    /// Partitions that it owns beyond its share.
    pub(crate) gives: Vec<u16>,
    /// Partitions without an owner that belong to its share.
    pub(crate) claims: Vec<u16>,
}

/// Decides for `me` what to give up and what to claim.
///
/// The shares differ by one at most. The members that own most keep the greater shares, so a partition
/// moves only from a member with more than its share. An owner that is about to leave is not among `members`,
/// and what it owns is not free.
pub(crate) fn plan<N: Ord>(
    me: &N,
    members: &[N],
    owners: &BTreeMap<u16, N>,
    partitions: u16,
) -> Plan {
    let partitions: Vec<u16> = (0..partitions).collect();
    let of = |name: &N| {
        let owned = partitions.iter().filter(|at| owners.get(at) == Some(name));
        owned.copied().collect::<Vec<u16>>()
    };
    let mut order: Vec<(&N, usize)> = members.iter().map(|name| (name, of(name).len())).collect();
    order.sort_by_key(|(name, owned)| (Reverse(*owned), *name));
    order.dedup_by_key(|(name, _)| *name);
    let Some(rank) = order.iter().position(|(name, _)| *name == me) else {
        return Plan::default();
    };
    let (base, more) = (
        partitions.len() / order.len(),
        partitions.len() % order.len(),
    );
    let share = |rank: usize| base + usize::from(rank < more);
    let owned = of(me);
    if owned.len() > share(rank) {
        return Plan {
            gives: owned[share(rank)..].to_vec(),
            claims: Vec::new(),
        };
    }
    let is_free = |at: &&u16| !owners.contains_key(at);
    let free: Vec<u16> = partitions.iter().filter(is_free).copied().collect();
    // Members that claim at the same time begin at different partitions.
    let lacks = |rank: usize| share(rank).saturating_sub(order[rank].1);
    let before: usize = (0..rank).map(lacks).sum();
    let claims = free.iter().cycle().skip(before);
    Plan {
        gives: Vec::new(),
        claims: claims.take(lacks(rank).min(free.len())).copied().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Owners = BTreeMap<u16, u8>;

    /// One call of a member, as the store grants it.
    fn attend(me: u8, members: &[u8], owners: &mut Owners, partitions: u16) -> usize {
        owners.retain(|_, owner| members.contains(owner));
        let Plan { gives, claims } = plan(&me, members, owners, partitions);
        for at in &gives {
            assert_eq!(owners.remove(at), Some(me), "it gives what it owns");
        }
        for at in &claims {
            owners.entry(*at).or_insert(me);
        }
        gives.len() + claims.len()
    }

    fn settle(members: &[u8], owners: &mut Owners, partitions: u16) {
        for _ in 0..members.len() + 2 {
            let mut changes = 0;
            for me in members {
                changes += attend(*me, members, owners, partitions);
            }
            if changes == 0 {
                return;
            }
        }
        panic!("{members:?} do not agree: {owners:?}");
    }

    #[test]
    fn a_member_that_joins_gets_its_share_and_nothing_else_moves() {
        let mut owners: Owners = (0..6).map(|at| (at, (at % 2) as u8)).collect();
        let before = owners.clone();
        settle(&[0, 1, 2], &mut owners, 6);
        let moved = before.iter().filter(|(at, owner)| owners[at] != **owner);
        assert_eq!(moved.count(), 2);
    }

    #[test]
    fn with_one_partition_the_second_member_waits() {
        let owners = Owners::from([(0, 7)]);
        assert_eq!(plan(&3, &[3, 7], &owners, 1), Plan::default());
        assert_eq!(plan(&3, &[3], &owners, 1), Plan::default(), "7 is leaving");
        assert_eq!(plan(&3, &[3], &Owners::new(), 1).claims, [0], "7 has left");
    }

    #[test]
    fn a_member_that_is_not_in_the_roster_does_nothing() {
        assert_eq!(plan(&1, &[2], &Owners::new(), 4), Plan::default());
    }

    proptest! {
        /// However members come and go: the shares are even, every partition has one owner, and no
        /// partition moves from a member that stays and has no more than its share.
        #[test]
        fn members_agree_on_even_shares(
            partitions in 1_u16..40,
            generations in proptest::collection::vec(proptest::collection::btree_set(0_u8..12, 1..8), 1..6),
        ) {
            let mut owners = Owners::new();
            for members in generations {
                let members: Vec<u8> = members.into_iter().collect();
                let before = owners.clone();
                settle(&members, &mut owners, partitions);
                prop_assert_eq!(owners.len(), usize::from(partitions));
                let (n, m) = (usize::from(partitions), members.len());
                for me in &members {
                    let mine = owners.values().filter(|owner| *owner == me).count();
                    prop_assert!(mine == n / m || mine == n.div_ceil(m), "{} of {}", mine, n);
                    let had = before.values().filter(|owner| *owner == me).count();
                    let kept = before.iter().filter(|(at, owner)| *owner == me && owners[at] == **owner).count();
                    prop_assert_eq!(kept, had.min(mine), "it kept what fits its share");
                }
            }
        }
    }
}
