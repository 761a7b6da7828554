//! What right a user lacks, said as clearly as the server lets one.

use redis::RedisError;

use crate::adapters::redis::scripts;

/// Which right is missing, where that is why the server refused.
///
/// Inside a script Redis names neither the command nor the key, but the line.
pub(in crate::adapters::redis) fn missing_right(error: &RedisError) -> Option<String> {
    let text = error.to_string();
    let in_script = ["The user executing the script", "ACL failure in script"];
    if in_script.iter().any(|known| text.contains(known)) {
        return Some(match scripts::place(&text) {
            Some((file, line, source)) => format!("to `{source}` ({file}, line {line})"),
            None => "to what a script does".to_owned(),
        });
    }
    if !text.contains("NOPERM") && !text.contains("NoPerm") {
        return None;
    }
    let quoted = text
        .split_once("run the '")
        .and_then(|(_, rest)| rest.split_once('\''));
    Some(match quoted {
        Some((command, _)) => format!("to run {}", command.to_uppercase().replace('|', " ")),
        None => "to a key of the command".to_owned(),
    })
}
