//! Makes text of others safe to print.
//!
//! A message may hold escape sequences that move a terminal's cursor, line breaks that forge a
//! second entry, or marks that reverse the direction of the text. The output shows each of them as
//! a code.

use std::fmt::Write as _;

/// Whether a character can change how a terminal shows its surroundings, or hide.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            // Bidirectional marks, embeddings, overrides and isolates.
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
            // Line and paragraph separator.
            | '\u{2028}' | '\u{2029}'
            // Invisible: zero-width space, word joiner and its kin, byte order mark, soft hyphen.
            | '\u{200b}' | '\u{2060}'..='\u{2064}' | '\u{206a}'..='\u{206f}' | '\u{feff}' | '\u{ad}'
            // Interlinear annotations and tags, which carry hidden text.
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Plain text on one line: `\n`, `\t` and `\r` by their names, the others as `\u{…}`.
pub fn text(raw: &str) -> String {
    let mut safe = String::with_capacity(raw.len());
    for c in raw.chars() {
        match c {
            '\n' => safe.push_str("\\n"),
            '\r' => safe.push_str("\\r"),
            '\t' => safe.push_str("\\t"),
            c if is_unsafe(c) => {
                // Writing to a string cannot fail.
                let _ = write!(safe, "\\u{{{:x}}}", u32::from(c));
            }
            c => safe.push(c),
        }
    }
    safe
}

/// The first `max` characters of a text, escaped, with a mark where it was cut.
pub fn excerpt(raw: &str, max: usize) -> String {
    match raw.char_indices().nth(max) {
        Some((cut, _)) => format!("{}…", text(&raw[..cut])),
        None => text(raw),
    }
}

/// JSON on one line: removes the space between tokens and writes unsafe characters in strings as
/// `\uXXXX`. Numbers keep every digit, because nothing is parsed.
pub fn json(raw: &str) -> String {
    let mut safe = String::with_capacity(raw.len());
    let (mut in_text, mut escaped) = (false, false);
    for c in raw.chars() {
        if !in_text {
            in_text = c == '"';
            if !c.is_ascii_whitespace() {
                push_json(&mut safe, c);
            }
            continue;
        }
        push_json(&mut safe, c);
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => in_text = false,
            _ => {}
        }
    }
    safe
}

/// JSON text over several lines, indented, as safe as that of [`json`] and with every digit kept.
pub fn json_lines(raw: &str) -> Vec<String> {
    let raw = json(raw);
    let (mut lines, mut line, mut depth) = (Vec::new(), String::new(), 0_usize);
    let (mut in_text, mut escaped) = (false, false);
    let mut symbols = raw.chars().peekable();
    let indent = |depth: usize| "  ".repeat(depth);
    while let Some(c) = symbols.next() {
        if in_text {
            line.push(c);
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => in_text = false,
                _ => {}
            }
            continue;
        }
        match c {
            '{' | '[' => {
                line.push(c);
                if let Some(close) = symbols.next_if(|next| matches!(next, '}' | ']')) {
                    line.push(close);
                } else {
                    depth += 1;
                    lines.push(std::mem::replace(&mut line, indent(depth)));
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                lines.push(std::mem::replace(&mut line, indent(depth)));
                line.push(c);
            }
            ',' => {
                line.push(c);
                lines.push(std::mem::replace(&mut line, indent(depth)));
            }
            ':' => line.push_str(": "),
            c => {
                in_text = c == '"';
                line.push(c);
            }
        }
    }
    lines.push(line);
    lines
}

fn push_json(safe: &mut String, c: char) {
    if is_unsafe(c) {
        for unit in c.encode_utf16(&mut [0; 2]) {
            let _ = write!(safe, "\\u{unit:04x}");
        }
    } else {
        safe.push(c);
    }
}

/// Serializes a value as one safe line of JSON.
pub fn to_json<T: serde::Serialize + ?Sized>(value: &T) -> Result<String, std::io::Error> {
    Ok(json(&serde_json::to_string(value)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOSTILE: &str = "a\u{1b}[31m\nb\r\t\u{202e}c\u{85}\u{2028}\u{7f}\0\u{feff}\u{e0041}é😀";

    #[test]
    fn unsafe_characters_become_codes_and_the_rest_stays() {
        let safe = text(HOSTILE);
        assert!(!safe.chars().any(is_unsafe), "{safe:?}");
        assert!(
            safe.starts_with("a\\u{1b}[31m\\nb\\r\\t\\u{202e}c"),
            "{safe}"
        );
        assert!(safe.ends_with("é😀"), "{safe}");
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(excerpt("ééé", 2), "éé…");
        assert_eq!(excerpt("éé", 2), "éé");
        assert_eq!(excerpt("\n\n", 1), "\\n…");
    }

    #[test]
    fn json_of_a_foreign_hand_becomes_one_line() {
        let raw = "{ \"a b\" :\n\t[1.50, 18446744073709551616, \" x\\\" \u{202e}\"]\r\n}";
        assert_eq!(
            json(raw),
            r#"{"a b":[1.50,18446744073709551616," x\" \u202e"]}"#
        );
    }

    #[test]
    fn json_is_spread_over_lines_without_losing_a_digit() {
        let raw = r#"{"a":[1.50,{}, "x,{\"y"],"b":18446744073709551616,"c":[]}"#;
        let expected = [
            "{",
            "  \"a\": [",
            "    1.50,",
            "    {},",
            r#"    "x,{\"y""#,
            "  ],",
            "  \"b\": 18446744073709551616,",
            "  \"c\": []",
            "}",
        ];
        assert_eq!(json_lines(raw), expected);
        assert_eq!(json_lines("7"), ["7"]);
    }

    proptest! {
        #[test]
        fn json_keeps_its_value_and_holds_nothing_unsafe(words in proptest::collection::vec(any::<String>(), 0..4)) {
            let mut words = words;
            words.push(HOSTILE.to_owned());
            for raw in [serde_json::to_string(&words).unwrap(), serde_json::to_string_pretty(&words).unwrap()] {
                let safe = json(&raw);
                prop_assert!(!safe.chars().any(is_unsafe), "{safe:?}");
                prop_assert_eq!(&serde_json::from_str::<Vec<String>>(&safe).unwrap(), &words);
                let lines = json_lines(&raw).join("\n");
                prop_assert_eq!(&serde_json::from_str::<Vec<String>>(&lines).unwrap(), &words);
            }
        }

        #[test]
        fn text_never_holds_anything_unsafe(raw in any::<String>()) {
            prop_assert!(!text(&raw).chars().any(is_unsafe));
        }
    }
}
