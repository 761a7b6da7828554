//! The command lines of `completions` and `man`.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use clap_complete::Shell;

/// Write a completion script for a shell.
#[derive(Debug, ClapArgs)]
#[command(
    long_about = "\
Write a completion script for a shell. It also completes the names of topics, groups and contexts:
at each completion the shell runs the tool, which asks the server for at most 1.5 seconds.
--static completes commands and options only, and never asks the server.",
    after_help = "\
Examples:
  redstart completions bash > ~/.local/share/bash-completion/completions/redstart
  redstart completions zsh > \"${fpath[1]}/_redstart\"
  redstart completions fish > ~/.config/fish/completions/redstart.fish"
)]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub(crate) shell: Shell,
    /// Complete commands and options only
    #[arg(long = "static")]
    pub(crate) fixed: bool,
}

/// Write the manual pages.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  redstart man | man -l -
  redstart man --dir ~/.local/share/man/man1     one page per command")]
pub(crate) struct ManArgs {
    /// Write the pages of all commands into this folder
    #[arg(long, value_name = "FOLDER")]
    pub(crate) dir: Option<PathBuf>,
}
