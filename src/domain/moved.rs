//! What became of items that were to be moved.

use serde::Serialize;

/// What became of dead letters or scheduled retries that a call was to move or remove, by id.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Moved<Id> {
    /// Those that this call moved or removed.
    pub moved: Vec<Id>,
    /// Those that are not there: unknown, or moved by another call.
    pub missing: Vec<Id>,
}

impl<Id: Copy> Moved<Id> {
    /// Adds the fate of some ids, in their order.
    pub(crate) fn add(&mut self, ids: &[Id], moved: &[bool]) {
        for (id, moved) in ids.iter().zip(moved) {
            let list = if *moved {
                &mut self.moved
            } else {
                &mut self.missing
            };
            list.push(*id);
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
