//! `completions` and `man`, generated from the definition of the command line.

use std::fs;

use clap::{Command, CommandFactory as _};
use clap_complete::env::Shells;

use crate::args::{Args, CompletionsArgs, ManArgs};
use crate::failure::Failure;
use crate::terminal::Terminal;

pub(super) fn completions(
    args: &CompletionsArgs,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let mut script = Vec::new();
    if !args.fixed {
        let shell = args.shell.to_string();
        let shells = Shells::builtins();
        let writer = shells
            .completer(&shell)
            .ok_or_else(|| Failure::usage(format!("{shell} completes no names; give --static")))?;
        writer.write_registration("COMPLETE", "redstart", "redstart", "redstart", &mut script)?;
        return Ok(terminal.bytes(&script)?);
    }
    clap_complete::generate(args.shell, &mut visible(), "redstart", &mut script);
    Ok(terminal.bytes(&script)?)
}

/// The command line without hidden commands, which a shell would complete too.
fn visible() -> Command {
    let all = Args::command();
    let bare = Command::new("redstart")
        .about(all.get_about().cloned().unwrap_or_default())
        .args(all.get_arguments().cloned());
    let kept = all.get_subcommands().filter(|one| !one.is_hide_set());
    bare.subcommands(kept.cloned())
}

pub(super) fn man(args: &ManArgs, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let Some(folder) = &args.dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Args::command()).render(&mut page)?;
        return Ok(terminal.bytes(&page)?);
    };
    fs::create_dir_all(folder)?;
    // Names a page by its subcommands: redstart-groups-remove.1.
    clap_mangen::generate_to(Args::command(), folder)?;
    Ok(())
}
