//! Findings on native commands.

use crate::domain::{NativeCommand, NativeCommands};
use crate::operate::doctor::finding::{Finding, Severity};
use crate::store::ServerInfo;

const CHECK: &str = "native commands";

/// Which native commands a server has, and which of them this process uses.
pub(super) fn judge(facts: &ServerInfo) -> Option<Finding> {
    let chosen = facts.native_chosen;
    let Some(has) = facts.native else {
        let what = format!("this user may not ask which the server has; {chosen} is switched on");
        let finding = Finding::new(Severity::Unknown, CHECK, what)
            .because("Redstart works as it does at a server without them")
            .advise("give the user the rights command|info and command|docs");
        return (!chosen.is_empty()).then_some(finding);
    };
    let each = NativeCommand::ALL.iter().copied();
    let lacks: NativeCommands = each
        .clone()
        .filter(|one| chosen.contains(*one) && !has.contains(*one))
        .collect();
    if !lacks.is_empty() {
        return Some(
            Finding::new(
                Severity::Warning,
                CHECK,
                format!("{lacks} is switched on, and the server lacks it"),
            )
            .because("Redstart works without it: a publish whose connection breaks has an unknown outcome")
            .advise("use Redis 8.6.2 or later, or set REDSTART_NATIVE to none"),
        );
    }
    if facts.drops_numbers && chosen.contains(NativeCommand::XaddIdmp) {
        return Some(
            Finding::new(
                Severity::Warning,
                CHECK,
                "the server forgets the numbers of messages too soon for xadd-idmp",
            )
            .because("a message that is sent again after its connection broke may be there twice")
            .advise(
                "set stream-idmp-maxsize and stream-idmp-duration to 100, the defaults, or more",
            ),
        );
    }
    let used: NativeCommands = each.filter(|one| chosen.contains(*one)).collect();
    match (used.is_empty(), has.is_empty()) {
        (false, _) => Some(Finding::ok(CHECK, format!("{used} is in use"))),
        (true, false) => {
            let what = format!("the server has {has}; REDSTART_NATIVE switches it on");
            Some(Finding::ok(CHECK, what))
        }
        (true, true) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_switched_on_is_compared_with_what_the_server_has() {
        let (none, all) = (NativeCommands::none(), NativeCommands::all());
        let of = |native, native_chosen, drops_numbers| {
            let facts = ServerInfo {
                native,
                native_chosen,
                drops_numbers,
                ..ServerInfo::default()
            };
            judge(&facts).map(|found| {
                found.assert_helpful();
                (found.severity, found.what)
            })
        };
        for (native, chosen, forgets, expected) in [
            (None, none, false, None),
            (Some(none), none, false, None),
            (None, all, false, Some((Severity::Unknown, "may not ask"))),
            (
                Some(none),
                all,
                false,
                Some((Severity::Warning, "lacks it")),
            ),
            (
                Some(all),
                none,
                true,
                Some((Severity::Ok, "switches it on")),
            ),
            (
                Some(all),
                all,
                false,
                Some((Severity::Ok, "xadd-idmp is in use")),
            ),
            (Some(all), all, true, Some((Severity::Warning, "too soon"))),
        ] {
            let found = of(native, chosen, forgets);
            let severity = found.as_ref().map(|(severity, _)| *severity);
            assert_eq!(
                severity,
                expected.map(|(severity, _)| severity),
                "{found:?}"
            );
            let part = expected.map_or("", |(_, part)| part);
            assert!(found.is_none_or(|(_, what)| what.contains(part)));
        }
    }
}
