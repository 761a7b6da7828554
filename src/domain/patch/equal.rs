//! Equality of JSON values, exact for numbers of any length.

use super::json::{self, Opened};

/// Whether two checked texts are the same JSON value. The order of an object's entries does not
/// matter, except among equal keys.
pub(super) fn equal(one: &str, other: &str) -> Result<bool, String> {
    if one == other {
        return Ok(true);
    }
    match (json::open(one)?, json::open(other)?) {
        (Opened::Array(one), Opened::Array(other)) => {
            if one.len() != other.len() {
                return Ok(false);
            }
            all(one.iter().zip(&other), |(one, other)| {
                equal(one.get(), other.get())
            })
        }
        (Opened::Object(mut one), Opened::Object(mut other)) => {
            if one.len() != other.len() {
                return Ok(false);
            }
            one.sort_by(|a, b| a.0.cmp(&b.0));
            other.sort_by(|a, b| a.0.cmp(&b.0));
            all(one.iter().zip(&other), |(one, other)| {
                Ok(one.0 == other.0 && equal(one.1.get(), other.1.get())?)
            })
        }
        (Opened::Other, Opened::Other) => Ok(equal_leaves(one, other)),
        _ => Ok(false),
    }
}

fn all<T>(
    mut pairs: impl Iterator<Item = T>,
    same: impl Fn(T) -> Result<bool, String>,
) -> Result<bool, String> {
    pairs.try_fold(true, |so_far, pair| Ok(so_far && same(pair)?))
}

fn equal_leaves(one: &str, other: &str) -> bool {
    if one.starts_with('"') && other.starts_with('"') {
        let text = |raw| serde_json::from_str::<String>(raw).ok();
        return text(one).is_some() && text(one) == text(other);
    }
    matches!((decimal(one), decimal(other)), (Some(one), Some(other)) if one == other)
}

/// A number as its sign, its digits without zeros at either end, and the power of ten of the last.
fn decimal(text: &str) -> Option<(bool, String, i64)> {
    if !text.starts_with(|char: char| char == '-' || char.is_ascii_digit()) {
        return None;
    }
    let is_negative = text.starts_with('-');
    let text = text.trim_start_matches('-');
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let exponent: i64 = exponent.parse().ok()?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    let trimmed = digits.trim_end_matches('0');
    if trimmed.is_empty() {
        return Some((is_negative, String::new(), 0));
    }
    let zeros = i64::try_from(digits.len() - trimmed.len()).ok()?;
    let fraction = i64::try_from(fraction.len()).ok()?;
    let power = exponent.checked_sub(fraction)?.checked_add(zeros)?;
    Some((is_negative, trimmed.to_owned(), power))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_equal_by_every_digit() {
        for (one, other, same) in [
            ("1", "1.0", true),
            ("100", "1e2", true),
            ("0.10", "1E-1", true),
            ("0", "0.00", true),
            ("-0", "0", false),
            ("1", "-1", false),
            ("12345678901234567890123", "12345678901234567890124", false),
            ("1e400", "1e401", false),
            ("1e400", "10e399", true),
            (r#""a""#, r#""\u0061""#, true),
            (r#""1""#, "1", false),
            ("null", "false", false),
            ("[]", "{}", false),
            ("[1,2]", "[ 1, 2.0 ]", true),
            ("[1,2]", "[2,1]", false),
            (r#"{"a":1,"b":[2]}"#, r#"{"b":[2],"a":1}"#, true),
            (r#"{"a":1,"a":2}"#, r#"{"a":2,"a":1}"#, false),
            (r#"{"a":1}"#, r#"{"a":1,"b":null}"#, false),
        ] {
            assert_eq!(equal(one, other), Ok(same), "{one} {other}");
            assert_eq!(equal(other, one), Ok(same), "{other} {one}");
        }
    }
}
