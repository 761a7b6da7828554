//! Findings on writes: whether the server takes them from this user.

use crate::domain::{Error, describe};
use crate::operate::doctor::finding::{Finding, Severity};
use crate::operate::doctor::unseen::is_silence;
use crate::store::ServerInfo;

/// Whether the server takes writes from this user, beyond the reasons that its facts name. `is_partial`
/// says that another primary does not answer: then a failure without a reason may come from that primary.
pub(super) fn judge(
    servers: &[ServerInfo],
    written: Result<(), Error>,
    is_partial: bool,
) -> Option<Finding> {
    let check = "writes";
    let Err(error) = written else {
        return Some(Finding::ok(check, "the server takes writes from this user"));
    };
    // The check `server` has said it.
    if servers
        .iter()
        .any(|one| one.is_replica || one.lacks_replicas)
    {
        return None;
    }
    let told = describe(&error);
    let fixes = [
        (
            "user may not write",
            "run the doctor as the user of a service; a user for monitoring needs no rights to write",
        ),
        ("OOM", "find the groups that lag, or raise maxmemory"),
        (
            "MISCONF",
            "read the server's log, and free space on its disk",
        ),
        (
            "NOREPLICAS",
            "connect the replicas, or lower min-replicas-to-write",
        ),
        ("READONLY", "connect to the primary"),
        ("MASTERDOWN", "connect to the primary"),
        ("LOADING", "wait until the server has loaded its data"),
        (
            "BUSY",
            "wait for the script that the server runs, or end it with SCRIPT KILL",
        ),
        (
            "max number of clients",
            "close connections, or raise maxclients",
        ),
        ("TRYAGAIN", "run the doctor again when no slot moves"),
        (
            "cluster-require-full-coverage",
            "start the primary that does not answer, and set cluster-require-full-coverage to no on every \
             node",
        ),
        (
            "of the 16384 slots",
            "let a node serve these slots: `redis-cli --cluster fix`",
        ),
        (
            "Redis Cluster",
            "begin the URL with redis+cluster://, or rediss+cluster:// with TLS",
        ),
    ];
    // List every refusal of a server above: one that is missing would be reported as silence.
    let fix = fixes.iter().find(|(sign, _)| told.contains(sign));
    if fix.is_none() && is_partial && is_silence(&error) {
        let what = format!("not checked on every primary: {told}");
        let finding = Finding::new(Severity::Unknown, check, what);
        return Some(
            finding
                .because("one primary does not answer; the primaries that answered accept writes"),
        );
    }
    let fix = fix.map_or("read the server's log", |(_, fix)| fix);
    // A user who only looks has no need to write.
    let level = match told.contains("user may not write") {
        true => Severity::Unknown,
        false => Severity::Problem,
    };
    let finding = Finding::new(level, check, told);
    let why = "a service on this connection can neither publish nor settle nor store values";
    Some(finding.because(why).advise(fix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ErrorKind;

    #[test]
    fn a_refused_write_has_a_remedy() {
        let refused = |cause: &str| {
            let error = Error::new(ErrorKind::Refused, "write check", cause);
            judge(&[ServerInfo::default()], Err(error), false).unwrap()
        };
        let viewer = refused("this user may not write");
        assert_eq!(viewer.severity, Severity::Unknown);
        for (cause, part) in [
            ("OOM command not allowed", "maxmemory"),
            ("MISCONF unable to persist", "disk"),
            ("is a node of a Redis Cluster", "redis+cluster://"),
            ("BUSY", "SCRIPT KILL"),
            ("CLUSTERDOWN: cluster-require-full-coverage is yes", "to no"),
            ("ERR unknown", "the server's log"),
        ] {
            let found = refused(cause);
            assert_eq!(found.severity, Severity::Problem, "{cause}");
            assert!(found.advice.contains(part), "{found:?}");
        }
        assert_eq!(
            judge(&[ServerInfo::default()], Ok(()), false)
                .unwrap()
                .severity,
            Severity::Ok
        );
        let replica = ServerInfo {
            is_replica: true,
            ..ServerInfo::default()
        };
        let error = Error::new(ErrorKind::Refused, "write check", "READONLY");
        assert_eq!(judge(&[replica], Err(error), false), None, "said once");
        let cut = || Error::new(ErrorKind::OutcomeUnknown, "write check", "cut");
        let of_cut = |is_partial| {
            judge(&[ServerInfo::default()], Err(cut()), is_partial)
                .unwrap()
                .severity
        };
        assert_eq!(of_cut(false), Severity::Problem);
        assert_eq!(of_cut(true), Severity::Unknown);
        for answer in ["MISCONF", "LOADING", "MASTERDOWN", "BUSY"] {
            let answer = Error::new(ErrorKind::Unavailable, "write check", answer);
            let found = judge(&[ServerInfo::default()], Err(answer), true).unwrap();
            assert_eq!(found.severity, Severity::Problem, "{found:?}");
        }
    }
}
