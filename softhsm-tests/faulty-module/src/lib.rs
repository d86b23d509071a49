//! A PKCS#11 2.40 module for tests: it passes every call through to a real module, injects the faults that a control
//! file asks for, counts calls, and writes a transcript of every input that it was asked to sign.
//!
//! The environment names the real module (`COUNTERSIGN_FAULTY_MODULE`) and a folder (`COUNTERSIGN_FAULTY_DIR`) that
//! is shared with the test; `countersign-faulty-transcript` documents the files in it and reads and writes them.
//!
//! | module | purpose |
//! |---|---|
//! | `list` | the function list: every function but those of signing, passed through |
//! | `sign` | the functions of signing, with the transcript |
//! | `operations` | the signing operations that are active, and their keys |
//! | `call` | one call: its number, its rules, its line in the log |
//! | `real` | the real module, the shared files, and what to do when they fail |
//!
//! Invariants:
//! - A call is counted, and a signature's input is in the transcript, before the real module is called.
//! - No argument of C_Login, C_SetPIN, C_InitPIN or C_InitToken is looked at or written anywhere.
//! - No lock is held while the real module runs, or while a call waits or hangs.
//! - Whatever is wrong with the set-up (environment, control file, shared files) aborts the process with a message on
//!   stderr: a test never goes on without the faults and the transcript it relies on. A panic would abort likewise,
//!   since no `extern "C"` function unwinds.

mod call;
mod list;
mod operations;
mod real;
mod sign;

use cryptoki_sys::{CK_FUNCTION_LIST, CK_RV, CKR_ARGUMENTS_BAD, CKR_OK};

/// Gives the 2.40 function list (PKCS#11 Base 2.40, section 5.4). This loads the real module.
///
/// # Safety
/// `list` must be NULL or valid for writing a pointer. What it then points to is valid for as long as this library is
/// loaded and must not be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetFunctionList(list: *mut *mut CK_FUNCTION_LIST) -> CK_RV {
    if list.is_null() {
        return CKR_ARGUMENTS_BAD;
    }
    let ours = std::ptr::from_ref(&real::module().list).cast_mut();
    // SAFETY: not NULL, so by the specification the caller's variable for the pointer.
    unsafe { list.write(ours) };
    CKR_OK
}
