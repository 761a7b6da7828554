//! For tests: of handlers, and of adapters. Behind feature `testing`.
//!
//! [`TestBus`] and [`DeliveryBuilder`] are for those who write handlers; the page
//! [Testing your handlers](crate::docs::testing) shows them at work. [`conformance`] is for those
//! who write adapters.

mod assertions;
mod bus;
pub mod conformance;
mod delivery;
mod faults;
#[doc(hidden)]
pub mod hostile;
mod recorder;

pub use assertions::{DeadLetterList, Handled, Handling, PublishedMessages};
pub use bus::TestBus;
pub use delivery::{Canceller, DeliveryBuilder, call};
pub use faults::{Faults, PublishFault};
