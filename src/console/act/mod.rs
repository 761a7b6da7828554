//! What operators do: each action is a form, a preview where it destroys something, and a redirect.

pub(super) mod edit;
pub(super) mod fields;
pub(super) mod note;
pub(super) mod publish;
pub(super) mod removal;
pub(super) mod retries;
pub(super) mod running;
pub(super) mod said;
pub(super) mod sweep;
pub(super) mod sweep_form;
pub(super) mod sweep_page;
pub(super) mod value;
