//! The command line of `dead`.

mod selection;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use redstart::{Group, Topic, envelope::EntryId};
use uuid::Uuid;

use super::GroupOf;
use crate::duration;

use selection::FilterArgs;
pub(crate) use selection::SelectionArgs;

/// Look after dead letters: messages that a group has failed for good.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  redstart dead summary
  redstart dead list orders billing --reason exhausted --since 2h
  redstart dead redrive orders billing --fingerprint 'connect #: refused' --dry-run
  redstart dlq watch orders billing

The guide \"Operating dead letters\" of the documentation goes through all of it.")]
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
}

impl DeadAction {
    /// Whether nobody waits for an answer: services on the same machine go first.
    pub(crate) fn is_bulk_work(&self) -> bool {
        match self {
            Self::Redrive(_) | Self::Purge(_) | Self::Export(_) | Self::Import(_) => true,
            Self::Summary(_)
            | Self::List(_)
            | Self::Show(_)
            | Self::Edit(_)
            | Self::Watch(_)
            | Self::Journal(_) => false,
        }
    }
}

/// Count dead letters by what they died of.
#[derive(Debug, ClapArgs)]
#[command(
    long_about = "\
Count dead letters by what they died of: equal reason, equal error once numbers, ids, addresses and
quoted texts are folded. Counts are kept as dead letters come and go, so that this costs the same
for a hundred and for a million.",
    after_help = "\
Examples:
  redstart dead summary
  redstart dead summary orders billing --by hour
  redstart dead summary --json | jq -r 'max_by(.count).fingerprint'

With --json: one array of {\"topic\",\"group\",\"reason\",\"fingerprint\",\"count\",\"first\",\"last\",\"sample\"};
first and last are times, sample is the id of a dead letter of this cause or null. With --by it is one
array of {\"topic\",\"group\",\"name\",\"count\"}."
)]
pub(crate) struct SummaryArgs {
    /// Only this topic
    pub(crate) topic: Option<Topic>,
    /// Only this group
    pub(crate) group: Option<Group>,
    /// What to count by
    #[arg(long, value_enum, default_value_t = By::Cause)]
    pub(crate) by: By,
    /// At most N of each group
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) max: usize,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum By {
    /// Reason and folded error
    Cause,
    /// The envelope's type
    Type,
    /// The envelope's tenant
    Tenant,
    /// The hour of the death
    Hour,
}

/// List dead letters, the oldest first.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  redstart dead list orders billing
  redstart dead list orders billing --error 'connection refused' --tenant acme
  redstart dead list orders billing --max 1000000 --json | jq -r .message

With --json every line is {\"id\",\"died\",\"reason\",\"error\",\"fingerprint\",\"type\",\"tenant\",\"corr_id\",
\"message\",\"attempts\",\"redriven\",\"redriven_by\"}.")]
pub(crate) struct DeadListArgs {
    #[command(flatten)]
    pub(crate) of: GroupOf,
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    /// Begin after this one
    #[arg(long, value_name = "ID")]
    pub(crate) after: Option<EntryId>,
    /// Stop after N
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub(crate) max: usize,
}

/// Show one dead letter in full.
#[derive(Debug, ClapArgs)]
#[command(
    long_about = "\
Show one dead letter in full: why and when it died, what came before, its headers, and its payload
as JSON whatever its codec. One that cannot be decoded is shown in hexadecimal.",
    after_help = "\
Examples:
  redstart dead show orders billing 1762957200123-0
  redstart dead show orders billing 1762957200123-0 --json | jq .payload

With --json it is one object, as `export` writes it."
)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    pub(crate) of: GroupOf,
    /// Its id
    pub(crate) id: EntryId,
    /// All of what cannot be decoded, not only its first kibibyte
    #[arg(long)]
    pub(crate) full: bool,
}

/// Bring dead letters back to the group that failed them.
#[derive(Debug, ClapArgs)]
#[command(
    long_about = "\
Bring dead letters back to the group that failed them, and to no other group; their attempts begin
anew. What dies after the command has begun is not part of it, so that nothing goes round in
circles. Each one is moved and counted in one step: two operators at once neither lose nor double
one, and what was cut off is gone on with by --resume. The journal keeps who did what.

Those that cannot be decoded would only die again and stay, unless they are named by their id or
by --reason undecodable.",
    after_help = "\
Examples:
  redstart dead redrive orders billing --all --dry-run
  redstart dead redrive orders billing --type order.placed --since 2h --rate 500 --ramp 30s
  redstart dead redrive orders billing --all --rate 100 --stop-share 0.1
  redstart dead redrive orders billing 1762957200123-0
  redstart dead redrive orders billing --resume 0190163d-8694-739b-aea5-966c26f8ad90

With --json the last line is {\"operation\",\"ended\",\"taken\",\"left\",\"missing\",\"died_again\"}; with
--dry-run {\"matching\",\"left\":{\"not_matching\",\"undecodable\"},\"missing\",\"oldest\",\"newest\"}.

Exit codes: 0 done, 1 it failed, or stopped because too many died again, or one that was named is
not there, 2 wrong usage, 130 interrupted."
)]
pub(crate) struct RedriveArgs {
    #[command(flatten)]
    pub(crate) of: GroupOf,
    #[command(flatten)]
    pub(crate) which: SelectionArgs,
    /// Go on with this operation, which was cut off, with what it was begun with; not with a purge
    #[arg(long, value_name = "OPERATION", conflicts_with_all = ["selection", "FilterArgs", "PaceArgs", "stop_share", "dry_run", "to"])]
    pub(crate) resume: Option<Uuid>,
    /// To this topic, and so to all its groups, instead of the group that failed them
    #[arg(long, value_name = "TOPIC")]
    pub(crate) to: Option<Topic>,
    /// Stop when more than this share of them dies again, such as 0.1; needs --rate
    #[arg(long, value_name = "SHARE", requires = "rate")]
    pub(crate) stop_share: Option<f64>,
    #[command(flatten)]
    pub(crate) pace: PaceArgs,
    /// Only say what would be moved, and what not and why
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct PaceArgs {
    /// At most so many a second [default: as many as the server can]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rate: Option<u32>,
    /// Begin with a tenth of the rate and reach it after this time
    #[arg(long, value_name = "TIME", default_value = "0s", requires = "rate", value_parser = duration::parse)]
    pub(crate) ramp: Duration,
    /// Who does it, for the journal [default: $USER or $LOGNAME, else `unknown`]
    #[arg(long, value_name = "NAME")]
    pub(crate) by: Option<String>,
}

/// Edit a dead letter and bring it back as a new message.
#[derive(Debug, ClapArgs)]
#[command(
    long_about = "\
Edit a dead letter and bring it back as a new message: with a new id, and a header that names the
old one. Opens the envelope as JSON in $VISUAL or $EDITOR; --patch and --file do without.

Off unless REDSTART_DEAD_LETTER_EDITING is `true`: what a message says is then no longer what its
publisher said. All of it goes through JSON: of numbers 64 bits are kept, of equal keys the last, and
MessagePack's binaries become arrays, its other keys texts. Fails where somebody has taken the dead
letter out meanwhile.",
    after_help = "\
Examples:
  redstart dead edit orders billing 1762957200123-0
  echo '{\"payload\":{\"cents\":1250}}' | redstart dead edit orders billing 1762957200123-0 --patch -

A patch is a JSON merge patch (RFC 7396) of the envelope as it is on the wire, or, where it is an
array, a JSON patch (RFC 6902). With --json: {\"message\"}, the new id.

Exit codes: 0 brought back, 1 it was not, or nothing was changed, 2 wrong usage, or what was given
is no JSON, no patch or no envelope."
)]
pub(crate) struct EditArgs {
    #[command(flatten)]
    pub(crate) of: GroupOf,
    /// Its id
    pub(crate) id: EntryId,
    /// Apply this patch; `-` is the standard input
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    pub(crate) patch: Option<PathBuf>,
    /// Take this envelope; `-` is the standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Who does it, for the journal [default: $USER or $LOGNAME, else `unknown`]
    #[arg(long, value_name = "NAME")]
    pub(crate) by: Option<String>,
}

/// Remove dead letters for good.
#[derive(Debug, ClapArgs)]
#[command(
    long_about = "\
Remove dead letters for good. Says how many, and asks for the count to be typed. What dies after
that is not part of it. --export keeps them in a file first. What was cut off is gone on with by
--resume.",
    after_help = "\
Examples:
  redstart dead purge orders billing --reason undecodable --dry-run
  redstart dead purge orders billing --until 30d --export old.ndjson
  redstart dead purge orders billing --all --yes
  redstart dead purge orders billing --resume 0190163d-8694-739b-aea5-966c26f8ad90

With --json the last line is {\"operation\",\"ended\",\"taken\",\"left\",\"missing\",\"died_again\"}; with
--dry-run {\"matching\",\"left\",\"missing\",\"oldest\",\"newest\"}.

Exit codes: 0 done, 1 it failed, something else was typed, or one that was named is not there, 2
wrong usage, or there is no terminal to ask on, 130 interrupted."
)]
pub(crate) struct PurgeArgs {
    #[command(flatten)]
    pub(crate) of: GroupOf,
    #[command(flatten)]
    pub(crate) which: SelectionArgs,
    /// Go on with this purge, which was cut off, with what it was begun with
    #[arg(long, value_name = "OPERATION", conflicts_with_all = ["selection", "FilterArgs", "PaceArgs", "dry_run", "export"])]
    pub(crate) resume: Option<Uuid>,
    /// Write them to a new file first
    #[arg(long, value_name = "FILE")]
    pub(crate) export: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) pace: PaceArgs,
    /// Only say how many would be removed
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    pub(crate) yes: bool,
}

/// Write dead letters as lines of JSON.
#[derive(Debug, ClapArgs)]
#[command(
    long_about = "\
Write dead letters as lines of JSON, without a byte lost, whatever their codec and also where they
cannot be decoded. `import` reads them.",
    after_help = "\
Examples:
  redstart dead export orders billing > billing.ndjson
  redstart dead export orders billing --tenant acme --out acme.ndjson

What dies meanwhile is not part of it. A file that is there already is never written over.

Exit codes: 0 all were written, 1 they were not, 2 wrong usage, 130 interrupted."
)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    pub(crate) of: GroupOf,
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    /// Write to a new file [default: the standard output]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

/// Put exported dead letters into a group.
#[derive(Debug, ClapArgs)]
#[command(
    long_about = "\
Put exported dead letters into a group, from the standard input, as its newest. Each is put in once,
however often it is imported, also after it was redriven or purged; --again puts those in once more.",
    after_help = "\
Examples:
  redstart dead import orders billing < billing.ndjson

With --json: {\"imported\",\"known\",\"failed\"}, all counts.

Exit codes: 0 all are there, 1 a line could not be read, 2 wrong usage, 130 interrupted."
)]
pub(crate) struct ImportArgs {
    #[command(flatten)]
    pub(crate) of: GroupOf,
    /// Also those that were imported before and taken out since
    #[arg(long)]
    pub(crate) again: bool,
}

/// Show what dies from now on.
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
    #[arg(long, value_name = "N")]
    pub(crate) max: Option<usize>,
}

/// Show what operators did to a group's dead letters.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
The newest hundred operations are kept. One without a result is running, or was cut off:
`redrive --resume` goes on with it, with a purge `purge --resume`.

With --json every line is {\"operation\",\"begun\",\"action\",\"to\",\"by\",\"selection\",\"taken\",\"result\"}.")]
pub(crate) struct JournalArgs {
    #[command(flatten)]
    pub(crate) of: GroupOf,
}
