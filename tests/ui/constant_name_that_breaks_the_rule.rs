//! A constant topic with a space in its name.
//!
//! error: the name of a topic must match [A-Za-z0-9_.:-]{1,200}

use redstart::Topic;

pub const ORDERS: Topic = Topic::from_static("new orders");
