//! The one place that loads scripts.

use std::sync::LazyLock;

use redis::Script;

macro_rules! scripts {
    ($($name:ident = $file:literal;)*) => {
        $(pub(super) static $name: LazyLock<Script> =
            LazyLock::new(|| Script::new(include_str!(concat!("../../lua/", $file))));)*
    };
}

scripts! {
    KV_CAS = "kv_cas.lua";
    ONCE_CLAIM = "once_claim.lua";
    ONCE_SETTLE = "once_settle.lua";
}
