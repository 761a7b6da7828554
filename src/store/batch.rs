//! Cuts what one call carries into batches of a bounded number and weight.

use super::MAX_BATCH;

/// A script's arguments are cut at some 1 MiB: it blocks the server, and it has to get there.
const BATCH_BYTES: usize = 1024 * 1024;

/// About how many bytes one read brings. A read of a hundred messages of 900 KiB takes 18 seconds at
/// 5 MiB/s, and the reader holds them all.
pub(crate) const READ_BYTES: usize = 4 * 1024 * 1024;

/// Cuts items into batches of a bounded number and weight; a heavy one goes alone.
pub(crate) fn batches<T>(items: &[T], weight: impl Fn(&T) -> usize) -> Vec<&[T]> {
    batches_of(items, MAX_BATCH, weight)
}

/// As [`batches`], with at most `most` items each.
pub(crate) fn batches_of<T>(items: &[T], most: usize, weight: impl Fn(&T) -> usize) -> Vec<&[T]> {
    cut(items, (most, BATCH_BYTES), weight)
}

/// Cuts items into what one answer carries well: up to [`READ_BYTES`]. A heavier one comes alone.
pub(crate) fn pages<T>(items: &[T], weight: impl Fn(&T) -> usize) -> Vec<&[T]> {
    cut(items, (MAX_BATCH, READ_BYTES), weight)
}

fn cut<T>(
    items: &[T],
    (most, most_bytes): (usize, usize),
    weight: impl Fn(&T) -> usize,
) -> Vec<&[T]> {
    let mut batches = Vec::new();
    let mut rest = items;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = rest.iter().take(most).take_while(|item| {
            bytes = weight(item).saturating_add(bytes);
            bytes <= most_bytes
        });
        let (batch, later) = rest.split_at(fits.count().max(1));
        batches.push(batch);
        rest = later;
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_bounded_in_number_and_weight_and_lose_nothing() {
        let sizes = [10, 2_000_000, 600_000, 600_000, 1];
        let cut: Vec<Vec<usize>> = batches(&sizes, |size| *size)
            .into_iter()
            .map(<[usize]>::to_vec)
            .collect();
        assert_eq!(
            cut,
            [vec![10], vec![2_000_000], vec![600_000], vec![600_000, 1]]
        );
        assert_eq!(batches(&[0_usize; 1200], |size| *size).len(), 3);
    }
}
