//! The reports of a worker process on its standard output, one a line.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// One line of a worker.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Report {
    /// The worker has subscribed.
    Ready,
    /// A handler has begun a message.
    Begun(Uuid),
    /// A handler has finished a message. The worker writes this before it returns, so that every
    /// acknowledged message is reported.
    Handled(Uuid),
    /// The attempt failed and another will follow.
    Retry(Uuid),
    /// The last attempt failed.
    Dead(Uuid),
}

impl Report {
    /// The message with which the worker is finished.
    pub(super) fn ended(self) -> Option<Uuid> {
        match self {
            Self::Ready | Self::Begun(_) => None,
            Self::Handled(id) | Self::Retry(id) | Self::Dead(id) => Some(id),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready => f.write_str("ready"),
            Self::Begun(id) => write!(f, "begun {id}"),
            Self::Handled(id) => write!(f, "handled {id}"),
            Self::Retry(id) => write!(f, "retry {id}"),
            Self::Dead(id) => write!(f, "dead {id}"),
        }
    }
}

impl FromStr for Report {
    type Err = ();

    fn from_str(line: &str) -> Result<Self, ()> {
        if line == "ready" {
            return Ok(Self::Ready);
        }
        let (what, id) = line.split_once(' ').ok_or(())?;
        let id = Uuid::try_parse(id).map_err(|_| ())?;
        match what {
            "begun" => Ok(Self::Begun(id)),
            "handled" => Ok(Self::Handled(id)),
            "retry" => Ok(Self::Retry(id)),
            "dead" => Ok(Self::Dead(id)),
            _ => Err(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_round_trip_and_partial_lines_are_rejected() {
        let id = Uuid::now_v7();
        for report in [
            Report::Ready,
            Report::Begun(id),
            Report::Handled(id),
            Report::Retry(id),
            Report::Dead(id),
        ] {
            assert_eq!(report.to_string().parse(), Ok(report));
        }
        for bad in ["", "handled", "handled 0190163d-86", "done x"] {
            assert!(bad.parse::<Report>().is_err(), "{bad}");
        }
    }
}
