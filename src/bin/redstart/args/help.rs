//! The help of the commands: short, without the settings that all of them share.

use clap::{Arg, Command, CommandFactory as _};

use super::Args;

/// Where the settings are explained.
const POINTER: &str = "Settings (server, namespace, context): redstart help settings";

/// The settings that each command has in common; `--json` stays in the help of each.
const SHARED: [&str; 6] = [
    "redis_url",
    "namespace",
    "placement",
    "foreign",
    "log",
    "context",
];

/// The command that shows the settings in full.
const FULL: &str = "settings";

/// The definition of the command line, with the shared settings in the help of the tool and of
/// `settings` alone.
pub(crate) fn command() -> Command {
    let mut all = Args::command();
    let shared = all
        .get_arguments()
        .filter(|one| SHARED.contains(&one.get_id().as_str()));
    // A command that has an argument already does not take over that of the tool.
    let hidden: Vec<Arg> = shared.map(|one| one.clone().hide(true)).collect();
    for command in all.get_subcommands_mut() {
        if command.get_name() != FULL {
            *command = std::mem::take(command).args(&hidden);
            point(command);
        }
    }
    all
}

/// Says at the end of each help where the settings are, and lets paragraphs wrap at the terminal's
/// width rather than at that of the source.
fn point(command: &mut Command) {
    let told = command.get_after_help().map(|text| format!("{text}\n\n"));
    let told = unbroken(&told.unwrap_or_default()) + POINTER;
    let mut pointed = std::mem::take(command).after_help(told);
    if let Some(text) = pointed
        .get_long_about()
        .map(|text| unbroken(&text.to_string()))
    {
        pointed = pointed.long_about(text);
    }
    *command = pointed;
    command.get_subcommands_mut().for_each(point);
}

/// A text with each paragraph in one line. Indented lines stay as they are.
fn unbroken(text: &str) -> String {
    let mut whole = String::with_capacity(text.len());
    let mut before = "";
    for line in text.lines() {
        let goes_on = |line: &str| !line.is_empty() && !line.starts_with(' ');
        if goes_on(before) && goes_on(line) {
            whole.push(' ');
        } else if !whole.is_empty() {
            whole.push('\n');
        }
        whole.push_str(line);
        before = line;
    }
    whole + if text.ends_with("\n\n") { "\n" } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_are_whole_and_examples_keep_their_lines() {
        let text = "One\ntwo.\n\nExamples:\n  a b\n  c\n\nWith\nJSON.\n\n";
        let whole = "One two.\n\nExamples:\n  a b\n  c\n\nWith JSON.\n\n";
        assert_eq!(unbroken(text), whole);
        assert_eq!(unbroken(""), "");
    }

    fn help(line: &str) -> String {
        let words = ["redstart"].into_iter().chain(line.split_whitespace());
        command()
            .try_get_matches_from(words)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn the_settings_stand_in_one_place() {
        for line in [
            "dead list --help",
            "topics -h",
            "help dead list",
            "doctor -h",
        ] {
            let help = help(line);
            assert!(!help.contains("--redis-url"), "{line}: {help}");
            assert!(help.contains("--json"), "{line}: {help}");
            assert!(help.contains("redstart help settings"), "{line}: {help}");
        }
        for line in ["--help", "settings --help", "help settings"] {
            assert!(help(line).contains("--redis-url"), "{line}");
        }
    }

    #[test]
    fn no_line_of_a_help_is_too_long() {
        fn names(command: &Command, lead: &str, all: &mut Vec<String>) {
            for inner in command
                .get_subcommands()
                .filter(|one| one.get_name() != "help")
            {
                let name = format!("{lead} {}", inner.get_name());
                names(inner, &name, all);
                all.push(name);
            }
        }
        let mut all = vec![String::new()];
        names(&command(), "", &mut all);
        assert!(all.len() > 30, "{all:?}");
        for line in all {
            for option in ["-h", "--help"] {
                let help = help(&format!("{line} {option}"));
                let long = help.lines().find(|one| one.chars().count() > 100);
                assert_eq!(long, None, "{line} {option}");
            }
        }
    }
}
