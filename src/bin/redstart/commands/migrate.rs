//! `migrate`: the layout of the namespace.

use redstart::migrations::{Migration, MigrationState};
use serde::Serialize;
use serde_json::json;

use crate::args::{MigrateAction, MigrateArgs};
use crate::console::Console;
use crate::failure::Failure;
use crate::settings::Settings;

pub(super) async fn run(
    args: &MigrateArgs,
    settings: &Settings,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    // Not a container: connecting one would set up a namespace that is new.
    let migrations = settings
        .builder()?
        .migrations()
        .map_err(Failure::of_settings)?;
    match args.action {
        MigrateAction::Status => {
            let all = migrations.status().await?;
            if console.is_json() {
                let rows: Vec<Row<'_>> = all.iter().map(object).collect();
                console.json(&rows)?;
                return Ok(());
            }
            let rows: Vec<Vec<String>> = all.iter().map(row).collect();
            console.table(&["number", "name", "state", "applied at"], &rows, 0..0)?;
        }
        MigrateAction::Up { repair } => {
            let applied = migrations.up(repair).await?;
            if console.is_json() {
                console.json(&json!({ "applied": applied }))?;
                return Ok(());
            }
            if applied.is_empty() {
                console.line("nothing to apply")?;
            }
            for number in applied {
                console.line(format_args!("applied {number:04}"))?;
            }
        }
    }
    Ok(())
}

fn applied_at(migration: &Migration) -> Option<String> {
    match migration.state {
        MigrationState::Applied(at) => Some(at.to_string()),
        _ => None,
    }
}

fn row(migration: &Migration) -> Vec<String> {
    let or_dash = |text: &str| if text.is_empty() { "-" } else { text }.to_owned();
    vec![
        format!("{:04}", migration.number),
        or_dash(&migration.name),
        migration.state.as_str().to_owned(),
        or_dash(&applied_at(migration).unwrap_or_default()),
    ]
}

#[derive(Serialize)]
struct Row<'a> {
    number: u32,
    name: &'a str,
    state: &'static str,
    applied_at: Option<String>,
}

fn object(migration: &Migration) -> Row<'_> {
    Row {
        number: migration.number,
        name: &migration.name,
        state: migration.state.as_str(),
        applied_at: applied_at(migration),
    }
}
