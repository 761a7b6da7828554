//! `migrate`: the layout of the namespace.

use redstart::migrations::{Migration, MigrationState};
use serde_json::json;

use crate::args::{MigrateAction, MigrateArgs};
use crate::failure::Failure;
use crate::settings::Settings;
use crate::terminal::Terminal;

pub(super) async fn run(
    args: &MigrateArgs,
    settings: &Settings,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    // Connecting a container would create a new namespace.
    let migrations = settings
        .builder()?
        .migrations()
        .map_err(Failure::of_settings)?;
    match args.action {
        MigrateAction::Status => {
            let all = migrations.status().await?;
            if terminal.is_json() {
                return Ok(terminal.json(&all)?);
            }
            let rows: Vec<Vec<String>> = all.iter().map(row).collect();
            terminal.table(&["number", "name", "state", "applied at"], &rows, 0..0)?;
        }
        MigrateAction::Up {
            repair,
            owned_groups,
        } => {
            let mut applied = migrations.up(repair).await?;
            if owned_groups {
                applied.extend(migrations.allow_owned_groups().await?);
            }
            if terminal.is_json() {
                terminal.json(&json!({ "applied": applied }))?;
                return Ok(());
            }
            if applied.is_empty() {
                terminal.line("nothing to apply")?;
            }
            for number in applied {
                terminal.line(format_args!("applied {number:04}"))?;
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
