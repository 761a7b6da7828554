//! Messages, handlers and routers on the store in memory: no server is needed.

mod send;
