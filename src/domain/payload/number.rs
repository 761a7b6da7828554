//! Numbers as text, and the ones that MessagePack does not have.
//!
//! JSON knows numbers of any length; MessagePack has integers of 64 bits and doubles. A long
//! number is never rounded: it stands in the bytes as an extension that holds its text. Such bytes
//! stay inside the process. They become JSON, or the caller refuses the value.

use rmp::encode as put;

use super::unfit::Unfit;

/// The extension type of a long number. It is never stored or sent.
const LONG: i8 = 78;
/// A double keeps every decimal of this many digits.
const DOUBLE_DIGITS: usize = 15;

/// A JSON number as MessagePack sees it.
#[derive(Debug, PartialEq)]
enum Number {
    Unsigned(u64),
    Signed(i64),
    Double(f64),
    Long,
}

impl Number {
    fn of(text: &str) -> Result<Self, Unfit> {
        let digits = text.strip_prefix('-').unwrap_or(text);
        // `-0` is a double, as JSON parsers read it: no integer has its sign.
        if text != "-0" && digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(match (text.parse(), text.parse()) {
                (Ok(value), _) => Self::Unsigned(value),
                (_, Ok(value)) => Self::Signed(value),
                _ => Self::Long,
            });
        }
        let value: f64 = text
            .parse()
            .map_err(|_| Unfit::new(format!("{text:.40?} is not a number")))?;
        Ok(if value.is_finite() && is_print_of(digits, value) {
            Self::Double(value)
        } else {
            Self::Long
        })
    }
}

/// Whether a decimal without a sign is what a program prints for the double that it reads as: what JSON
/// writes for it, with as few digits as identify the double, or the 17 that identify every double. Another
/// decimal of 16 or 17 digits, such as 12345678901234.567, would read back as another one.
fn is_print_of(text: &str, value: f64) -> bool {
    let Some(decimal) = Decimal::of(text) else {
        return false;
    };
    if decimal.digits.len() <= DOUBLE_DIGITS && value.is_normal() {
        return true;
    }
    let value = value.abs();
    let is_written = |print: String| Decimal::of(&print).as_ref() == Some(&decimal);
    serde_json::to_string(&value).is_ok_and(is_written) || is_written(format!("{value:.16e}"))
}

/// A decimal: `0.digits` times ten to the power of `point`. Equal decimals are equal.
#[derive(Debug, PartialEq)]
struct Decimal {
    /// Without zeros at either end; empty for zero.
    digits: String,
    point: i64,
}

impl Decimal {
    /// `None` if the exponent has more digits than any decimal needs.
    fn of(text: &str) -> Option<Self> {
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = [whole, part].concat();
        let begun = all.trim_start_matches('0');
        let digits = begun.trim_end_matches('0').to_owned();
        if digits.is_empty() {
            return Some(Self { digits, point: 0 });
        }
        let zeros = all.len() - begun.len();
        let point = i64::try_from(whole.len()).ok()? - i64::try_from(zeros).ok()?;
        let point = point.checked_add(exponent.parse().ok()?)?;
        Some(Self { digits, point })
    }
}

/// Writes a JSON number as MessagePack, and says whether it is a long one.
pub(super) fn write_text(out: &mut Vec<u8>, text: &str) -> Result<bool, Unfit> {
    match Number::of(text)? {
        Number::Unsigned(value) => {
            put::write_uint(out, value)?;
        }
        Number::Signed(value) => {
            put::write_sint(out, value)?;
        }
        Number::Double(value) => put::write_f64(out, value)?,
        Number::Long => {
            let length = u32::try_from(text.len())
                .map_err(|_| Unfit::new("a number has more digits than any reader accepts"))?;
            put::write_ext_meta(out, length, LONG)?;
            out.extend_from_slice(text.as_bytes());
            return Ok(true);
        }
    }
    Ok(false)
}

/// The text of a long number, where an extension is one.
pub(super) fn long(kind: i8, bytes: &[u8]) -> Option<&str> {
    if kind == LONG {
        std::str::from_utf8(bytes).ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_number_is_exact_or_long() {
        let cases = [
            ("0", Number::Unsigned(0)),
            ("-1", Number::Signed(-1)),
            ("18446744073709551615", Number::Unsigned(u64::MAX)),
            ("-9223372036854775808", Number::Signed(i64::MIN)),
            ("18446744073709551616", Number::Long),
            ("-9223372036854775809", Number::Long),
            ("1.0", Number::Double(1.0)),
            ("1.00000000000000000000", Number::Double(1.0)),
            ("0.10000000000000001", Number::Double(0.1)),
            ("1e300", Number::Double(1e300)),
            ("1e400", Number::Long),
            ("1e-400", Number::Long),
            ("0e9", Number::Double(0.0)),
            ("0e99999999999999999999", Number::Double(0.0)),
            ("1e99999999999999999999", Number::Long),
            ("12345678901234567.89", Number::Long),
            // Between 15 and 17 digits, some decimals are prints of a double and others are not.
            ("123456789012.345", Number::Double(123_456_789_012.345)),
            ("1234567890123.456", Number::Double(1_234_567_890_123.456)),
            ("12345678901234.566", Number::Double(12_345_678_901_234.566)),
            ("12345678901234.567", Number::Long),
            ("9007199254740993.0", Number::Long),
            ("0.30000000000000004", Number::Double(0.1 + 0.2)),
            (
                "0.3000000000000001",
                Number::Double(0.300_000_000_000_000_1),
            ),
            ("0.30000000000000002", Number::Long),
            ("4.9406564584124654e-324", Number::Double(f64::from_bits(1))),
            ("5e-324", Number::Double(f64::from_bits(1))),
            // Both read as the same double, for which JSON writes the first.
            ("676345893516177.2", Number::Double(676_345_893_516_177.2)),
            ("676345893516177.3", Number::Long),
            ("4.94e-324", Number::Long),
        ];
        for (text, number) in cases {
            assert_eq!(Number::of(text).unwrap(), number, "{text}");
        }
        let Number::Double(zero) = Number::of("-0").unwrap() else {
            panic!("not a double")
        };
        assert!(zero.is_sign_negative());
        assert!(Number::of("x").is_err());
    }

    proptest! {
        #[test]
        fn every_print_of_a_double_is_that_double(bits: u64) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            for text in [serde_json::to_string(&value).unwrap(), format!("{value:.16e}")] {
                prop_assert_eq!(Number::of(&text).unwrap(), Number::Double(value), "{}", text);
            }
        }

        #[test]
        fn a_decimal_that_becomes_a_double_reads_back_as_it_was(
            whole in 0_u64..100_000_000_000_000_000, places in 1_usize..17
        ) {
            let digits = format!("{whole:017}");
            let (before, after) = digits.split_at(17 - places);
            let text = format!("{before}.{after}");
            if let Number::Double(value) = Number::of(&text).unwrap() {
                let decimal = Decimal::of(&text);
                let written = Decimal::of(&serde_json::to_string(&value).unwrap()) == decimal;
                // The text of a program that prints every double with 17 digits.
                let full = Decimal::of(&format!("{value:.16e}")) == decimal;
                let digits = decimal.unwrap().digits.len();
                prop_assert!(written || (full && digits == 17), "{text} {value:?}");
            }
        }
    }
}
