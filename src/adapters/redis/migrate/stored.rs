//! The migrations that this version knows, and those that a stored schema names.

use std::collections::HashMap;

use redis::Script;

use crate::domain::{Error, ErrorKind, Migration, MigrationState, Placement, Timestamp};

/// The migration for topics with several partitions.
pub(in crate::adapters::redis) const PARTITIONS: &str = "partitions";
/// The migration for owned groups.
pub(in crate::adapters::redis) const OWNED_GROUPS: &str = "owned-groups";

/// A migration that this version knows.
pub(super) struct Known {
    pub(super) number: u32,
    /// Applied only when the namespace first uses the feature that needs it.
    pub(super) on_demand: bool,
    pub(super) name: &'static str,
    pub(super) text: &'static str,
    /// Namespaces of the other placement do not have the migration.
    pub(super) placement: Placement,
}

/// All migrations that this version knows, in their order.
static KNOWN: [Known; 7] = [
    Known {
        number: 1,
        on_demand: false,
        name: "layout",
        text: include_str!("../../../../migrations/0001_layout.lua"),
        placement: Placement::Spread,
    },
    Known {
        number: 2,
        on_demand: false,
        name: "claims",
        text: include_str!("../../../../migrations/0002_claims.lua"),
        placement: Placement::Spread,
    },
    Known {
        number: 3,
        on_demand: false,
        name: "together",
        text: include_str!("../../../../migrations/0003_together.lua"),
        placement: Placement::Together,
    },
    Known {
        number: 4,
        on_demand: true,
        name: PARTITIONS,
        text: include_str!("../../../../migrations/0004_partitions.lua"),
        placement: Placement::Spread,
    },
    Known {
        number: 5,
        on_demand: true,
        name: PARTITIONS,
        text: include_str!("../../../../migrations/0004_partitions.lua"),
        placement: Placement::Together,
    },
    Known {
        number: 6,
        on_demand: true,
        name: OWNED_GROUPS,
        text: include_str!("../../../../migrations/0006_owned_groups.lua"),
        placement: Placement::Spread,
    },
    Known {
        number: 7,
        on_demand: true,
        name: OWNED_GROUPS,
        text: include_str!("../../../../migrations/0006_owned_groups.lua"),
        placement: Placement::Together,
    },
];

impl Known {
    /// The checksum by which a script is told from a changed one: its SHA-1, as Redis names it.
    pub(super) fn checksum(&self) -> String {
        Script::new(self.text).get_hash().to_owned()
    }

    pub(super) fn id(&self) -> String {
        format!("{:04}", self.number)
    }
}

/// The schema of a namespace, as it is stored.
pub(super) type Schema = HashMap<String, String>;

/// Whether another process is at a migration. The lock ends by the server's clock, so a wrong clock of
/// this machine can only shorten or lengthen a wait.
pub(super) fn is_locked(schema: &Schema) -> bool {
    let until = schema.get("lockUntil").and_then(|until| until.parse().ok());
    until.is_some_and(|until: i64| until > Timestamp::now().as_millis())
}

/// The migrations of a placement.
pub(super) fn known(placement: Placement) -> impl Iterator<Item = &'static Known> {
    KNOWN
        .iter()
        .filter(move |known| known.placement == placement)
}

/// The placement in a schema; `None` where no process has set the namespace up.
pub(super) fn placement_of(
    schema: &Schema,
    operation: &'static str,
) -> Result<Option<Placement>, Error> {
    let Some(name) = schema.get("placement") else {
        // Versions that did not know placements set it up.
        return Ok((!schema.is_empty()).then_some(Placement::Spread));
    };
    let placement = name.parse().map_err(|_| {
        let shown: String = name.chars().take(64).collect();
        let rule = format!(
            "the namespace has placement {shown:?}, which this version does not know: update redstart"
        );
        Error::new(ErrorKind::Layout, operation, rule)
    })?;
    Ok(Some(placement))
}

/// The migrations of a placement, and what else a schema has, by number.
pub(super) fn states(schema: &Schema, placement: Placement) -> Vec<Migration> {
    let dirty = schema.get("dirty").and_then(|id| id.parse().ok());
    let state = |known: &Known| {
        let id = known.id();
        match schema.get(&format!("applied:{id}")) {
            Some(checksum) if *checksum != known.checksum() => MigrationState::Changed,
            Some(_) => MigrationState::Applied(applied_at(schema, &id)),
            None if dirty == Some(known.number) => MigrationState::Dirty,
            None => MigrationState::Pending,
        }
    };
    let counts = |known: &&Known| {
        !known.on_demand
            || dirty == Some(known.number)
            || schema.contains_key(&format!("applied:{}", known.id()))
    };
    let mut all: Vec<Migration> = known(placement)
        .filter(counts)
        .map(|known| Migration {
            number: known.number,
            name: known.name.to_owned(),
            state: state(known),
        })
        .collect();
    for number in schema
        .keys()
        .filter_map(|field| field.strip_prefix("applied:")?.parse().ok())
        .chain(dirty)
    {
        if all.iter().all(|migration| migration.number != number) {
            all.push(Migration {
                number,
                name: String::new(),
                state: MigrationState::Unknown,
            });
        }
    }
    all.sort_by_key(|migration| migration.number);
    all
}

/// Whether no migration of this version can help.
pub(super) fn is_final(migration: &Migration) -> bool {
    let state = &migration.state;
    matches!(state, MigrationState::Unknown | MigrationState::Changed)
}

fn applied_at(schema: &Schema, id: &str) -> Timestamp {
    let millis = schema
        .get(&format!("appliedAt:{id}"))
        .and_then(|text| text.parse().ok());
    let epoch = || Timestamp::from_millis(0).ok();
    millis
        .and_then(|millis| Timestamp::from_millis(millis).ok())
        .or_else(epoch)
        .unwrap_or_else(Timestamp::now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::layout_problem;

    fn schema(fields: &[(&str, &str)]) -> Schema {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        fields.iter().map(owned).collect()
    }

    #[test]
    fn a_version_refuses_the_migration_of_a_placement_that_it_does_not_know() {
        let together = schema(&[
            ("placement", "together"),
            ("layout", "3"),
            ("applied:0003", &KNOWN[2].checksum()),
        ]);
        // Versions of before know the migrations of `spread` alone, and read no placement.
        let problem = layout_problem(&states(&together, Placement::Spread)).unwrap();
        assert!(
            problem.contains("0003") && problem.contains("update"),
            "{problem}"
        );
        let begun = schema(&[("placement", "together"), ("dirty", "0003")]);
        let problem = layout_problem(&states(&begun, Placement::Spread)).unwrap();
        assert!(problem.contains("update"), "{problem}");
        assert_eq!(
            layout_problem(&states(&together, Placement::Together)),
            None
        );
    }

    #[test]
    fn a_placement_of_a_newer_version_is_refused() {
        let of = |fields: &[(&str, &str)]| placement_of(&schema(fields), "connect");
        assert_eq!(of(&[]).unwrap(), None);
        assert_eq!(of(&[("layout", "2")]).unwrap(), Some(Placement::Spread));
        let error = of(&[("placement", "by-tenant")]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Layout);
        assert!(error.to_string().contains("by-tenant"), "{error}");
    }
}
