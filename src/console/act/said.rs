//! What the last action did, for the page that a redirect shows. The address has a code and counts, so
//! that a link of others cannot make a page say what they like.

use maud::{Markup, html};
use serde::Deserialize;

use crate::console::page::{Query, counted, number};

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub(in crate::console) enum Deed {
    Published,
    RanNow,
    Cancelled,
    Removed,
    Edited,
    Stopped,
    NothingMatched,
    Stored,
    Deleted,
}

impl Deed {
    fn code(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::RanNow => "ran-now",
            Self::Cancelled => "cancelled",
            Self::Removed => "removed",
            Self::Edited => "edited",
            Self::Stopped => "stopped",
            Self::NothingMatched => "nothing-matched",
            Self::Stored => "stored",
            Self::Deleted => "deleted",
        }
    }
}

/// The part of an address that tells what was done.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default)]
pub(in crate::console) struct Said {
    did: Option<Deed>,
    count: u64,
    missing: u64,
}

impl Said {
    pub(in crate::console) fn on(deed: Deed, count: u64, missing: u64, address: &str) -> String {
        let query = Query::default()
            .with("did", deed.code())
            .with("count", count.to_string())
            .with("missing", missing.to_string());
        query.on(address)
    }

    pub(in crate::console) fn show(self) -> Markup {
        let Some(deed) = self.did else {
            return html! {};
        };
        let retries = counted(self.count, "retry", "retries");
        let text = match deed {
            Deed::Published => "The message is published.".to_owned(),
            Deed::RanNow => format!("{retries} run now."),
            Deed::Cancelled => format!("{retries} cancelled."),
            Deed::Removed => "The group is removed.".to_owned(),
            Deed::Stored => "The value is stored.".to_owned(),
            Deed::Deleted => "The value is deleted.".to_owned(),
            Deed::Edited => "The message is edited and goes back to its group.".to_owned(),
            Deed::Stopped => "The operation is stopped. Resume continues it.".to_owned(),
            Deed::NothingMatched => {
                "No dead letter matched any more. Nothing was changed.".to_owned()
            }
        };
        html! {
            div.note.good role="status" {
                p { (text) @if self.missing > 0 { " " (number(self.missing)) " no longer existed." } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_tells_what_was_done() {
        let address = Said::on(Deed::Cancelled, 2_000, 1, "/retries/a/b");
        assert_eq!(address, "/retries/a/b?did=cancelled&count=2000&missing=1");
        let said = Said {
            did: Some(Deed::Cancelled),
            count: 2_000,
            missing: 1,
        };
        let text = said.show().into_string();
        assert!(
            text.contains("2,000 retries cancelled. 1 no longer existed."),
            "{text}"
        );
        assert_eq!(Said::default().show().into_string(), "");
    }
}
