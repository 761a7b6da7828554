//! The one place that builds key names.

use crate::domain::{Error, ErrorKind, Namespace};

/// Builds the names of keys in one namespace.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    namespace: Option<Namespace>,
}

impl Keys {
    pub(super) fn new(namespace: Option<Namespace>) -> Self {
        Self { namespace }
    }

    /// `shop:<key>`, or `<key>` without a namespace: a string, for as long as its time to live.
    pub(super) fn value(&self, operation: &'static str, key: &str) -> Result<String, Error> {
        if key.is_empty() || key.starts_with('{') {
            let rule = "a key may not be empty or begin with `{`";
            return Err(Error::new(ErrorKind::Invalid, operation, rule).on(key));
        }
        Ok(match &self.namespace {
            Some(namespace) => format!("{namespace}:{key}"),
            None => key.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys(namespace: &str) -> Keys {
        Keys::new(Some(Namespace::new(namespace).unwrap()))
    }

    #[test]
    fn values_are_named_as_the_older_store_named_them() {
        assert_eq!(keys("shop").value("get", "a:b").unwrap(), "shop:a:b");
        assert_eq!(Keys::new(None).value("get", "a").unwrap(), "a");
    }

    #[test]
    fn the_bus_own_keys_are_out_of_reach() {
        for bad in ["", "{shop:orders}:log"] {
            let error = Keys::new(None).value("set", bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
        }
    }

    proptest! {
        #[test]
        fn two_keys_never_share_a_name(
            one in "[a-z.]{1,5}", two in "[a-z.]{1,5}", a in "[a-z:]{1,8}", b in "[a-z:]{1,8}"
        ) {
            let same = keys(&one).value("get", &a).unwrap() == keys(&two).value("get", &b).unwrap();
            prop_assert_eq!(same, one == two && a == b);
        }
    }
}
