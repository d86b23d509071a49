//! Documents out of the store, for the replay of the admin trail.

use countersign_trail::admin::Documents;
use countersign_trail::hash::Hash;

use crate::store::sqlite::reader::Reader;

/// The content-addressed table. The replay checks every hash itself.
#[derive(Debug)]
pub struct StoredDocuments<'r> {
    reader: &'r Reader,
}

impl<'r> StoredDocuments<'r> {
    /// Over a store.
    pub fn new(reader: &'r Reader) -> Self {
        StoredDocuments { reader }
    }
}

impl Documents for StoredDocuments<'_> {
    fn document(&self, hash: &Hash) -> Option<Vec<u8>> {
        self.reader.read(|snapshot| snapshot.document(hash)).unwrap_or_else(|error| {
            tracing::error!(%error, %hash, "a document could not be read");
            None
        })
    }
}
