//! Fingerprints: errors of one cause fold to the same text.

use super::text::cut;

/// Folds the parts that differ between errors of one cause: numbers, hexadecimal ids, addresses,
/// and quoted text.
pub(crate) fn fingerprint(error: &str) -> String {
    const LONGEST: usize = 160;
    let mut out = String::with_capacity(error.len().min(LONGEST));
    let mut word = String::new();
    let mut quote = None;
    for symbol in error.chars().chain([' ']) {
        if out.len() > LONGEST {
            break;
        }
        match (quote, symbol) {
            (Some(end), _) if symbol == end => quote = None,
            (Some(_), _) => {}
            (None, '"' | '`') => {
                fold(&mut word, &mut out);
                out.push('…');
                quote = Some(symbol);
            }
            (None, _) if symbol.is_alphanumeric() || matches!(symbol, '-' | '_' | '.' | ':') => {
                word.push(symbol);
            }
            (None, _) => {
                fold(&mut word, &mut out);
                let symbol = if symbol.is_control() { ' ' } else { symbol };
                if symbol != ' ' || !out.ends_with(' ') {
                    out.push(symbol);
                }
            }
        }
    }
    let mut out = out.trim().to_owned();
    cut(&mut out, LONGEST);
    // The cut may leave a space at the end, which would get lost when a person copies the text.
    out.truncate(out.trim_end().len());
    out
}

fn fold(word: &mut String, out: &mut String) {
    // A word with a digit is an id, a number or an address. Its trailing punctuation stays.
    if word.chars().any(|symbol| symbol.is_ascii_digit()) {
        let kept = word.len() - word.trim_end_matches([':', '.']).len();
        out.push('#');
        out.push_str(&word[word.len() - kept..]);
    } else {
        out.push_str(word);
    }
    word.clear();
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_fingerprint_begins_or_ends_in_a_space(error in "([a-z]{1,9} ){0,40}") {
            let found = fingerprint(&error);
            prop_assert_eq!(found.trim(), &found);
        }
    }

    #[test]
    fn equal_causes_have_equal_fingerprints() {
        for (one, two) in [
            ("timeout after 30 s", "timeout after 7 s"),
            (
                "no user 550e8400-e29b-41d4-a716-446655440000",
                "no user 6ba7b810-9dad-11d1-80b4-00c04fd430c8",
            ),
            (
                "connect 10.0.0.1:5432: refused",
                "connect 10.0.0.2:5433: refused",
            ),
            ("unknown field `a1`", "unknown field `b`"),
            ("at 0x7f3a: bad", "at 0x11: bad"),
        ] {
            assert_eq!(fingerprint(one), fingerprint(two));
        }
        assert_ne!(
            fingerprint("timeout after 30 s"),
            fingerprint("refused after 30 s")
        );
        assert_eq!(
            fingerprint("connect 10.0.0.1:5432: refused"),
            "connect #: refused"
        );
    }

    proptest! {
        #[test]
        fn a_fingerprint_folds_to_itself(text in "\\PC{0,400}|[\\x00-\\x7f]{0,400}|[a-z0-9 :.…#\"]{100,300}") {
            let print = fingerprint(&text);
            prop_assert_eq!(fingerprint(&print), print);
        }

        #[test]
        fn any_text_has_a_short_fingerprint_without_control_characters(text in "\\PC{0,400}|[\\x00-\\x7f]{0,400}") {
            let print = fingerprint(&text);
            prop_assert!(print.len() <= 160);
            prop_assert!(!print.chars().any(char::is_control));
        }
    }
}
