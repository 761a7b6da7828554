//! Settling: acknowledgements, retries and dead letters on their way to the store.

use crate::mutant::{Mutant, Target};

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "settle-several-of-anyone",
        file: "lua/lib/holders.lua",
        before: ", 2 * #ids, consumer)",
        after: ", 2 * #ids)",
        breaks: "In a call of several deliveries only the holder of each settles it.",
        target: Target::Test("conformance"),
        test: "redis::settle::a_large_stale_settlement_is_rejected",
        quick: false,
    },
    Mutant {
        name: "settle-one-of-anyone",
        file: "lua/settle.lua",
        before: "if holder ~= 1 and not (only_copy and holder == -1) then",
        after: "if holder == nil then",
        breaks: "Only the holder of a delivery settles it.",
        target: Target::Test("conformance"),
        test: "redis::settle::a_stale_settlement_is_rejected",
        quick: false,
    },
    Mutant {
        name: "settle-twice-in-one-call",
        file: "lua/settle.lua",
        before: "held_by[lane][id] = nil",
        after: "held_by[lane][id] = 1",
        breaks: "A delivery ends once, however often a call names it.",
        target: Target::Test("conformance"),
        test: "redis::settle::a_second_settlement_writes_nothing",
        quick: false,
    },
    Mutant {
        name: "settle-in-memory-of-anyone",
        file: "src/adapters/memory/sequence.rs",
        before: "Some(pending) if pending.consumer == *consumer =>",
        after: "Some(pending) if !pending.consumer.as_str().is_empty() =>",
        breaks: "Only the holder of a delivery settles it, also in memory.",
        target: Target::Test("conformance"),
        test: "memory::settle::a_stale_settlement_is_rejected",
        quick: false,
    },
    Mutant {
        name: "acknowledgements-not-repeated",
        file: "src/worker/settle.rs",
        before: "self.pause(&error, failures).await;",
        after: r#"self.pause(&error, failures).await;
                    if batch.fenced().is_empty() {
                        return (Vec::new(), failures);
                    }"#,
        breaks: "The settler repeats acknowledgements until the store answers.",
        target: Target::Lib,
        test: "worker::settle::tests::an_acknowledgement_is_repeated_until_the_store_answers",
        quick: false,
    },
    Mutant {
        name: "writes-not-repeated",
        file: "src/worker/settle.rs",
        before: "self.pause(&error, failures).await;",
        after: r#"self.pause(&error, failures).await;
                    if !batch.fenced().is_empty() {
                        return (Vec::new(), failures);
                    }"#,
        breaks: "The settler repeats writes until the store answers.",
        target: Target::Lib,
        test: "worker::settle::tests::a_write_is_repeated_until_the_store_answers",
        quick: false,
    },
    Mutant {
        name: "unanswered-acknowledgements-count-as-answered",
        file: "src/store/commit.rs",
        before: "self.acks?;",
        after: "let _ = self.acks;",
        breaks: "A batch is answered only when its acknowledgements are.",
        target: Target::Lib,
        test: "store::commit::tests::replies_are_answered_only_when_every_commit_is",
        quick: true,
    },
    Mutant {
        name: "write-of-a-replaced-hand-out",
        file: "src/worker/settle.rs",
        before: ".retain_current(&mut batch.received, Write::hand_out);",
        after: ".retain_current(&mut Vec::new(), Write::hand_out);",
        breaks: "The settler drops the write of a hand-out that is not the current one.",
        target: Target::Lib,
        test: "worker::settle::tests::a_settlement_of_an_earlier_hand_out_is_dropped",
        quick: false,
    },
    Mutant {
        name: "acknowledgement-of-a-replaced-hand-out",
        file: "src/worker/settle.rs",
        before: "self.in_flight.retain_not_replaced(&mut batch.received);",
        after: "",
        breaks: "The settler drops the acknowledgement of an entry that was handed out again.",
        target: Target::Lib,
        test: "worker::settle::tests::a_settlement_of_an_earlier_hand_out_is_dropped",
        quick: false,
    },
    Mutant {
        name: "token-not-compared",
        file: "src/worker/intake/in_flight.rs",
        before: "lease.filter(|lease| lease.token() == hand_out.token)",
        after: "lease",
        breaks: "The token of a hand-out tells it from an earlier one of the entry.",
        target: Target::Lib,
        test: "worker::intake::in_flight::tests::an_earlier_hand_out_of_an_entry_changes_nothing_about_the_current_one",
        quick: true,
    },
];
