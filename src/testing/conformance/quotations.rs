//! Each check is in the list, and each quotes what the ports promise.

use std::collections::BTreeSet;

const LIST: &str = include_str!("mod.rs");
const CHECKS: [(&str, &str); 32] = [
    ("publish", include_str!("publish.rs")),
    ("deduplication", include_str!("deduplication.rs")),
    ("durability", include_str!("durability.rs")),
    ("subscribe", include_str!("subscribe.rs")),
    ("groups", include_str!("groups.rs")),
    ("settle", include_str!("settle.rs")),
    ("leases", include_str!("leases.rs")),
    ("listing", include_str!("listing.rs")),
    ("attempts", include_str!("attempts.rs")),
    ("retries", include_str!("retries.rs")),
    ("schedules", include_str!("schedules.rs")),
    ("dead_letter_counts", include_str!("dead_letter_counts.rs")),
    ("dead_letters", include_str!("dead_letters.rs")),
    ("redrive", include_str!("redrive.rs")),
    ("operators", include_str!("operators.rs")),
    ("retention", include_str!("retention.rs")),
    ("ordering", include_str!("ordering.rs")),
    (
        "partitions",
        concat!(
            include_str!("partitions/keys.rs"),
            include_str!("partitions/deliveries.rs"),
            include_str!("partitions/later.rs"),
        ),
    ),
    (
        "owned",
        concat!(
            include_str!("owned/members.rs"),
            include_str!("owned/cursors.rs"),
            include_str!("owned/order.rs"),
            include_str!("owned/handovers.rs"),
            include_str!("owned/progress.rs"),
        ),
    ),
    ("owned_effects", include_str!("owned/effects.rs")),
    ("shutdown", include_str!("shutdown.rs")),
    ("payloads", include_str!("payloads.rs")),
    ("kv", include_str!("kv.rs")),
    ("once", include_str!("once.rs")),
    ("once_completion", include_str!("once_completion.rs")),
    ("cas", include_str!("cas.rs")),
    ("effects", include_str!("effects.rs")),
    ("commit_unknown", include_str!("commit_unknown.rs")),
    ("handler_effects", include_str!("handler_effects.rs")),
    ("capabilities", include_str!("capabilities.rs")),
    ("hold_back", include_str!("hold_back.rs")),
    ("health", include_str!("health.rs")),
];
const PORTS: [&str; 13] = [
    include_str!("../../store/mod.rs"),
    include_str!("../../store/topics.rs"),
    include_str!("../../store/log.rs"),
    include_str!("../../store/deliveries.rs"),
    include_str!("../../store/schedule.rs"),
    include_str!("../../store/dead_letters.rs"),
    include_str!("../../store/inspect.rs"),
    include_str!("../../api/kv.rs"),
    include_str!("../../store/commit.rs"),
    include_str!("../../store/values.rs"),
    include_str!("../../store/effects.rs"),
    include_str!("../../store/later.rs"),
    include_str!("../../store/owners.rs"),
];

/// The documentation in a text, in one line.
fn documentation(text: &str) -> String {
    let lines = text.lines().map(str::trim_start);
    let words: Vec<&str> = lines
        .filter_map(|line| line.strip_prefix("///"))
        .flat_map(str::split_whitespace)
        .collect();
    without_links(&words.join(" "))
}

/// A text without the targets of its links: the path to a target depends on the file.
fn without_links(text: &str) -> String {
    let mut parts = text.split("](");
    let mut plain = parts.next().unwrap().to_owned();
    for part in parts {
        plain.push(']');
        plain.push_str(part.split_once(')').unwrap().1);
    }
    plain
}

/// The quotations in the checks, one line each.
fn quotations() -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let mut open = false;
    for (_, text) in CHECKS {
        for line in text.lines() {
            let Some(quoted) = line.strip_prefix("/// > ") else {
                open = false;
                continue;
            };
            match all.last_mut().filter(|last| open && !last.ends_with('.')) {
                Some(last) => *last = format!("{last} {quoted}"),
                None => all.push(quoted.to_owned()),
            }
            open = true;
        }
    }
    all.iter().map(|one| without_links(one)).collect()
}

#[test]
fn every_check_is_in_the_list() {
    for (concern, text) in CHECKS {
        let head = "pub async fn ";
        let names = text.lines().filter_map(|line| line.strip_prefix(head));
        let defined: BTreeSet<&str> = names.filter_map(|line| line.split('<').next()).collect();
        let start = LIST.find(&format!("$factory, {concern}:"));
        let start = start
            .or_else(|| LIST.find(&format!("$factory, {concern} if ")))
            .unwrap();
        let list = &LIST[start..][..LIST[start..].find(");").unwrap()];
        let listed: BTreeSet<&str> = list
            .lines()
            .skip(1)
            .map(|line| line.trim().trim_end_matches(','))
            .filter(|line| !line.is_empty())
            .collect();
        assert_eq!(defined, listed, "{concern}");
        let all = LIST.split_once("conformance!($factory:\n").unwrap().1;
        let (all, _) = all.split_once(");").unwrap();
        let mut all = all.split(',').map(str::trim);
        assert!(all.any(|one| one == concern), "{concern}");
    }
}

#[test]
fn every_quotation_is_in_the_ports() {
    let ports = PORTS.map(documentation).join(" ");
    for quotation in quotations() {
        assert!(ports.contains(&quotation), "no port says: {quotation}");
    }
}

#[test]
fn every_promise_of_the_ports_is_quoted() {
    let quoted = quotations().join(" ");
    // Whole sentences, so that none exempts another: introductions, behaviour of other modules, and what a
    // store does on a connection that broke, which no check can bring about on every store.
    let others = [
        "The adapter's name: `redis`, `memory`.",
        "What the store offers in addition to the bus; the same at every call.",
        "Completes when the clock has been set forward since the call.",
        "Where time only passes by itself, as it does by default, never.",
        "Opens a reader on a set of sources.",
        "Where some primaries of a cluster do not answer or refuse, the facts about them say why; where all \
         do, the call fails.",
        "An error of a message is one of: certainly not appended, or [`OutcomeUnknown`].",
        "After an unknown one, later messages may have been appended too, and their outcomes say so.",
        "An error of the whole call is the outcome of every message.",
        "Errors are those of [`append`].",
        "An error of a message that is in the log and not as durable in time is an \
         [`OutcomeUnknown`], and its text says so.",
        "An error of the whole call means that the store did nothing, or that the outcome of every \
         commit is unknown.",
        "A connection that broke while a fetch was answered leaves deliveries of which the member does \
         not know.",
        "After any other error the reader cannot be used again, and the member may hold entries that it \
         never saw.",
        "# Cancel safety Not cancel safe: entries on their way are then held unseen.",
        "Use [`Interrupt`].",
        "# Cancel safety Cancel safe: it takes nothing.",
        "An error of the call means that the store wrote nothing, or, as [`OutcomeUnknown`], that the \
         caller repeats the same call under the same number until it is answered.",
    ];
    let mut unused: BTreeSet<&str> = others.into();
    let role = "\n    }\n";
    for (text, first, last) in [
        (PORTS[0], "pub trait Store", "    /// Topics and groups"),
        (PORTS[1], "pub trait Topics", role),
        (PORTS[2], "pub trait Log", role),
        (PORTS[3], "pub trait Deliveries", role),
        (PORTS[3], "pub trait Reader", "\n}"),
        (PORTS[3], "pub trait Interrupt", "\n}"),
        (PORTS[4], "pub trait Schedule", role),
        (PORTS[5], "pub trait DeadLetters", role),
        (PORTS[6], "pub trait Inspect", role),
        (PORTS[7], "pub trait KvStore:", "\n}"),
        (PORTS[10], "pub trait EffectStore", role),
        (PORTS[11], "pub trait Later", role),
        (PORTS[12], "pub trait Owners", role),
    ] {
        let start = text.find(first).unwrap();
        let body = &text[start..][..text[start..].find(last).unwrap()];
        for sentence in documentation(body).split_inclusive(". ") {
            let sentence = sentence.trim();
            let known = unused.remove(sentence) || others.contains(&sentence);
            assert!(
                known || quoted.contains(sentence),
                "nothing checks: {sentence}"
            );
        }
    }
    assert!(unused.is_empty(), "no port says: {unused:?}");
}
