//! Importing exported dead letters.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::AddAssign;

use serde::Serialize;

use crate::domain::{DeadLetter, EntryId, Error, Group, Topic};
use crate::operate::dead_letters::handle::{DeadLetters, subject};
use crate::operate::dead_letters::plan::counted;
use crate::operate::plan::{Confirmed, Plan};
use crate::store::{GroupAt, Restored, Restoring};
use crate::wire::dead_letter::encode_record;

/// What an import did with one dead letter.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum Imported {
    /// The import added it under this id.
    New(EntryId),
    /// The group has it already.
    Present,
    /// An earlier import added it, and it left the group since: redriven, purged, or removed by
    /// retention. Only an import with `reimport` adds it again.
    Gone,
}

impl From<Restored> for Imported {
    fn from(restored: Restored) -> Self {
        match restored {
            Restored::Added(id) => Self::New(id),
            Restored::Present => Self::Present,
            Restored::Gone => Self::Gone,
        }
    }
}

/// What a planned import will do. [`Display`](fmt::Display) says it in one line for each fact.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct PlannedImport {
    /// The topic.
    pub topic: Topic,
    /// The group that will get the dead letters.
    pub group: Group,
    /// How many dead letters were read.
    pub matching: u64,
    /// How many dead letters each `topic/group` exported.
    pub origins: BTreeMap<String, u64>,
    /// Whether the import adds those again that left the group since an earlier import.
    pub reimport: bool,
    #[serde(skip)]
    letters: Vec<DeadLetter>,
}

impl fmt::Display for PlannedImport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letters = counted(self.matching, "dead letter", "dead letters");
        write!(
            f,
            "will import {letters} into {}/{}",
            self.topic, self.group
        )?;
        for (origin, count) in &self.origins {
            write!(f, "\n  {count} from {origin}")?;
        }
        Ok(())
    }
}

/// What an import did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ImportReport {
    /// How many dead letters the import added.
    pub imported: u64,
    /// How many the group had already.
    pub present: u64,
    /// How many an earlier import added and left the group since; the import did not add them.
    pub gone: u64,
}

impl ImportReport {
    /// Counts the results of [`import`](DeadLetters::import).
    #[must_use]
    pub fn of(results: &[Imported]) -> Self {
        let mut report = Self::default();
        for result in results {
            match result {
                Imported::New(_) => report.imported += 1,
                Imported::Present => report.present += 1,
                Imported::Gone => report.gone += 1,
            }
        }
        report
    }
}

/// Sums the reports of several imports.
impl AddAssign for ImportReport {
    fn add_assign(&mut self, other: Self) {
        self.imported += other.imported;
        self.present += other.present;
        self.gone += other.gone;
    }
}

impl DeadLetters {
    /// Plans an import of exported dead letters. It asks for no confirmation: an import destroys
    /// nothing. Plan a large import in portions.
    pub fn plan_import(
        &self,
        topic: &Topic,
        group: &Group,
        letters: Vec<DeadLetter>,
        reimport: bool,
    ) -> Plan<PlannedImport> {
        let mut origins = BTreeMap::new();
        for letter in &letters {
            let origin = subject(&letter.topic, &letter.group);
            *origins.entry(origin).or_default() += 1;
        }
        let planned = PlannedImport {
            topic: topic.clone(),
            group: group.clone(),
            matching: letters.len() as u64,
            origins,
            reimport,
            letters,
        };
        Plan::new(planned, None)
    }

    /// Runs a confirmed import, see [`import`](Self::import).
    ///
    /// # Errors
    ///
    /// As [`import`](Self::import).
    pub async fn run_import(&self, plan: Confirmed<PlannedImport>) -> Result<ImportReport, Error> {
        let plan = plan.into_plan();
        let results = self.import(&plan.topic, &plan.group, &plan.letters, plan.reimport);
        Ok(ImportReport::of(&results.await?))
    }

    /// Adds exported dead letters to a group, as its newest. However often it runs, it adds each
    /// one once; with `reimport` it adds those again that left the group since.
    ///
    /// # Errors
    ///
    /// [`NotFound`](crate::ErrorKind::NotFound) when the group does not exist, and the kinds of the connection.
    ///
    /// # Cancel safety
    ///
    /// Some dead letters may have been added when the future is dropped. Import again.
    pub async fn import(
        &self,
        topic: &Topic,
        group: &Group,
        letters: &[DeadLetter],
        reimport: bool,
    ) -> Result<Vec<Imported>, Error> {
        self.check_group("import dead letters", topic, group)
            .await?;
        let restoring = |letter: &DeadLetter| {
            let own = letter.topic == *topic && letter.group == *group;
            let identity = letter.identity();
            let mut record = encode_record(letter);
            record.head.imported_from = Some(identity.clone());
            Restoring {
                identity,
                own: own.then_some(letter.id),
                record,
            }
        };
        let records: Vec<Restoring> = letters.iter().map(restoring).collect();
        let restored = self
            .port()
            .restore(&GroupAt::of(topic, group), &records, reimport)
            .await?;
        let results: Vec<Imported> = restored.into_iter().map(Imported::from).collect();
        let count = ImportReport::of(&results).imported;
        metrics::counter!("redstart_dead_letters_imported_total", "topic" => topic.to_string(), "group" => group.to_string())
            .increment(count);
        tracing::info!(%topic, %group, count, "dead letters imported");
        Ok(results)
    }
}
