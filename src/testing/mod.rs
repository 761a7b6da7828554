//! For tests: of handlers, and of adapters. Behind feature `testing`.
//!
//! [`TestBus`] and [`DeliveryBuilder`] are for those who write handlers; the page
//! [Testing your handlers](crate::docs::testing) shows them at work. [`conformance`] and
//! [`forward_backend!`](crate::forward_backend) are for those who write adapters.

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
pub use delivery::{Canceller, DeliveryBuilder, handle};
pub use faults::{Fate, Faults};
#[doc(no_inline)]
pub use uuid::Uuid;
