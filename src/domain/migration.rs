//! A migration and its state in a namespace.

use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

use super::timestamp::Timestamp;

/// The state of a migration in a namespace.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum MigrationState {
    /// Applied at this time.
    Applied(Timestamp),
    /// Applied, but in another form than this version's.
    Changed,
    /// Not applied yet.
    Pending,
    /// Begun and not finished.
    Dirty,
    /// Applied by a newer version; this version does not know it.
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

/// A migration and its state in a namespace.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Migration {
    /// The number, from 1.
    pub number: u32,
    /// The name; empty if this version does not know the migration.
    pub name: String,
    /// The state in the namespace.
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
