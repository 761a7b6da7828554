//! For tests: of handlers, and of adapters. Behind feature `testing`.
//!
//! The page [Testing your handlers](crate::docs::testing) shows the parts for users at work.

pub mod conformance;
