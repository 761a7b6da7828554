//! The command line of `dead`.

mod selection;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use clap_complete::engine::ArgValueCompleter;
use redstart::{Group, Topic, envelope::EntryId};
use uuid::Uuid;

use super::{GroupOf, number};
use crate::complete;
use crate::duration;

use selection::FilterArgs;
pub(crate) use selection::SelectionArgs;
pub(in crate::args) use selection::moment;

/// The heading of the options that are not conditions; without it they would come under "Which".
const HOW: &str = "How";

/// List, redrive, edit, purge, export and import dead letters.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  redstart dead summary
  redstart dead list orders billing --reason exhausted --since 2h
  redstart dead redrive orders billing --fingerprint 'connect #: refused' --dry-run
  redstart dlq watch orders billing

The guide \"Operating dead letters\" of the documentation shows all of it.")]
pub(crate) struct DeadArgs {
    #[command(subcommand)]
    pub(crate) action: DeadAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeadAction {
    Summary(SummaryArgs),
    List(DeadListArgs),
    Show(ShowArgs),
    Redrive(RedriveArgs),
    Edit(EditArgs),
    Purge(PurgeArgs),
    Export(ExportArgs),
    Import(ImportArgs),
    Watch(WatchArgs),
    Journal(JournalArgs),
    Note(NoteArgs),
}

impl DeadAction {
    /// Whether the command is bulk work, which yields to services on the same machine.
    pub(crate) fn is_bulk_work(&self) -> bool {
        match self {
            Self::Redrive(_) | Self::Purge(_) | Self::Export(_) | Self::Import(_) => true,
            Self::Summary(_)
            | Self::List(_)
            | Self::Show(_)
            | Self::Edit(_)
            | Self::Watch(_)
            | Self::Journal(_)
            | Self::Note(_) => false,
        }
    }

    /// Whether the command does nothing but write to the standard output.
    pub(crate) fn only_shows(&self) -> bool {
        match self {
            Self::Export(args) => args.out.is_none(),
            Self::Summary(_) | Self::List(_) | Self::Watch(_) | Self::Journal(_) => true,
            Self::Show(_)
            | Self::Redrive(_)
            | Self::Edit(_)
            | Self::Purge(_)
            | Self::Import(_)
            | Self::Note(_) => false,
        }
    }
}

/// Count dead letters by cause.
#[derive(Debug, ClapArgs)]
#[command(
    long_about = "\
Count dead letters by cause: the reason, and the error with numbers, ids, addresses and quoted
texts folded. The store keeps the counts, so this costs the same for a hundred dead letters and for
a million.",
    after_help = "\
Examples:
  redstart dead summary
  redstart dead summary orders billing --by hour
  redstart dead summary orders billing --wide
  redstart dead summary --json | jq -r 'max_by(.count).fingerprint'

With --json: one array of {\"topic\",\"group\",\"reason\",\"fingerprint\",\"count\",\"first\",\"last\",
\"firstDied\",\"lastDied\",\"sample\",\"note\":{\"fingerprint\",\"text\",\"operator\",\"written\"}}; sample is
the id of a dead letter of this cause, or null, and note is null without one. With --by: one array of {\"topic\",\"group\",\"name\",\"count\"}."
)]
pub(crate) struct SummaryArgs {
    /// Count this topic only
    #[arg(add = ArgValueCompleter::new(complete::topics))]
    pub(crate) topic: Option<Topic>,
    /// Count this group only
    #[arg(add = ArgValueCompleter::new(complete::groups))]
    pub(crate) group: Option<Group>,
    /// The dimension to count by
    #[arg(long, value_enum, default_value_t = By::Cause)]
    pub(crate) by: By,
    /// Also show the id of one dead letter of each cause, for `dead show`
    #[arg(long)]
    pub(crate) wide: bool,
    /// Show at most N for each group
    #[arg(long, short = 'n', visible_alias = "limit", value_name = "N", default_value_t = 20, value_parser = number::from_one::<usize>, allow_negative_numbers = true)]
    pub(crate) max: usize,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum By {
    /// Reason and folded error
    Cause,
    /// The message type
    Type,
    /// The tenant
    Tenant,
    /// The hour in which the messages died
    Hour,
}

/// List dead letters: on a terminal the newest first, elsewhere the oldest.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  redstart dead list orders billing
  redstart dead list orders billing --newest --max 5
  redstart dead list orders billing --error 'connection refused' --tenant acme
  redstart dead list orders billing --max 1000000 --json | jq -r .messageId

With --json every line is {\"id\",\"died\",\"reason\",\"fingerprint\",\"type\",\"tenantId\",\"corrId\",
\"messageId\",\"error\",\"attempts\",\"redriven\",\"redrivenBy\",\"importedFrom\"}.")]
pub(crate) struct DeadListArgs {
    #[command(flatten)]
    pub(crate) of: GroupOf,
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    /// List the newest first; the default on a terminal
    #[arg(help_heading = HOW, long)]
    pub(crate) newest: bool,
    /// List the oldest first; the default without a terminal and with --json
    #[arg(help_heading = HOW, long, conflicts_with = "newest")]
    pub(crate) oldest: bool,
    /// Begin after this id, the oldest first
    #[arg(help_heading = HOW, long, value_name = "ID", conflicts_with_all = ["newest", "before"])]
    pub(crate) after: Option<EntryId>,
    /// Begin before this id, the newest first
    #[arg(help_heading = HOW, long, value_name = "ID", conflicts_with = "oldest")]
    pub(crate) before: Option<EntryId>,
    /// Stop after N
    #[arg(help_heading = HOW, long, short = 'n', visible_alias = "limit", value_name = "N", default_value_t = 50, value_parser = number::from_one::<usize>, allow_negative_numbers = true)]
    pub(crate) max: usize,
}

impl DeadListArgs {
    /// Whether the newest comes first. A person asks what died just now; a program reads all, and
    /// for it nothing changes.
    pub(crate) fn newest_first(&self, for_a_person: bool) -> bool {
        let said = self.newest || self.before.is_some();
        said || (for_a_person && !self.oldest && self.after.is_none())
    }
}

/// Show one dead letter in full.
#[derive(Debug, ClapArgs)]
#[command(
    long_about = "\
Show one dead letter in full: why and when it died, its earlier attempts, its headers, and its
payload as JSON whatever its codec. An undecodable one is shown in hexadecimal.",
    after_help = "\
Examples:
  redstart dead show orders billing 1762957200123-0
  redstart dead show orders billing 1762957200123-0 --json | jq .payload

With --json: the object that `export` writes."
)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    pub(crate) of: GroupOf,
    /// The dead letter's id
    pub(crate) id: EntryId,
    /// Show all of an undecodable message, not only its first kibibyte
    #[arg(long)]
    pub(crate) full: bool,
}

/// Bring dead letters back to the group that failed them.
#[derive(Debug, ClapArgs)]
#[command(
    long_about = "\
Bring dead letters back to the group that failed them, and to no other group. Their attempts
restart at 1. A message that dies after the preview waits for the next redrive. The server
moves and counts each dead letter in one step: two operators at once neither lose nor duplicate one.
Continue an interrupted run with --resume. The journal records who did what.

Undecodable messages would only die again and stay, unless the selection names their id or
--reason undecodable.",
    after_help = "\
Examples:
  redstart dead redrive orders billing --all --dry-run
  redstart dead redrive orders billing --type order.placed --since 2h --rate 500 --ramp 30s
  redstart dead redrive orders billing --all --rate 100 --failure-limit 10%
  redstart dead redrive orders billing 1762957200123-0
  redstart dead redrive orders billing --resume 0190163d-8694-739b-aea5-966c26f8ad90

With --json: {\"ended\",\"operation\",\"taken\",\"skipped\",\"missing\",\"diedAgain\"}. With --dry-run:
{\"topic\",\"group\",\"action\",\"to\",\"selection\",\"watermark\",\"matching\",\"skipped\":{\"notMatching\",
\"undecodable\"},\"missing\",\"oldest\",\"newest\",\"confirmation\"}.

Exit codes: 0 done, 1 failed, or stopped at the failure limit, or a selected id does not exist,
2 wrong usage, 130 interrupted."
)]
pub(crate) struct RedriveArgs {
    #[command(flatten)]
    pub(crate) of: GroupOf,
    #[command(flatten)]
    pub(crate) which: SelectionArgs,
    /// Continue this interrupted operation with its own selection and pace; not for a purge
    #[arg(help_heading = HOW, long, value_name = "OPERATION", conflicts_with_all = ["selection", "FilterArgs", "PaceArgs", "failure_limit", "dry_run", "to"])]
    pub(crate) resume: Option<Uuid>,
    /// Publish them to this topic, and so to all its groups, instead
    #[arg(help_heading = HOW, long, value_name = "TOPIC")]
    #[arg(add = ArgValueCompleter::new(complete::topics))]
    pub(crate) to: Option<Topic>,
    /// Stop when more than this share of the redriven messages dies again, such as 10%; needs --rate
    #[arg(help_heading = HOW, long, value_name = "PERCENT", requires = "rate", value_parser = percent, allow_hyphen_values = true)]
    pub(crate) failure_limit: Option<f64>,
    #[command(flatten)]
    pub(crate) pace: PaceArgs,
    /// Show what would move and what would stay, and stop
    #[arg(help_heading = HOW, long)]
    pub(crate) dry_run: bool,
}

/// Reads `10%` as a share of 0.1.
fn percent(text: &str) -> Result<f64, &'static str> {
    let number = text
        .strip_suffix('%')
        .and_then(|number| number.trim_end().parse().ok());
    match number {
        Some(percent) if (0.0..=100.0).contains(&percent) => Ok(percent / 100.0),
        _ => Err("must be a percentage from 0% to 100%, such as 10%"),
    }
}

#[derive(Debug, ClapArgs)]
pub(crate) struct PaceArgs {
    /// Leave dead letters newer than this id, such as the watermark of a preview [default: the newest
    /// one now]
    #[arg(help_heading = HOW, long, value_name = "ID", conflicts_with = "ids")]
    pub(crate) up_to: Option<EntryId>,
    /// Take at most N a second [default: no limit]
    #[arg(help_heading = HOW, long, value_name = "N", value_parser = number::from_one::<u32>, allow_negative_numbers = true)]
    pub(crate) rate: Option<u32>,
    /// Begin with a tenth of the rate and reach it after this time
    #[arg(help_heading = HOW, long, value_name = "TIME", default_value = "0s", requires = "rate", value_parser = duration::parse, allow_hyphen_values = true)]
    pub(crate) ramp: Duration,
    /// The operator's name for the journal [default: $USER or $LOGNAME, else `unknown`]
    #[arg(help_heading = HOW, long, value_name = "NAME")]
    pub(crate) operator: Option<String>,
    /// A note for the journal, such as the number of a ticket
    #[arg(help_heading = HOW, long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) note: Option<String>,
}

/// Edit a dead letter and bring it back as a new message.
#[derive(Debug, ClapArgs)]
#[command(
    long_about = "\
Edit a dead letter and bring it back as a new message, with a new id and a header that names the
original. Opens the envelope as JSON in $VISUAL or $EDITOR, unless --patch or --file gives the
change.

Off unless REDSTART_DEAD_LETTER_EDITING is `true`: an edited message no longer says what its
publisher said. An edit changes only the parts that it touches. All others stay byte for byte:
MessagePack binaries and extensions, keys that are not text, numbers of any length. An edit that
cannot be exact is refused with the name of the part. Fails when another operator takes the dead
letter first.",
    after_help = "\
Examples:
  redstart dead edit orders billing 1762957200123-0
  echo '{\"payload\":{\"cents\":1250}}' | redstart dead edit orders billing 1762957200123-0 --patch -

A patch is a JSON merge patch (RFC 7396) of the envelope as on the wire or, if it is an array, a
JSON patch (RFC 6902). A path names a MessagePack key that is a number or a boolean by its text. The
editor and --file show binaries as arrays of numbers and extensions as [type, bytes]; only a patch
replaces or removes them. With --json: {\"messageId\"}, the new id.

Exit codes: 0 brought back, 1 failed, or the message is unchanged, 2 wrong usage, or the input is
not JSON, not a patch or not an envelope."
)]
pub(crate) struct EditArgs {
    #[command(flatten)]
    pub(crate) of: GroupOf,
    /// The dead letter's id
    pub(crate) id: EntryId,
    /// Apply this patch; `-` is stdin
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    pub(crate) patch: Option<PathBuf>,
    /// Take this envelope; `-` is stdin
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// The operator's name for the journal [default: $USER or $LOGNAME, else `unknown`]
    #[arg(long, value_name = "NAME")]
    pub(crate) operator: Option<String>,
}

/// Remove dead letters for good.
#[derive(Debug, ClapArgs)]
#[command(
    long_about = "\
Remove dead letters for good. Shows how many it will remove and asks for that count. A message that
dies after that stays. --export first writes them to a file. Continue an interrupted run with
--resume.",
    after_help = "\
Examples:
  redstart dead purge orders billing --reason undecodable --dry-run
  redstart dead purge orders billing --until 30d --export old.ndjson
  redstart dead purge orders billing --all --yes
  redstart dead purge orders billing --resume 0190163d-8694-739b-aea5-966c26f8ad90

With --json: as `redrive --json` and `redrive --dry-run --json`.

Exit codes: 0 done, 1 failed, or not confirmed, or a selected id does not exist, 2 wrong usage, or
stdin is not a terminal, 130 interrupted."
)]
pub(crate) struct PurgeArgs {
    #[command(flatten)]
    pub(crate) of: GroupOf,
    #[command(flatten)]
    pub(crate) which: SelectionArgs,
    /// Continue this interrupted purge with its own selection and pace
    #[arg(help_heading = HOW, long, value_name = "OPERATION", conflicts_with_all = ["selection", "FilterArgs", "PaceArgs", "dry_run", "export"])]
    pub(crate) resume: Option<Uuid>,
    /// First write them to a new file
    #[arg(help_heading = HOW, long, value_name = "FILE")]
    pub(crate) export: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) pace: PaceArgs,
    /// Show what would be removed, and stop
    #[arg(help_heading = HOW, long)]
    pub(crate) dry_run: bool,
    /// Skip the prompt
    #[arg(help_heading = HOW, long, short)]
    pub(crate) yes: bool,
}

/// Write dead letters as lines of JSON.
#[derive(Debug, ClapArgs)]
#[command(
    long_about = "\
Write dead letters as lines of JSON, lossless for every codec and for undecodable messages.
`import` reads them.",
    after_help = "\
Examples:
  redstart dead export orders billing > billing.ndjson
  redstart dead export orders billing --tenant acme --out acme.ndjson

Leaves out messages that die meanwhile. Never overwrites an existing file.

Exit codes: 0 all written, 1 failed, 2 wrong usage, 130 interrupted."
)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    pub(crate) of: GroupOf,
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    /// Write to a new file [default: stdout]
    #[arg(help_heading = HOW, long, short, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Stop after the oldest N
    #[arg(help_heading = HOW, long, short = 'n', visible_alias = "limit", value_name = "N", value_parser = number::from_one::<usize>, allow_negative_numbers = true)]
    pub(crate) max: Option<usize>,
}

/// Add exported dead letters to a group.
#[derive(Debug, ClapArgs)]
#[command(
    long_about = "\
Add exported dead letters from stdin to a group, as its newest. However often you import a line, the
group gets it once. A dead letter that an earlier import added, and that left the group since by a
redrive, a purge or retention, counts as gone, and the tool names its line; --reimport adds it again.
A line with an unknown field fails, because the import would lose the field.",
    after_help = "\
Examples:
  redstart dead import orders billing < billing.ndjson

With --json: {\"imported\",\"present\",\"gone\",\"failed\"}, four counts.

Exit codes: 0 all are in the group, 1 a line failed or is gone, 2 wrong usage, 130 interrupted."
)]
pub(crate) struct ImportArgs {
    #[command(flatten)]
    pub(crate) of: GroupOf,
    /// Also add dead letters that an earlier import added and that left the group since
    #[arg(long)]
    pub(crate) reimport: bool,
}

/// Show messages as they die.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  redstart dead watch orders billing
  redstart dead watch orders billing --type order.placed --json

With --json every line is as that of `list`. Ends with ctrl-c.")]
pub(crate) struct WatchArgs {
    #[command(flatten)]
    pub(crate) of: GroupOf,
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    /// Stop after N
    #[arg(help_heading = HOW, long, short = 'n', visible_alias = "limit", value_name = "N", value_parser = number::from_one::<usize>, allow_negative_numbers = true)]
    pub(crate) max: Option<usize>,
}

/// Show what operators did to groups and their dead letters.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  redstart dead journal
  redstart dead journal orders billing --json | tail -n 1

Without a group it shows the operations of all groups, of the topic if one is given. The journal of a
group keeps the newest hundred operations. One without a result is running or interrupted:
continue it with `redrive --resume`, a purge with `purge --resume`.

With --json every line is {\"operation\",\"action\",\"to\",\"operator\",\"note\",\"selection\",\"begun\",
\"until\",\"taken\",\"cursor\",\"result\"}; a `groups reset` also has \"resetTo\". Without a group every
line also has \"topic\" and \"group\".")]
pub(crate) struct JournalArgs {
    /// Show this topic only
    #[arg(add = ArgValueCompleter::new(complete::topics))]
    pub(crate) topic: Option<Topic>,
    /// Show this group only
    #[arg(add = ArgValueCompleter::new(complete::groups))]
    pub(crate) group: Option<Group>,
    /// Show the newest N
    #[arg(long, short = 'n', visible_alias = "limit", value_name = "N", default_value_t = 100, value_parser = number::from_one::<usize>, allow_negative_numbers = true)]
    pub(crate) max: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_limit_is_a_percentage() {
        assert_eq!(percent("10%"), Ok(0.1));
        assert_eq!(percent("0.5 %"), Ok(0.005));
        for bad in ["0.1", "10", "101%", "-1%", "NaN%", "%", ""] {
            assert!(percent(bad).is_err(), "{bad}");
        }
    }
}

/// Write a note on a cause, or remove it.
#[derive(Debug, ClapArgs)]
#[command(
    long_about = "\
Write a note on a cause, such as the number of a ticket, or remove it. `dead summary` shows it. A note
stays when the last dead letter of its cause leaves, because the cause may come back.",
    after_help = "\
Examples:
  redstart dead note orders billing --fingerprint 'connect #: refused' 'OPS-7: the bank is down'
  redstart dead note orders billing --fingerprint 'connect #: refused' --remove"
)]
pub(crate) struct NoteArgs {
    #[command(flatten)]
    pub(crate) of: GroupOf,
    /// The cause: the folded error, as `summary` shows it
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) fingerprint: String,
    /// The note, in place of an earlier one
    #[arg(
        required_unless_present = "remove",
        conflicts_with = "remove",
        value_name = "NOTE"
    )]
    pub(crate) text: Option<String>,
    /// Remove the note
    #[arg(long)]
    pub(crate) remove: bool,
    /// The operator's name [default: $USER or $LOGNAME, else `unknown`]
    #[arg(long, value_name = "NAME")]
    pub(crate) operator: Option<String>,
}
