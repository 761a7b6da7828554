//! Findings on a server's version.

use crate::operate::doctor::finding::{Finding, Severity};
use crate::store::ServerInfo;

type Version = (u64, u64, u64);

fn parse(version: &str) -> Option<Version> {
    let mut parts = version.split('.').map(|part| part.parse().ok());
    Some((
        parts.next()??,
        parts.next()??,
        parts.next().flatten().unwrap_or(0),
    ))
}

/// Faults of Redis that concern this bus: the first bad version, the first good one, the fault.
const KNOWN_BAD: [(Version, Version, &str); 6] = [
    (
        (7, 0, 0),
        (7, 2, 5),
        "a blocking read can exceed its timeout",
    ),
    (
        (7, 4, 0),
        (7, 4, 3),
        "under `everysec` WAITAOF can answer before the data is on the disk",
    ),
    ((7, 0, 0), (7, 2, 11), LUA),
    ((7, 4, 0), (7, 4, 6), LUA),
    ((8, 0, 0), (8, 0, 4), LUA),
    ((8, 2, 0), (8, 2, 2), LUA),
];
const LUA: &str =
    "a user who may run scripts can take over the server (CVE-2025-49844, unless patched)";

/// Judges the version of a server.
pub(super) fn version(facts: &ServerInfo) -> Vec<Finding> {
    let check = "version";
    let what = format!("{} {}", facts.name, facts.version);
    if facts.name != "redis" {
        let why = "the list of known faults covers Redis only";
        return vec![Finding::new(Severity::Unknown, check, what).because(why)];
    }
    let Some(version) = parse(&facts.version) else {
        return vec![Finding::new(Severity::Unknown, check, what)];
    };
    if version < (7, 0, 0) {
        let why = "older versions lack stream commands for reclaiming and lag";
        let finding = Finding::new(Severity::Problem, check, what).because(why);
        return vec![finding.advise("use Redis 7.2 or later")];
    }
    let bad = KNOWN_BAD
        .iter()
        .filter(|(from, good, _)| (*from..*good).contains(&version));
    let bad: Vec<Finding> = bad
        .map(|(_, (major, minor, patch), why)| {
            Finding::new(Severity::Warning, check, what.clone())
                .because(*why)
                .advise(format!("update to {major}.{minor}.{patch} or later"))
        })
        .collect();
    if bad.is_empty() {
        return vec![Finding::ok(check, what)];
    }
    bad
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The severity of each finding on a server with a version.
    fn levels(name: &str, version: &str) -> Vec<Severity> {
        let findings = super::version(&ServerInfo {
            name: name.to_owned(),
            version: version.to_owned(),
            ..ServerInfo::default()
        });
        findings.iter().for_each(Finding::assert_helpful);
        findings.iter().map(|finding| finding.severity).collect()
    }

    #[test]
    fn versions_have_their_known_faults() {
        let of = |version: &str| levels("redis", version);
        assert_eq!(of("6.2.20"), [Severity::Problem]);
        assert_eq!(of("7.0.15"), [Severity::Warning, Severity::Warning]);
        assert_eq!(of("7.2.5"), [Severity::Warning]);
        assert_eq!(of("7.2.11"), [Severity::Ok]);
        assert_eq!(of("7.4.2"), [Severity::Warning, Severity::Warning]);
        assert_eq!(of("7.4.6"), [Severity::Ok]);
        assert_eq!(of("8.0"), [Severity::Warning]);
        assert_eq!(of("unstable"), [Severity::Unknown]);
        assert_eq!(levels("valkey", "8.1.0"), [Severity::Unknown]);
    }
}
