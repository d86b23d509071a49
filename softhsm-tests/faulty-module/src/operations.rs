//! The signing operations that are active, and the keys they are with.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

use countersign_faulty_transcript::transcript::MAX_INPUT_BYTES;
use cryptoki_sys::*;

use crate::real::{Module, fatal};

/// Longest CKA_ID or CKA_LABEL that is read, in bytes; longer ones count as absent.
const MAX_ATTRIBUTE_BYTES: usize = 1024;
/// Most sessions with a signing operation at once.
const MAX_OPERATIONS: usize = 65_536;

/// A signing operation, from C_SignInit until it ends.
#[derive(Debug, Clone, Default)]
pub(crate) struct Operation {
    pub(crate) mechanism: Option<CK_MECHANISM_TYPE>,
    pub(crate) key_id: Option<Vec<u8>>,
    pub(crate) key_label: Option<String>,
    /// The parts so far.
    pub(crate) input: Vec<u8>,
}

/// The signing operations of this process, by session.
#[derive(Debug, Default)]
pub(crate) struct Operations(Mutex<HashMap<CK_SESSION_HANDLE, Operation>>);

impl Operations {
    pub(crate) fn begin(&self, session: CK_SESSION_HANDLE, operation: Operation) {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if map.len() >= MAX_OPERATIONS && !map.contains_key(&session) {
            fatal(&format!("more than {MAX_OPERATIONS} sessions have a signing operation"));
        }
        map.insert(session, operation);
    }

    /// The operation of a session; an empty one if there is none, in which case the real module will refuse.
    pub(crate) fn get(&self, session: CK_SESSION_HANDLE) -> Operation {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&session).cloned().unwrap_or_default()
    }

    pub(crate) fn add(&self, session: CK_SESSION_HANDLE, part: &[u8]) {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(operation) = map.get_mut(&session) {
            check_size(operation.input.len().saturating_add(part.len()));
            operation.input.extend_from_slice(part);
        }
    }

    pub(crate) fn end(&self, session: CK_SESSION_HANDLE) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&session);
    }
}

/// Aborts when an input is larger than the transcript takes.
pub(crate) fn check_size(bytes: usize) {
    if bytes > MAX_INPUT_BYTES {
        fatal(&format!("an input of {bytes} bytes exceeds the {MAX_INPUT_BYTES} that the transcript takes"));
    }
}

/// CKA_ID and CKA_LABEL of a key, read through the real module; what it does not give is `None`.
pub(crate) fn id_and_label(
    module: &Module,
    session: CK_SESSION_HANDLE,
    key: CK_OBJECT_HANDLE,
) -> (Option<Vec<u8>>, Option<String>) {
    let Some(get) = module.real.C_GetAttributeValue else {
        return (None, None);
    };
    let (mut id, mut label) = ([0_u8; MAX_ATTRIBUTE_BYTES], [0_u8; MAX_ATTRIBUTE_BYTES]);
    let attribute = |type_, buffer: &mut [u8]| CK_ATTRIBUTE {
        type_,
        pValue: buffer.as_mut_ptr().cast::<c_void>(),
        ulValueLen: MAX_ATTRIBUTE_BYTES as CK_ULONG,
    };
    let mut template = [attribute(CKA_ID, &mut id), attribute(CKA_LABEL, &mut label)];
    // SAFETY: two attributes, each with a buffer of the length that it states, alive until after the call.
    let rv = unsafe { get(session, key, template.as_mut_ptr(), 2) };
    // These three speak of single attributes, whose length is then "unavailable", and leave the other one valid.
    if !matches!(rv, CKR_OK | CKR_ATTRIBUTE_SENSITIVE | CKR_ATTRIBUTE_TYPE_INVALID | CKR_BUFFER_TOO_SMALL) {
        return (None, None);
    }
    let [id_length, label_length] = template.map(|attribute| usize::try_from(attribute.ulValueLen).ok());
    let id = id_length.and_then(|length| id.get(..length)).map(<[u8]>::to_vec);
    let label = label_length.and_then(|length| label.get(..length));
    (id, label.map(|label| String::from_utf8_lossy(label).into_owned()))
}
