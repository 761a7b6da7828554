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

/// The names that begin as the word does.
pub(crate) fn matching(names: Vec<String>, current: &OsStr) -> Vec<CompletionCandidate> {
    let begun = current.to_string_lossy();
    let fit = names.into_iter().filter(|name| name.starts_with(&*begun));
    fit.map(CompletionCandidate::new).collect()
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
}
