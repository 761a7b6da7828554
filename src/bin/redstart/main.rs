//! `redstart`, the command-line tool: the library's public API, at hand in a shell.

mod args;
mod commands;
mod console;
mod demo;
mod duration;
mod escape;
mod failure;
mod priority;
mod settings;
mod shown;
mod table;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory as _, Parser as _};

use args::Args;
use console::Console;
use failure::{FAILED, Failure, USAGE, redact};

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return usage(error),
    };
    args.settings.start_logging();
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: no runtime: {error}");
            return ExitCode::from(FAILED);
        }
    };
    let (mut out, mut err) = (io::stdout(), io::stderr());
    let mut console = Console::of_process(&mut out, &mut err, args.settings.json);
    args.settings.warn_of_a_password(&mut console);
    let result = runtime.block_on(commands::run(&args, &mut console));
    let result = result.and_then(|()| Ok(console.flush()?));
    // A thread may still be reading the standard input, which nothing interrupts.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => report(&failure, &mut console),
    }
}

fn report(failure: &Failure, console: &mut Console<'_>) -> ExitCode {
    if let Some(line) = failure.line() {
        console.remark(format_args!("error: {line}"));
    }
    ExitCode::from(failure.exit_code())
}

/// Help and version go to the standard output; a usage error is quoted without addresses,
/// because a URL with a password may have landed in the wrong place, and without hidden commands.
fn usage(mut error: clap::Error) -> ExitCode {
    if error.use_stderr() {
        leave_hidden_out(&mut error);
        for line in redact(&error.render().to_string()).lines() {
            let _ = writeln!(io::stderr(), "{}", escape::text(line));
        }
        return ExitCode::from(USAGE);
    }
    let _ = error.print();
    ExitCode::SUCCESS
}

/// Takes hidden commands out of those that an error offers, which names them as any other.
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
