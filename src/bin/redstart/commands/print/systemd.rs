//! `print systemd`: a unit that runs a service.

use std::time::Duration;

use super::fill;
use crate::args::SystemdArgs;
use crate::failure::Failure;

/// The command without one on the command line.
const METRICS: [&str; 4] = [
    "/usr/local/bin/redstart",
    "metrics",
    "--listen",
    "127.0.0.1:9464",
];

/// How much longer than the grace systemd waits before it kills.
const LONGER: Duration = Duration::from_secs(10);

/// The file's name and its text.
pub(super) fn file(args: &SystemdArgs) -> Result<(String, String), Failure> {
    let words: Vec<&str> = match args.command.is_empty() {
        true => METRICS.to_vec(),
        false => args.command.iter().map(String::as_str).collect(),
    };
    let program = words[0];
    if !program.starts_with('/') {
        let rule =
            format!("the command must begin with the whole path of its program, not {program:?}");
        return Err(Failure::usage(rule));
    }
    let name = match (&args.name, args.command.is_empty()) {
        (Some(name), _) => name,
        (None, true) => "redstart-metrics",
        (None, false) => program.rsplit('/').next().unwrap_or(program),
    };
    let is_known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name.is_empty() || name.len() > 200 || !name.chars().all(is_known) {
        let rule = "the unit's name must match [A-Za-z0-9_.-]{1,200}; set it with --name";
        return Err(Failure::usage(rule));
    }
    let exec: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    let seconds = |duration: Duration| duration.as_secs_f64().ceil().to_string();
    let values = [
        ("NAME", name),
        ("EXEC", &exec.join(" ")),
        ("GRACE", &seconds(args.grace)),
        ("STOP", &seconds(args.grace.saturating_add(LONGER))),
    ];
    let template = include_str!("../../../../docs/ops/systemd.service");
    Ok((format!("{name}.service"), fill(template, &values)))
}

/// A word of a command, so that systemd takes it as it is: neither split nor expanded.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=@,+".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    let mut text = String::from('"');
    for c in word.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            '%' | '$' => text.extend([c, c]),
            c if c.is_control() => {
                let mut bytes = [0; 4];
                let bytes = c.encode_utf8(&mut bytes).bytes();
                text.extend(bytes.map(|byte| format!("\\x{byte:02x}")));
            }
            c => text.push(c),
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_systemd_would_read_them_otherwise() {
        for (word, text) in [
            ("--listen=[::1]:9464", "\"--listen=[::1]:9464\""),
            ("127.0.0.1:9464", "127.0.0.1:9464"),
            ("", "\"\""),
            ("a b", "\"a b\""),
            ("5%", "\"5%%\""),
            ("$HOME", "\"$$HOME\""),
            ("\"\\", "\"\\\"\\\\\""),
            ("a\nUser=root", "\"a\\x0aUser=root\""),
        ] {
            assert_eq!(quoted(word), text);
        }
    }
}
