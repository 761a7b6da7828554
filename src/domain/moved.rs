//! The result of a call that moves or removes items.

use serde::Serialize;

/// The result of a call that moves or removes dead letters or scheduled retries, by id.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Moved<Id> {
    /// The ids that this call moved or removed.
    pub moved: Vec<Id>,
    /// The ids that do not exist, or that another call moved.
    pub missing: Vec<Id>,
}

impl<Id: Clone> Moved<Id> {
    /// Adds the results of some ids, in their order.
    pub(crate) fn add(&mut self, ids: &[Id], moved: &[bool]) {
        for (id, moved) in ids.iter().zip(moved) {
            let list = if *moved {
                &mut self.moved
            } else {
                &mut self.missing
            };
            list.push(id.clone());
        }
    }
}

impl<Id> Default for Moved<Id> {
    fn default() -> Self {
        Self {
            moved: Vec::new(),
            missing: Vec::new(),
        }
    }
}
