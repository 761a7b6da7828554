//! Dead letters: looking, redriving, purging, editing, importing, and the journal of it.

mod edit;
mod handle;
mod import;
mod journal;
mod message;
mod preview;
mod report;
mod sweep;

pub use handle::DeadLetters;
pub use import::Imported;
pub use journal::JournalEntry;
pub use preview::Preview;
pub use report::{DeadLetterPage, SweepEnd, SweepProgress, SweepReport};

#[cfg(feature = "testing")]
pub(crate) use journal::journal_entry;
