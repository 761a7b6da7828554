//! Dead letters: lists, summaries, sweeps, edits, exports, imports, and the journal.

mod edit;
mod export;
mod handle;
mod import;
mod journal;
mod message;
mod notes;
mod patch;
mod plan;
mod preview;
mod publish;
mod report;
mod summary;
mod sweep;
mod watch;

pub use export::DeadLetterPages;
pub use handle::DeadLetters;
pub use import::{ImportReport, Imported, PlannedImport};
pub use journal::JournalEntry;
pub(in crate::operate) use journal::{reset_order, settings_order};
pub use notes::CauseNote;
pub use patch::EnvelopeEdit;
pub use plan::PlannedSweep;
pub(crate) use plan::counted;
pub use preview::Preview;
pub use report::{DeadLetterPage, SweepEnd, SweepProgress, SweepReport};
pub use summary::{CauseSummary, CountSummary, GroupSummary};
pub use watch::{DeadLetterWatch, NewDeadLetters};

#[cfg(feature = "testing")]
pub(crate) use journal::journal_entry;
