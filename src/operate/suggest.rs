//! The name that a user may have meant.

/// The existing name closest to a misspelt one, if it is close.
///
/// Close means that at most a third of the characters, and three at most, were added, left out,
/// changed or swapped with a neighbour.
pub(super) fn closest<'a>(
    wanted: &str,
    names: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let most = wanted.chars().count().div_ceil(3).min(3);
    let near = names.into_iter().map(|name| (edits(wanted, name), name));
    let near = near.filter(|(edits, name)| *edits <= most && *name != wanted);
    near.min().map(|(_, name)| name)
}

/// How many characters are added, left out, changed or swapped with a neighbour between two texts.
fn edits(one: &str, other: &str) -> usize {
    let one: Vec<char> = one.chars().collect();
    let other: Vec<char> = other.chars().collect();
    let width = other.len() + 1;
    let mut table = vec![0; (one.len() + 1) * width];
    for row in 0..=one.len() {
        for column in 0..width {
            let at = |row: usize, column: usize| table[row * width + column];
            let cost = if row == 0 || column == 0 {
                row + column
            } else {
                let differs = usize::from(one[row - 1] != other[column - 1]);
                let mut cost = (at(row - 1, column - 1) + differs)
                    .min(at(row - 1, column) + 1)
                    .min(at(row, column - 1) + 1);
                let is_swap = row > 1
                    && column > 1
                    && one[row - 1] == other[column - 2]
                    && one[row - 2] == other[column - 1];
                if is_swap {
                    cost = cost.min(at(row - 2, column - 2) + 1);
                }
                cost
            };
            table[row * width + column] = cost;
        }
    }
    table[one.len() * width + other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_count_each_kind_of_slip_once() {
        for (one, other, count) in [
            ("", "", 0),
            ("", "abc", 3),
            ("orders", "order", 1),
            ("orders", "odrers", 1),
            ("orders", "orderz", 1),
            ("orders", "sales", 4),
        ] {
            assert_eq!(edits(one, other), count, "{one} {other}");
            assert_eq!(edits(other, one), count, "{other} {one}");
        }
    }

    #[test]
    fn only_a_close_name_is_suggested() {
        let names = ["billing", "shipping", "mail"];
        assert_eq!(closest("biling", names), Some("billing"));
        assert_eq!(closest("shiping", names), Some("shipping"));
        assert_eq!(closest("billing", names), None);
        assert_eq!(closest("warehouse", names), None);
        assert_eq!(closest("x", ["y", "z"]), Some("y"));
    }
}
