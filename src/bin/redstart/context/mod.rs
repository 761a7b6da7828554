//! Contexts: servers by name, in a file of the user.

mod file;
mod url;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::failure::Failure;

pub(crate) use file::{load, path, save};
pub(crate) use url::{holds_password, with_password, without_password};

/// All contexts of a user.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Contexts {
    /// The context in force where nothing else is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) current: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) contexts: BTreeMap<String, Context>,
}

/// A server, a namespace, and how to log in.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Context {
    /// The server, without a password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) redis_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) namespace: Option<String>,
    /// A command whose first line of output is the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) password_command: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tls_ca_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tls_cert_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tls_key_file: Option<PathBuf>,
}

impl Contexts {
    /// The context of a name.
    pub(crate) fn get(&self, name: &str) -> Result<&Context, Failure> {
        self.contexts.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.contexts.keys().map(String::as_str).collect();
            Failure::usage(match known.is_empty() {
                true => format!(
                    "context {name:?} does not exist; `redstart context add {name}` adds it"
                ),
                false => format!(
                    "context {name:?} does not exist; there are {}",
                    known.join(", ")
                ),
            })
        })
    }
}

/// Reads the name of a context.
pub(crate) fn name(text: &str) -> Result<String, &'static str> {
    let is_fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if text.is_empty() || text.len() > 64 || text.starts_with('-') || !text.chars().all(is_fit) {
        return Err("must be 1 to 64 letters, digits, `_`, `.` and `-`, and not begin with `-`");
    }
    Ok(text.to_owned())
}

/// Runs a password command, and returns the first line of its output.
pub(crate) fn password(context: &str, command: &str) -> Result<String, Failure> {
    let failed = |what: String| {
        Failure::new(format!(
            "the password command of context {context:?}: {what}"
        ))
    };
    // It may ask on the terminal, as a password manager does.
    let ran = Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::inherit())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if !ran.status.success() {
        return Err(failed(ran.status.to_string()));
    }
    let text = String::from_utf8(ran.stdout);
    let text = text.map_err(|_| failed("its output is not UTF-8".to_owned()))?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(line.to_owned()),
        _ => Err(failed("it wrote no password".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_fits_a_command_line() {
        assert_eq!(name("staging-2.eu_1"), Ok("staging-2.eu_1".to_owned()));
        for bad in ["", "a b", "-x", "a/b", "ä", &"x".repeat(65)] {
            assert!(name(bad).is_err(), "{bad:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_password_is_the_first_line_of_a_command() {
        let of = |command: &str| password("c", command).map_err(|failure| failure.line().unwrap());
        assert_eq!(of("printf 'secret\nmore'").unwrap(), "secret");
        for (bad, rule) in [
            ("exit 3", "exit status: 3"),
            ("true", "it wrote no password"),
        ] {
            let told = of(bad).unwrap_err();
            assert!(told.ends_with(rule), "{told}");
        }
    }
}
