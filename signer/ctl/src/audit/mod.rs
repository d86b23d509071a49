//! What auditors and operators read. Answers are checked down from the pinned genesis before they
//! are shown as true.

pub(crate) mod csv;
pub(crate) mod export;
pub(crate) mod flat;
pub(crate) mod head;
pub(crate) mod heads;
pub(crate) mod keys;
pub(crate) mod overview;
pub(crate) mod proof;
pub(crate) mod record;
pub(crate) mod stored;
