//! What the end of a command means for its message.

use std::process::ExitStatus;

use redstart::Outcome;

/// `EX_DATAERR`: no attempt can succeed.
const DEAD_LETTER: i32 = 65;
/// `EX_UNAVAILABLE`: something that the command needs is away.
const BACK_OFF: i32 = 69;
/// The shell found no such command, or may not run it.
const CANNOT_RUN: [i32; 2] = [126, 127];

/// How a command ended.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum End {
    /// The attempt is over.
    Of(Outcome),
    /// The command cannot run at all, for the reason.
    CannotRun(String),
}

impl End {
    /// Decides by the exit status and the last text that the command wrote to its standard error.
    pub(super) fn of(status: ExitStatus, told: &str) -> Self {
        let how = match status.code() {
            Some(code) => format!("exit code {code}"),
            None => status.to_string(),
        };
        let error = match told.trim() {
            "" => how,
            told => format!("{how}: {told}"),
        };
        match status.code() {
            Some(0) => Self::Of(Outcome::Ack),
            Some(DEAD_LETTER) => Self::Of(Outcome::dead_letter(error)),
            Some(BACK_OFF) => Self::Of(Outcome::back_off(error)),
            Some(code) if CANNOT_RUN.contains(&code) => Self::CannotRun(error),
            _ => Self::Of(Outcome::retry(error)),
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    fn end(code: i32, told: &str) -> End {
        End::of(ExitStatus::from_raw(code << 8), told)
    }

    #[test]
    fn the_exit_code_ends_the_attempt() {
        assert_eq!(end(0, "a warning"), End::Of(Outcome::Ack));
        let error = "exit code 65: no price";
        assert_eq!(end(65, "no price\n"), End::Of(Outcome::dead_letter(error)));
        assert_eq!(end(69, ""), End::Of(Outcome::back_off("exit code 69")));
        for code in [1, 2, 64, 75, 255] {
            let retry = Outcome::retry(format!("exit code {code}: no"));
            assert_eq!(end(code, " no "), End::Of(retry));
        }
        for code in [126, 127] {
            assert!(
                matches!(end(code, "sh: nosuch"), End::CannotRun(_)),
                "{code}"
            );
        }
        let killed = End::of(ExitStatus::from_raw(9), "");
        let End::Of(Outcome::Retry { error, .. }) = killed else {
            panic!("{killed:?}");
        };
        assert!(error.contains("signal: 9"), "{error}");
    }
}
