//! Numbers as text, and the ones that MessagePack does not have.
//!
//! JSON knows numbers of any length; MessagePack has integers of 64 bits and doubles. A long
//! number is never rounded: it stands in the bytes as an extension that holds its text. Such bytes
//! stay inside the process. They become JSON, or the caller refuses the value.

use rmp::encode as put;

use super::unfit::Unfit;

/// The extension type of a long number. It is never stored or sent.
const LONG: i8 = 78;
/// The digits that identify a double: printing one with 17 digits and reading it back gives the same.
const DOUBLE_DIGITS: usize = 17;

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
        let significant = significant_digits(digits);
        let fits =
            value.is_finite() && significant <= DOUBLE_DIGITS && (value != 0.0 || significant == 0);
        Ok(if fits {
            Self::Double(value)
        } else {
            Self::Long
        })
    }
}

fn significant_digits(text: &str) -> usize {
    let mantissa = text.split(['e', 'E']).next().unwrap_or_default();
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    digits.trim_matches('0').len()
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
            ("12345678901234567.89", Number::Long),
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
}
