//! Shutting down: what a stop and its deadline mean.

use crate::mutant::{Mutant, Target};

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "begins-after-a-stop",
        file: "src/worker/handle/pipeline.rs",
        before: "core.stop.is_cancelled()",
        after: "false",
        breaks: "Nothing begins after a stop.",
        target: Target::Lib,
        test: "worker::handle::pipeline::tests::nothing_begins_after_a_stop",
        quick: true,
    },
    Mutant {
        name: "part-begins-after-a-stop",
        file: "src/worker/handle/batch.rs",
        before: r#"// An earlier part may have taken long.
    if core.stop.is_cancelled() {"#,
        after: "if false {",
        breaks: "No further part of a batch begins after a stop.",
        target: Target::Lib,
        test: "worker::handle::batch::tests::no_further_part_of_a_batch_begins_after_a_stop",
        quick: false,
    },
    Mutant {
        name: "marked-begins-after-a-stop",
        file: "src/worker/handle/begin.rs",
        before: "!begins.is_empty() && core.stop.is_cancelled()",
        after: "false",
        breaks: "Nothing begins whose attempt was marked while the subscription stopped.",
        target: Target::Lib,
        test: "worker::handle::begin::tests::nothing_begins_whose_attempt_was_marked_during_a_stop",
        quick: true,
    },
    Mutant {
        name: "claims-after-a-stop",
        file: "src/worker/intake/reclaim.rs",
        before: r#"if core.stop.is_cancelled() {
        return Ok(Next::Done);
    }"#,
        after: "",
        breaks: "Nothing is claimed after a stop.",
        target: Target::Lib,
        test: "worker::intake::reclaim::tests::nothing_is_claimed_after_a_stop",
        quick: true,
    },
    Mutant {
        name: "deadline-cancels-nothing",
        file: "src/worker/shutdown.rs",
        before: "core.in_flight.cancel_all();",
        after: "",
        breaks: "The deadline of a shutdown cancels the running handlers.",
        target: Target::Lib,
        test: "worker::shutdown::tests::the_deadline_cancels_handlers_and_their_messages_are_given_back",
        quick: true,
    },
    Mutant {
        name: "gives-back-what-is-finished",
        file: "src/worker/shutdown.rs",
        before: ".filter(|id| track.has(*id) && !core.in_flight.is_finished(*id));",
        after: ".filter(|id| track.has(*id));",
        breaks: "A shutdown gives nothing back whose end is decided.",
        target: Target::Lib,
        test: "worker::shutdown::tests::a_shutdown_gives_back_what_no_handler_has_finished",
        quick: false,
    },
    Mutant {
        name: "gives-nothing-back",
        file: "src/worker/shutdown.rs",
        before: "core.release(unfinished).await?",
        after: "core.release(unfinished.take(0)).await?",
        breaks: "A shutdown gives back what no handler has finished.",
        target: Target::Lib,
        test: "worker::shutdown::tests::a_shutdown_gives_back_what_no_handler_has_finished",
        quick: true,
    },
    Mutant {
        name: "keeper-outlives-the-release",
        file: "src/worker/shutdown.rs",
        before: "!all_ended(&mut tasks.services, half).await",
        after: "false && !all_ended(&mut tasks.services, half).await",
        breaks: "The lease keeper ends before a shutdown gives deliveries back.",
        target: Target::Lib,
        test: "worker::shutdown::tests::no_extension_comes_after_the_release",
        quick: true,
    },
];
