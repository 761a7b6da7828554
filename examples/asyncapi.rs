//! Shows the AsyncAPI document of a service: one message that it handles and one that it publishes, with
//! their JSON Schemas.
//!
//! Output:
//!
//! ```text
//! {
//!   "asyncapi": "3.1.0",
//!   "channels": {
//!     "invoices": {
//!       "address": "invoices",
//!       "messages": {
//!         "invoice.written": {
//!           "name": "invoice.written",
//!           "payload": {
//!             "$ref": "#/components/schemas/Invoice"
//!           }
//!         }
//!       }
//!     },
//!     "orders": {
//!       "address": "orders",
//!       "messages": {
//!         "order.placed": {
//!           "name": "order.placed",
//!           "payload": {
//!             "$ref": "#/components/schemas/Placed"
//!           }
//!         }
//!       }
//!     }
//!   },
//!   "components": {
//!     "schemas": {
//!       "Invoice": {
//!         "properties": {
//!           "order": {
//!             "format": "uint32",
//!             "minimum": 0,
//!             "type": "integer"
//!           }
//!         },
//!         "required": [
//!           "order"
//!         ],
//!         "type": "object"
//!       },
//!       "Placed": {
//!         "description": "A customer has placed an order.",
//!         "properties": {
//!           "cents": {
//!             "description": "The price.",
//!             "format": "uint64",
//!             "minimum": 0,
//!             "type": "integer"
//!           },
//!           "id": {
//!             "format": "uint32",
//!             "minimum": 0,
//!             "type": "integer"
//!           }
//!         },
//!         "required": [
//!           "id",
//!           "cents"
//!         ],
//!         "type": "object"
//!       }
//!     }
//!   },
//!   "defaultContentType": "application/msgpack",
//!   "info": {
//!     "title": "billing",
//!     "version": "1.4.0"
//!   },
//!   "operations": {
//!     "receive-orders": {
//!       "action": "receive",
//!       "channel": {
//!         "$ref": "#/channels/orders"
//!       },
//!       "messages": [
//!         {
//!           "$ref": "#/channels/orders/messages/order.placed"
//!         }
//!       ]
//!     },
//!     "send-invoices": {
//!       "action": "send",
//!       "channel": {
//!         "$ref": "#/channels/invoices"
//!       },
//!       "messages": [
//!         {
//!           "$ref": "#/channels/invoices/messages/invoice.written"
//!         }
//!       ]
//!     }
//!   }
//! }
//! ```

use redstart::asyncapi::AsyncApi;
use redstart::{Error, Message, Router, Topic};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const ORDERS: Topic = Topic::from_static("orders");
const INVOICES: Topic = Topic::from_static("invoices");

/// A customer has placed an order.
#[derive(Deserialize, JsonSchema)]
struct Placed {
    id: u32,
    /// The price.
    cents: u64,
}

impl Message for Placed {
    const TYPE: &'static str = "order.placed";
}

#[derive(Serialize, JsonSchema)]
struct Invoice {
    order: u32,
}

impl Message for Invoice {
    const TYPE: &'static str = "invoice.written";
}

async fn bill(order: Placed) {
    println!("order {}: {} cents", order.id, order.cents);
}

/// The router of the service: `main` subscribes it, and the document describes it.
fn orders() -> Router {
    Router::new().on(bill).describe::<Placed>()
}

fn main() -> Result<(), Error> {
    let api = AsyncApi::new("billing", "1.4.0")
        .receives(&ORDERS, &orders())
        .sends::<Invoice>(&INVOICES)
        .describe::<Invoice>(&INVOICES);
    // A test of the service can require a schema for each message.
    assert!(api.undescribed().is_empty());
    println!("{:#}", api.document()?);
    Ok(())
}
