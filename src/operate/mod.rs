//! What operators do: topics and groups, scheduled retries, dead letters, the doctor.

pub(crate) mod dead_letters;
pub(crate) mod doctor;
pub(crate) mod retries;
pub(crate) mod topics;
