//! `redstart`, the command-line tool: reads arguments, asks for confirmation, and renders what
//! the library returns.

mod args;
mod candidates;
mod commands;
mod complete;
mod context;
mod demo;
mod duration;
mod failure;
mod priority;
mod settings;
mod table;
mod terminal;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _};
// The modules of the commands name them by `crate::`.
use redstart::{escape, hex};

use args::{Args, help};
use failure::{FAILED, Failure, USAGE, redact};
use terminal::Terminal;

fn main() -> ExitCode {
    complete::answer(Args::command);
    let read = |parsed: ArgMatches| Ok((Args::from_arg_matches(&parsed)?, parsed));
    let (mut args, parsed) = match help::command().try_get_matches().and_then(read) {
        Ok(read) => read,
        Err(error) => return usage(error),
    };
    args.settings.start_logging();
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = writeln!(
                io::stderr(),
                "error: cannot start the async runtime: {error}"
            );
            return ExitCode::from(FAILED);
        }
    };
    let (mut out, mut err) = (io::stdout(), io::stderr());
    let mut terminal = Terminal::of_process(&mut out, &mut err, args.settings.json);
    if args.command.uses_context()
        && let Err(failure) = args.settings.resolve(&parsed)
    {
        return report(&failure, &mut terminal);
    }
    args.settings.warn_of_a_password(&mut terminal);
    let result = runtime.block_on(commands::run(&args, &mut terminal));
    let result = result.and_then(|()| Ok(terminal.flush()?));
    // Nothing can interrupt a thread that reads the standard input: do not wait for it.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => report(&failure, &mut terminal),
    }
}

fn report(failure: &Failure, terminal: &mut Terminal<'_>) -> ExitCode {
    if terminal.is_json() {
        if let Some(error) = failure.json() {
            terminal.remark_json(&error);
        }
    } else if let Some(line) = failure.line() {
        terminal.remark(format_args!("error: {line}"));
    }
    ExitCode::from(failure.exit_code())
}

/// Prints help and version to the standard output, and usage errors to the error output. Usage
/// errors quote arguments: a URL with a password may be among them, so URLs are taken out.
fn usage(mut error: clap::Error) -> ExitCode {
    if error.use_stderr() {
        leave_hidden_out(&mut error);
        let text = redact(&error.render().to_string());
        if asks_for_json(std::env::args_os())
            && let Some(told) = Failure::usage(rule_of(&text)).json()
        {
            let line = escape::to_json(&told).unwrap_or_default();
            let _ = writeln!(io::stderr(), "{line}");
            return ExitCode::from(USAGE);
        }
        for line in text.lines() {
            let _ = writeln!(io::stderr(), "{}", escape::text(line));
        }
        return ExitCode::from(USAGE);
    }
    let _ = error.print();
    ExitCode::SUCCESS
}

/// Whether arguments that cannot be parsed ask for errors as JSON.
fn asks_for_json(args: impl Iterator<Item = OsString>) -> bool {
    args.take_while(|arg| arg != "--")
        .any(|arg| arg == "--json")
}

/// The rule of a usage error, without the help around it.
fn rule_of(text: &str) -> String {
    let text = text.strip_prefix("error: ").unwrap_or(text);
    let lines = text.lines().take_while(|line| !line.is_empty());
    lines.map(str::trim).collect::<Vec<_>>().join(" ")
}

/// Takes hidden commands out of the suggestions of an error.
fn leave_hidden_out(error: &mut clap::Error) {
    let all = Args::command();
    let hidden = all.get_subcommands().filter(|one| one.is_hide_set());
    let hidden: Vec<&str> = hidden.map(clap::Command::get_name).collect();
    for kind in [
        ContextKind::ValidSubcommand,
        ContextKind::SuggestedSubcommand,
    ] {
        let Some(ContextValue::Strings(mut names)) = error.remove(kind) else {
            continue;
        };
        names.retain(|name| !hidden.contains(&name.as_str()));
        if !names.is_empty() {
            error.insert(kind, ContextValue::Strings(names));
        }
    }
}
