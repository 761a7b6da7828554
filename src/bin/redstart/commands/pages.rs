//! `completions` and `man`: what is made of the definition of the command line.

use std::fs;

use clap::{Command, CommandFactory as _};

use crate::args::{Args, CompletionsArgs, ManArgs};
use crate::console::Console;
use crate::failure::Failure;

pub(super) fn completions(
    args: &CompletionsArgs,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut shown(), "redstart", &mut script);
    Ok(console.bytes(&script)?)
}

/// The command line without what is no user's: hidden commands would be completed, too.
fn shown() -> Command {
    let all = Args::command();
    let bare = Command::new("redstart")
        .about(all.get_about().cloned().unwrap_or_default())
        .args(all.get_arguments().cloned());
    let kept = all.get_subcommands().filter(|one| !one.is_hide_set());
    bare.subcommands(kept.cloned())
}

pub(super) fn man(args: &ManArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let Some(folder) = &args.dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Args::command()).render(&mut page)?;
        return Ok(console.bytes(&page)?);
    };
    fs::create_dir_all(folder)?;
    // As the pages of subcommands are named: redstart-groups-remove.1.
    clap_mangen::generate_to(Args::command(), folder)?;
    Ok(())
}
