//! For tests: of handlers, and of adapters. Behind feature `testing`.
//!
//! [`TestBus`] and [`DeliveryBuilder`] are for those who write handlers; the page
//! [Testing your handlers](crate::docs::testing) shows them at work. [`conformance`] and
//! [`forward_store!`](crate::forward_store) are for those who write adapters.

mod bus;
pub mod conformance;
mod delivery;
mod faults;
mod forward;
#[doc(hidden)]
pub mod hostile;
mod recorder;

pub use bus::TestBus;
#[doc(hidden)]
pub use bytes::Bytes;
pub use delivery::{Canceller, DeliveryBuilder, call};
pub use faults::{Faults, PublishFault};
#[doc(no_inline)]
pub use uuid::Uuid;
