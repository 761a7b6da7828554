//! Conditions on texts: equal, contained, matched by a pattern.
//!
//! Operators copy texts from the output of the command-line tool. The tool escapes line breaks,
//! control characters and direction marks, and cuts long errors. A condition therefore accepts the
//! printed form of a text beside the text itself.

use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

use super::error::{Error, ErrorKind};
use super::fingerprint::fingerprint;

/// The memory limit of a compiled pattern, in bytes. Patterns come from outside.
const PATTERN_SIZE: usize = 1024 * 1024;

/// The name of a text to find, in errors.
const WORDS: &str = "error text";

/// The mark at the end of a text that the tool has cut.
const CUT: char = '…';

/// A text that must be equal.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(from = "String", into = "String")]
pub(super) struct Exact {
    text: String,
    /// Set where the text has an escape.
    printed: Option<Regex>,
}

impl Exact {
    pub(super) fn new(text: String) -> Self {
        let printed = (text.contains('\\') && text.len() <= PATTERN_SIZE).then(|| {
            let pattern = format!("^{}$", printed(&text));
            // A text of such a length is no printed one.
            RegexBuilder::new(&pattern).size_limit(PATTERN_SIZE).build()
        });
        let printed = printed.and_then(Result::ok);
        Self { text, printed }
    }

    pub(super) fn is(&self, found: &str) -> bool {
        let printed = self.printed.as_ref();
        self.text == found || printed.is_some_and(|printed| printed.is_match(found))
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

impl PartialEq for Exact {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl From<String> for Exact {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl From<Exact> for String {
    fn from(exact: Exact) -> Self {
        exact.text
    }
}

/// The fingerprint of a cause, or an error of that cause.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(from = "String", into = "String")]
pub(super) struct Cause {
    exact: Exact,
    /// What the text folds to, as it is and with its escapes read, unless it is a fingerprint.
    folded: [Option<String>; 2],
}

impl Cause {
    pub(super) fn new(text: String) -> Self {
        let fold = |error: &str| {
            let folded = fingerprint(error);
            (folded != text && !folded.is_empty()).then_some(folded)
        };
        let folded = [fold(&text), fold(&unescaped(&text))];
        Self {
            exact: Exact::new(text),
            folded,
        }
    }

    pub(super) fn is(&self, found: &str) -> bool {
        let mut folded = self.folded.iter().flatten();
        self.exact.is(found) || folded.any(|folded| folded == found)
    }

    pub(super) fn text(&self) -> &str {
        self.exact.text()
    }
}

impl From<String> for Cause {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl From<Cause> for String {
    fn from(cause: Cause) -> Self {
        cause.exact.text
    }
}

/// A text to find, ignoring case, with the expression that finds it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Words(Regex, Exact);

impl Words {
    pub(super) fn new(text: String) -> Result<Self, Error> {
        check_length(WORDS, &text)?;
        let whole = text.strip_suffix(CUT).filter(|kept| !kept.is_empty());
        let pattern = match whole {
            Some(kept) => format!("{}(?s:.)", printed(kept)),
            None => printed(&text),
        };
        let regex = compile(WORDS, RegexBuilder::new(&pattern).case_insensitive(true))?;
        Ok(Self(regex, Exact::new(text)))
    }

    pub(super) fn are_in(&self, found: &str) -> bool {
        self.0.is_match(found)
    }

    /// Whether the text is this fingerprint, which summaries show in a column of errors.
    pub(super) fn are_cause(&self, fingerprint: &str) -> bool {
        self.1.is(fingerprint)
    }

    pub(super) fn text(&self) -> &str {
        self.1.text()
    }
}

impl PartialEq for Words {
    fn eq(&self, other: &Self) -> bool {
        self.1 == other.1
    }
}

impl TryFrom<String> for Words {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        Self::new(text)
    }
}

impl From<Words> for String {
    fn from(words: Words) -> Self {
        words.1.text
    }
}

/// A regular expression to match.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Pattern(Regex);

impl Pattern {
    pub(super) fn new(pattern: String) -> Result<Self, Error> {
        check_length("error pattern", &pattern)?;
        let mut builder = RegexBuilder::new(&pattern);
        let compiled = compile("error pattern", builder.dot_matches_new_line(true));
        compiled
            .map(Self)
            .map_err(|e| e.on(pattern.chars().take(64).collect::<String>()))
    }

    pub(super) fn is_in(&self, found: &str) -> bool {
        self.0.is_match(found)
    }

    pub(super) fn text(&self) -> &str {
        self.0.as_str()
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

impl TryFrom<String> for Pattern {
    type Error = Error;

    fn try_from(pattern: String) -> Result<Self, Error> {
        Self::new(pattern)
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.0.as_str().to_owned()
    }
}

/// Refuses a text that no pattern of the allowed size matches, before a pattern is made of it.
fn check_length(what: &'static str, text: &str) -> Result<(), Error> {
    if text.len() <= PATTERN_SIZE {
        return Ok(());
    }
    let rule = "must be at most 1 MiB long";
    Err(Error::new(ErrorKind::Invalid, what, rule))
}

fn compile(what: &'static str, builder: &mut RegexBuilder) -> Result<Regex, Error> {
    builder.size_limit(PATTERN_SIZE).build().map_err(|cause| {
        let rule = "must be a regular expression that takes at most 1 MiB";
        // The other lines of the text draw the position; the last one names the mistake.
        let cause = cause.to_string();
        let last = cause.lines().last().unwrap_or(&cause);
        let mistake = last.strip_prefix("error: ").unwrap_or(last);
        Error::new(ErrorKind::Invalid, what, rule).because(mistake)
    })
}

/// The expression that finds a text, where an escape also matches the character that it stands for.
fn printed(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        pattern.push_str(&regex::escape(&rest[..at]));
        rest = &rest[at..];
        match escape(rest) {
            Some((symbol, length)) => {
                let (written, after) = rest.split_at(length);
                let symbol = &regex::escape(symbol.encode_utf8(&mut [0; 4]));
                for part in ["(?:", &regex::escape(written), "|", symbol, ")"] {
                    pattern.push_str(part);
                }
                rest = after;
            }
            None => {
                pattern.push_str(r"\\");
                rest = &rest[1..];
            }
        }
    }
    pattern.push_str(&regex::escape(rest));
    pattern
}

/// A text with its escapes read.
fn unescaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        plain.push_str(&rest[..at]);
        let (symbol, length) = escape(&rest[at..]).unwrap_or(('\\', 1));
        plain.push(symbol);
        rest = &rest[at + length..];
    }
    plain.push_str(rest);
    plain
}

/// Reads the escape at the beginning of a text, of the tool's tables or of JSON: the character, and
/// the length of the escape in bytes.
fn escape(text: &str) -> Option<(char, usize)> {
    let symbol = text.as_bytes().get(1)?;
    let single = match symbol {
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'"' => '"',
        b'\\' => '\\',
        b'u' => return code(text),
        _ => return None,
    };
    Some((single, 2))
}

/// Reads `\u{1b}`, `\u001b`, or two units of UTF-16 such as `\ud83d\ude00`.
fn code(text: &str) -> Option<(char, usize)> {
    if let Some(rest) = text.strip_prefix("\\u{") {
        // A code has six digits at most. Without this bound a text of many openings is read over and over.
        let end = rest.bytes().take(9).position(|byte| byte == b'}')?;
        let digits = rest.get(..end)?;
        let symbol = char::from_u32(u32::from_str_radix(digits, 16).ok()?)?;
        return Some((symbol, digits.len() + 4));
    }
    let unit = |at: usize| -> Option<u16> {
        let digits = text.get(at..)?.strip_prefix("\\u")?.get(..4)?;
        u16::from_str_radix(digits, 16).ok()
    };
    let first = unit(0)?;
    if let Some(symbol) = char::from_u32(first.into()) {
        return Some((symbol, 6));
    }
    let mut units = char::decode_utf16([first, unit(6)?]);
    Some((units.next()?.ok()?, 12))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finds(text: &str, error: &str) -> bool {
        Words::new(text.to_owned()).unwrap().are_in(error)
    }

    #[test]
    fn an_escape_matches_itself_and_its_character() {
        for (text, error) in [
            (r"a\nb", "a\nb"),
            (r"a\nb", r"a\nb"),
            (r"x\u{1b}[31m", "x\u{1b}[31m"),
            (r"x\u001b[31m", "x\u{1b}[31m"),
            (r"\udb40\udc41", "\u{e0041}"),
            (r#"no \"a\" in c:\\temp"#, r#"no "a" in c:\temp"#),
            (r"c:\temp", r"c:\temp"),
            (r"\d+ \q \", r"\d+ \q \"),
            (r"\u{zz} \u12", r"\u{zz} \u12"),
        ] {
            assert!(finds(text, error), "{text} in {error:?}");
            assert!(Exact::new(text.to_owned()).is(error), "{text} is {error:?}");
        }
        assert!(!finds(r"a\nb", "a b"));
        assert!(!finds(r"\d", "7"), "a text is not a pattern");
        assert!(!Exact::new("a.".to_owned()).is("ab"));
        assert!(!Exact::new(r"a\n".to_owned()).is("xa\n"));
    }

    #[test]
    fn a_text_longer_than_a_pattern_may_be_is_refused_before_it_becomes_one() {
        // A pattern that grows by a copy for each escape would take hours here.
        let text = r"\n".repeat(PATTERN_SIZE);
        let told = Words::new(text.clone()).unwrap_err().to_string();
        assert!(told.contains("at most 1 MiB"), "{told}");
        assert!(Pattern::new(text.clone()).is_err());
        assert!(Exact::new(text.clone()).is(&text));
    }

    #[test]
    fn the_mark_of_a_cut_text_stands_for_the_rest() {
        assert!(finds("refused by…", "Refused by all"));
        assert!(finds("refused by…", "refused by…"));
        assert!(finds("line one…", "line one\nline two"));
        assert!(!finds("refused by…", "refused by"));
        assert!(!finds("…", "refused"), "alone it is a text");
    }

    #[test]
    fn a_cause_is_named_by_its_fingerprint_or_by_one_of_its_errors() {
        let found = "connect #: refused";
        for text in [
            "connect #: refused",
            "connect 10.0.0.3:5432: refused",
            r"connect 10.0.0.3:5432:\nrefused",
            r"connect 10.0.0.3:5432:\u{1b}refused",
        ] {
            assert!(Cause::new(text.to_owned()).is(found), "{text}");
        }
        for text in [
            "connect #",
            "connect",
            "",
            " ",
            "refused",
            "connect #: refused…",
        ] {
            assert!(!Cause::new(text.to_owned()).is(found), "{text}");
        }
        assert!(!Cause::new(" ".to_owned()).is(""), "a space names no cause");
        assert!(Words::new(found.to_owned()).unwrap().are_cause(found));
        assert!(!Words::new("refused".to_owned()).unwrap().are_cause(found));
    }

    #[test]
    fn a_pattern_goes_over_line_breaks() {
        let pattern = Pattern::new("refused.+timeout".to_owned()).unwrap();
        assert!(pattern.is_in("refused\ncaused by: timeout"));
    }
}
