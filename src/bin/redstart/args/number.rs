//! Numbers on the command line.

use std::str::FromStr;

/// A count of at least one.
pub(super) fn from_one<T: FromStr + Default + PartialEq>(text: &str) -> Result<T, &'static str> {
    let number = text.parse().ok().filter(|number| *number != T::default());
    number.ok_or("must be a whole number from 1")
}

/// A count, or none.
pub(super) fn from_zero<T: FromStr>(text: &str) -> Result<T, &'static str> {
    text.parse().map_err(|_| "must be a whole number from 0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_has_a_lower_bound() {
        assert_eq!(from_one("1"), Ok(1_usize));
        for bad in [
            "0",
            "-1",
            "1.5",
            "1e3",
            "",
            "many",
            "99999999999999999999999",
        ] {
            assert!(from_one::<usize>(bad).is_err(), "{bad}");
        }
        assert_eq!(from_zero("0"), Ok(0_u32));
        for bad in ["-1", "4294967296", "x"] {
            assert!(from_zero::<u32>(bad).is_err(), "{bad}");
        }
    }
}
