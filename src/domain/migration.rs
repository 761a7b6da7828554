//! A migration and its state in a namespace.

use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

use super::timestamp::Timestamp;

/// What a namespace says of a migration.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum MigrationState {
    /// It was applied, at this time.
    Applied(Timestamp),
    /// It was applied, but in another form than this version has.
    Changed,
    /// It is to be applied.
    Pending,
    /// It was begun and not finished.
    Dirty,
    /// It was applied by a newer version; this one does not know it.
    Unknown,
}

impl MigrationState {
    /// The state in one word.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Applied(_) => "applied",
            Self::Changed => "changed",
            Self::Pending => "pending",
            Self::Dirty => "dirty",
            Self::Unknown => "unknown",
        }
    }
}

/// A migration and what the namespace says of it.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Migration {
    /// Its number, from 1.
    pub number: u32,
    /// Its name; empty when this version does not know it.
    pub name: String,
    /// What the namespace says of it.
    pub state: MigrationState,
}

/// As `number`, `name`, `state` in one word, and `appliedAt`.
impl Serialize for Migration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let applied_at = match self.state {
            MigrationState::Applied(at) => Some(at),
            _ => None,
        };
        let mut fields = serializer.serialize_struct("Migration", 4)?;
        fields.serialize_field("number", &self.number)?;
        fields.serialize_field("name", &self.name)?;
        fields.serialize_field("state", self.state.as_str())?;
        fields.serialize_field("appliedAt", &applied_at)?;
        fields.end()
    }
}
