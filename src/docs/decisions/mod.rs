//! Why Redstart is built as it is: one record for each decision that someone might want to reverse.
//!
//! A record states the context, the decision, what was rejected and why, and the consequences. It
//! is not rewritten when a decision changes: a later record replaces it and says so.
//!
//! | Record | Decides |
//! |---|---|
//! | [0001](own_resp_reader) | subscriptions read replies with a reader of their own |
//! | [0002](heads_and_bodies) | a dead letter is stored as a head and a body |
//! | [0003](two_phase_counts) | counts of dead letters are written in two phases |
//! | [0004](crash_counting) | replaced by 0012: a crash is counted by the consumer that finds it |
//! | [0005](one_commit) | a delivery ends by one commit |
//! | [0006](store_roles) | the store port consists of roles, with one decorator for all |
//! | [0007](routing_keys) | every call names the key that routes it |
//! | [0008](no_derive) | no derive macro; `Bus` and `Kv` are concrete types |
//! | [0009](retention_by_floor) | retention trims below a floor and never deletes single entries |
//! | [0010](retries_per_group) | a retry returns to its group through a stream of the group's own |
//! | [0011](unknown_outcomes) | an unknown outcome is an error kind of its own |
//! | [0012](begun_attempts) | an attempt is a begun handler; claims count nothing |
//! | [0013](middleware) | middleware is functions around one delivery |
//! | [0014](effects_as_a_value) | effects are a value that a handler returns, and the worker waits for their commit |
//! | [0015](hold_back) | a failed message that is tried again soon stays with its consumer |
//! | [0016](native_commands) | commands of newer servers are asked for, and off by default |

#[doc = include_str!("0001-own-resp-reader.md")]
pub mod own_resp_reader {}

#[doc = include_str!("0002-dead-letters-as-heads-and-bodies.md")]
pub mod heads_and_bodies {}

#[doc = include_str!("0003-two-phase-counts.md")]
pub mod two_phase_counts {}

#[doc = include_str!("0004-crash-counting.md")]
pub mod crash_counting {}

#[doc = include_str!("0005-one-commit-per-delivery.md")]
pub mod one_commit {}

#[doc = include_str!("0006-store-roles-and-one-decorator.md")]
pub mod store_roles {}

#[doc = include_str!("0007-routing-key-on-every-call.md")]
pub mod routing_keys {}

#[doc = include_str!("0008-no-derive-concrete-bus-and-kv.md")]
pub mod no_derive {}

#[doc = include_str!("0009-retention-by-floor.md")]
pub mod retention_by_floor {}

#[doc = include_str!("0010-retries-per-group.md")]
pub mod retries_per_group {}

#[doc = include_str!("0011-unknown-outcomes.md")]
pub mod unknown_outcomes {}

#[doc = include_str!("0012-begun-attempts.md")]
pub mod begun_attempts {}

#[doc = include_str!("0013-middleware.md")]
pub mod middleware {}

#[doc = include_str!("0014-effects-as-a-value.md")]
pub mod effects_as_a_value {}

#[doc = include_str!("0015-hold-back.md")]
pub mod hold_back {}

#[doc = include_str!("0016-native-commands.md")]
pub mod native_commands {}
