//! `health`: whether bus and store work, and where they do not, why.

use redstart::ErrorKind;
use serde_json::{Value, json};

use crate::console::Console;
use crate::failure::{FAILED, Failure, chain};
use crate::settings::Settings;

pub(super) async fn run(settings: &Settings, console: &mut Console<'_>) -> Result<(), Failure> {
    let health = match settings.builder()?.connect().await {
        Ok(container) => serde_json::to_value(container.health().await).map_err(Failure::encode)?,
        // A setting that makes no sense says nothing about the server.
        Err(error) if error.kind() == ErrorKind::Invalid => return Err(error.into()),
        // A container that cannot be made has nobody to ask.
        Err(error) => {
            let part = json!({ "ok": false, "reasons": [chain(&error)] });
            json!({ "ok": false, "bus": part, "kv": part })
        }
    };
    if console.is_json() {
        console.json(&health)?;
    } else {
        for line in lines(&health) {
            console.line(crate::escape::text(&line))?;
        }
    }
    match health["ok"] {
        Value::Bool(true) => Ok(()),
        _ => Err(Failure::Said(FAILED)),
    }
}

fn lines(health: &Value) -> Vec<String> {
    let all = match &health["ok"] {
        Value::Bool(true) => "ok",
        _ => "not ok",
    };
    let parts = ["bus", "kv"].iter().map(|part| {
        let reasons: Vec<&str> = health[part]["reasons"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        match (&health[part]["ok"], reasons.is_empty()) {
            (Value::Bool(true), _) => format!("{part}: ok"),
            (_, true) => format!("{part}: not ok"),
            (_, false) => format!("{part}: not ok: {}", reasons.join("; ")),
        }
    });
    std::iter::once(all.to_owned()).chain(parts).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_has_its_line_and_its_reasons() {
        let health = json!({
            "ok": false,
            "bus": { "ok": true, "reasons": [] },
            "kv": { "ok": false, "reasons": ["a", "b"] },
        });
        assert_eq!(lines(&health), ["not ok", "bus: ok", "kv: not ok: a; b"]);
    }
}
