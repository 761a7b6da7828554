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

/// Why this version cannot work on a namespace with these migrations. `None` for a namespace that is
/// new or has all of them.
pub(crate) fn layout_problem(all: &[Migration]) -> Option<String> {
    let problem = |migration: &Migration| {
        let number = migration.number;
        match migration.state {
            MigrationState::Unknown => Some(format!(
                "the namespace has migration {number:04}, which this version does not know: \
                 update redstart"
            )),
            MigrationState::Changed => Some(format!(
                "migration {number:04} was applied in another form than this version has"
            )),
            MigrationState::Dirty => Some(unfinished(number)),
            _ => None,
        }
    };
    all.iter().find_map(problem).or_else(|| {
        let is_pending = |one: &Migration| one.state == MigrationState::Pending;
        let is_new = all.iter().all(is_pending);
        let pending = !is_new && all.iter().any(is_pending);
        pending.then(|| "migrations are pending: run `redstart migrate up`".to_owned())
    })
}

/// The problem of a migration that was begun and not finished.
pub(crate) fn unfinished(number: u32) -> String {
    format!("migration {number:04} was begun and not finished: run `redstart migrate up --repair`")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_is_a_problem_unless_it_is_new_or_complete() {
        let applied = || MigrationState::Applied(Timestamp::now());
        let problem = |states: Vec<MigrationState>| {
            let numbered = (1..).zip(states);
            let all = numbered.map(|(number, state)| Migration {
                number,
                name: String::new(),
                state,
            });
            layout_problem(&all.collect::<Vec<_>>())
        };
        let pending = || MigrationState::Pending;
        assert_eq!(problem(vec![]), None);
        assert_eq!(problem(vec![pending(), pending()]), None);
        assert_eq!(problem(vec![applied(), applied()]), None);
        for (states, part) in [
            (vec![applied(), pending()], "pending"),
            (vec![MigrationState::Dirty, pending()], "--repair"),
            (vec![MigrationState::Dirty, applied()], "--repair"),
            (vec![applied(), MigrationState::Changed], "another form"),
            (vec![applied(), MigrationState::Unknown], "update redstart"),
        ] {
            let problem = problem(states).unwrap();
            assert!(problem.contains(part), "{problem}");
        }
    }
}
