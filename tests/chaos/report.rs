//! The reports of a run.

use std::path::Path;

use crate::exact::Figures as ExactFigures;
use crate::overload::{BACKLOG, Figures};
use crate::plan::{Fault, Plan};
use crate::power::Loss;
use crate::run::Outcome;
use crate::settings::Settings;

/// How many broken promises are shown.
const EXAMPLES: usize = 20;

pub(crate) fn begin(settings: &Settings, name: &str, plan: &Plan, journal: &Path) {
    if !settings.json {
        println!("chaos: {name}\n{plan}  history: {}", journal.display());
    }
}

/// Prints the verdict; returns whether every promise holds.
pub(crate) fn end(settings: &Settings, name: &str, outcome: &Outcome) -> bool {
    let verdict = &outcome.verdict;
    if settings.json {
        let line = serde_json::json!({
            "name": name,
            "holds": verdict.holds(),
            "seconds": outcome.took.as_secs_f64(),
            "connections": outcome.connections,
            "serverMemoryKiB": outcome.server_memory,
            "workerMemoryKiB": outcome.worker_memory,
            "counts": verdict.counts,
            "violations": verdict.violations,
        });
        println!("{line}");
        return verdict.holds();
    }
    let counts = serde_json::to_value(&verdict.counts).unwrap();
    let counts = counts.as_object().into_iter().flatten();
    let counts: Vec<String> = counts
        .map(|(what, count)| format!("{what} {count}"))
        .collect();
    println!("  {}", counts.join(", ").replace('_', " "));
    println!(
        "  {:.1} s, {} connections, memory in KiB: server {} → {}, workers {} → {}",
        outcome.took.as_secs_f64(),
        outcome.connections,
        outcome.server_memory.0,
        outcome.server_memory.1,
        outcome.worker_memory.0,
        outcome.worker_memory.1,
    );
    for broken in verdict.violations.iter().take(EXAMPLES) {
        println!("  BROKEN: {}: {}", broken.promise, broken.what);
    }
    match verdict.violations.len() {
        0 => println!("  every promise holds"),
        broken => println!("  {broken} times broken: {:?}", verdict.broken()),
    }
    verdict.holds()
}

/// How often a fault must be in a plan before a run without its effect fails: one may begin while
/// nothing is to be done.
const OFTEN: usize = 3;

/// Whether the faults that wait for a certain request or message have met one.
pub(crate) fn effects(plan: &Plan, outcome: &Outcome) -> bool {
    let counts = &outcome.verdict.counts;
    let effects = [
        (Fault::ClientClock, counts.wrong_clocks),
        (Fault::LostClaims, counts.claims_lost),
        (Fault::Poison, counts.aborted),
        (Fault::FullAtRetry, counts.full_at_retry),
        (Fault::Restart, counts.given_back),
    ];
    let without = effects
        .into_iter()
        .filter(|(fault, effect)| *effect == 0 && plan.count(*fault) >= OFTEN)
        .inspect(|(fault, _)| eprintln!("  {fault:?} had no effect"));
    without.count() == 0
}

/// Prints the losses of power cuts; returns whether there are none.
pub(crate) fn power(settings: &Settings, loss: &Loss) -> bool {
    if settings.json {
        println!("{}", serde_json::json!({ "name": "power", "loss": loss }));
    } else {
        println!(
            "chaos: power, {} cuts, appendfsync {}, level {}\n  published {} in {:.1} s, lost {}, unknown {}, of them there {}, invented {}",
            loss.cuts,
            loss.fsync,
            loss.level,
            loss.published,
            loss.seconds,
            loss.lost,
            loss.unknown,
            loss.unknown_there,
            loss.invented,
        );
    }
    loss.lost + loss.invented == 0
}

/// Prints the figures of an overload; returns whether nothing was lost.
pub(crate) fn overload(settings: &Settings, name: &str, figures: &Figures) -> bool {
    let line = serde_json::json!({ "name": name, "figures": figures });
    if settings.json {
        println!("{line}");
    } else {
        println!("chaos: {name}\n  {}", line["figures"]);
    }
    figures.lost + figures.invented == 0 && figures.most_backlog <= BACKLOG
}

/// Prints the figures of the pipeline; returns whether they are exact.
pub(crate) fn exact(settings: &Settings, name: &str, figures: &ExactFigures) -> bool {
    let line = serde_json::json!({ "name": name, "figures": figures });
    if settings.json {
        println!("{line}");
    } else {
        println!("chaos: {name}\n  {}", line["figures"]);
    }
    figures.broken.is_empty()
}

/// Whether two runs of the pipeline have left the same.
pub(crate) fn equal(one: &ExactFigures, other: &ExactFigures) -> bool {
    let equal = one.stages == other.stages;
    if !equal {
        eprintln!("  BROKEN: exact: what the stages have left differs from the run without faults");
    }
    equal
}

/// Whether faults repeat work in a pipeline without effects; otherwise the run shows nothing.
pub(crate) fn repeats(figures: &ExactFigures) -> bool {
    if figures.again == 0 {
        eprintln!("  the faults repeat nothing without effects");
    }
    figures.again > 0
}
