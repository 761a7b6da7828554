//! The runner's arguments.

use std::path::PathBuf;
use std::time::Duration;

use redstart::Durability;

use crate::grounds::Place;

const HELP: &str = "\
tests/chaos/run [--ground GROUND] [--minutes M] [--seed S] [--rate R] [--every SECONDS]
                [--partitions N] [--owned] [--messages N] [--level LEVEL] [--overload SECONDS]
                [--history FOLDER] [--json] [NAME]

Without --minutes, the short runs of the suite, or those whose name contains NAME.
  --ground GROUND    what the workers use: one `server` (the default), a `cluster` of three primaries
                     with a replica each, or a primary with a replica behind `sentinel`s
  --minutes M        one run with faults for so long
  --seed S           the seed of its plan; random where none is given
  --rate R           messages a second (300)
  --every SECONDS    about how often something goes wrong, to a worker and to the ground each (20)
  --partitions N     how many partitions each topic has, but for those of the pipeline (1)
  --owned            one of the groups owns the partitions of its topic, and handles each key in order
  --messages N       how many messages `power` publishes over its three cuts (6000); with more, also
                     under appendfsync everysec and no. How many messages `exact` sends through its
                     pipeline (400); where given, also without faults, and a tenth of them without
                     effects
  --level LEVEL      the level of durability of `power` (accepted); with `fsynced`, which needs Redis
                     7.2 or Valkey in the PATH, also under appendfsync everysec
  --overload SECONDS how long each overload lasts (3)
  --history FOLDER   where histories are kept (a temporary folder)
  --json             the verdict as one line of JSON

REDSTART_NATIVE switches native commands on, for servers that have them.";

#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) place: Place,
    pub(crate) minutes: Option<f64>,
    pub(crate) seed: Option<u64>,
    pub(crate) rate: u32,
    pub(crate) every: Duration,
    /// Of each topic, but for those of the pipeline.
    pub(crate) partitions: u16,
    /// Whether one of the groups owns partitions.
    pub(crate) owned: bool,
    /// Messages over power cuts, and through the pipeline.
    pub(crate) messages: Option<u64>,
    /// The level of durability of publishes over power cuts.
    pub(crate) level: Durability,
    /// How long each overload lasts.
    pub(crate) overload: Duration,
    pub(crate) json: bool,
    folder: PathBuf,
    only: Option<String>,
}

impl Settings {
    /// Ignores the arguments of the test harness: `cargo test` passes the same arguments to every
    /// program.
    pub(crate) fn from_arguments(mut arguments: impl Iterator<Item = String>) -> Self {
        let mut settings = Self {
            place: Place::Server,
            minutes: None,
            seed: None,
            rate: 300,
            every: Duration::from_secs(20),
            partitions: 1,
            owned: false,
            messages: None,
            level: Durability::Accepted,
            overload: Duration::from_secs(3),
            json: false,
            folder: std::env::temp_dir().join("redstart-chaos"),
            only: None,
        };
        while let Some(argument) = arguments.next() {
            let mut value = || {
                arguments
                    .next()
                    .unwrap_or_else(|| wrong(&format!("{argument} needs a value")))
            };
            match &*argument {
                "--level" => settings.level = level(&value()),
                "--ground" => settings.place = place(&value()),
                "--minutes" => settings.minutes = Some(number(&value())),
                "--seed" => settings.seed = Some(number(&value())),
                "--rate" => settings.rate = number(&value()),
                "--every" => settings.every = Duration::from_secs_f64(number(&value())),
                "--history" => settings.folder = value().into(),
                "--partitions" => settings.partitions = number(&value()),
                "--owned" => settings.owned = true,
                "--messages" => settings.messages = Some(number(&value())),
                "--overload" => settings.overload = Duration::from_secs_f64(number(&value())),
                "--json" => settings.json = true,
                "--help" => {
                    println!("{HELP}");
                    std::process::exit(0);
                }
                other if other.starts_with('-') => {}
                other => settings.only = Some(other.to_owned()),
            }
        }
        std::fs::create_dir_all(&settings.folder).unwrap();
        settings
    }

    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.contains(&**only))
    }

    /// A fresh file for the history of a run.
    pub(crate) fn journal(&self, name: &str) -> PathBuf {
        let name = name.replace(|c: char| !c.is_alphanumeric(), "-");
        let process = std::process::id();
        self.folder.join(format!("{name}-{process}.jsonl"))
    }
}

fn place(name: &str) -> Place {
    match name {
        "server" => Place::Server,
        "cluster" => Place::Cluster,
        "sentinel" => Place::Sentinel,
        _ => wrong(&format!("{name} is not a ground")),
    }
}

fn level(text: &str) -> Durability {
    text.parse()
        .unwrap_or_else(|_| wrong(&format!("{text} is not a level of durability")))
}

fn number<T: std::str::FromStr>(text: &str) -> T {
    text.parse()
        .unwrap_or_else(|_| wrong(&format!("{text} is not a number")))
}

fn wrong(what: &str) -> ! {
    eprintln!("{what}\n\n{HELP}");
    std::process::exit(2);
}
