//! Which right a refused user lacks.

use redis::RedisError;

use crate::adapters::redis::scripts;

/// Names the missing right, if the server refused for one.
///
/// Inside a script Redis 7.0 names neither the command nor the key, but the line. Later servers name
/// the command, and Valkey 9 no longer names the script.
pub(in crate::adapters::redis) fn missing_right(error: &RedisError) -> Option<String> {
    let text = error.to_string();
    let in_script = ["The user executing the script", "ACL failure in script"];
    if in_script.iter().any(|known| text.contains(known)) {
        return Some(match scripts::place(&text) {
            Some((file, line, source)) => format!("to `{source}` ({file}, line {line})"),
            None => command(&text).unwrap_or_else(|| "to run a command of a script".to_owned()),
        });
    }
    if !text.contains("NOPERM") && !text.contains("NoPerm") {
        return None;
    }
    Some(command(&text).unwrap_or_else(|| "to a key of the command".to_owned()))
}

/// The right to the command that a refusal quotes.
fn command(refusal: &str) -> Option<String> {
    let (_, rest) = refusal.split_once("run the '")?;
    let (command, _) = rest.split_once('\'')?;
    Some(format!(
        "to run {}",
        command.to_uppercase().replace('|', " ")
    ))
}

#[cfg(test)]
mod tests {
    use redis::ErrorKind;

    use super::*;

    fn right(text: &str) -> Option<String> {
        missing_right(&(ErrorKind::Client, "error", text.to_owned()).into())
    }

    #[test]
    fn a_refused_command_or_key_is_named() {
        let refused = "NOPERM User ann has no permissions to run the 'xgroup|create' command";
        assert_eq!(right(refused).unwrap(), "to run XGROUP CREATE");
        let refused = "NOPERM No permissions to access a key";
        assert_eq!(right(refused).unwrap(), "to a key of the command");
    }

    #[test]
    fn inside_an_unknown_script_only_the_script_is_named() {
        let refused = "ACL failure in script: script: 00ff, on @user_script:3.";
        assert_eq!(right(refused).unwrap(), "to run a command of a script");
    }

    #[test]
    fn inside_a_script_that_the_server_does_not_name_the_command_is_named() {
        let refused = "ACL failure in script: User ann has no permissions to run the 'hdel' \
                       command script: on @user_script:2.";
        assert_eq!(right(refused).unwrap(), "to run HDEL");
    }

    #[test]
    fn other_errors_are_no_matter_of_rights() {
        assert_eq!(right("WRONGTYPE Operation against a key"), None);
    }
}
