//! The functions of signing: an input is in the transcript before the real module gets to sign it.
//!
//! A signing call without a buffer for the signature asks for its size only (PKCS#11 Base 2.40, section 5.2): it
//! signs nothing, so it passes through uncounted, unlogged and without meeting any rule.

use countersign_faulty_transcript::{Answer, Asked, Function};
use cryptoki_sys::*;

use crate::call::{Call, Fault};
use crate::operations::{Operation, check_size, id_and_label};
use crate::real::{fatal, module};

/// Room for a signature that is thrown away: the largest of any mechanism is SLH-DSA's, 49,856 bytes (FIPS 205).
const MAX_SIGNATURE_BYTES: usize = 64 * 1024;

/// Begins a signing operation: `real` is the real module's init function, if it has it.
unsafe fn init(
    function: Function,
    real: CK_C_SignInit,
    session: CK_SESSION_HANDLE,
    mechanism: *mut CK_MECHANISM,
    key: CK_OBJECT_HANDLE,
) -> CK_RV {
    let call = Call::begin(function);
    if let Fault::Return(rv) = call.meet_fault() {
        return call.end(rv);
    }
    let Some(real) = real else {
        return call.end(CKR_FUNCTION_NOT_SUPPORTED);
    };
    // SAFETY: by the specification NULL or valid for reading.
    let mechanism_type = unsafe { mechanism.as_ref() }.map(|mechanism| mechanism.mechanism);
    let (key_id, key_label) = id_and_label(module(), session, key);
    // SAFETY: our caller's arguments, to the real function of this name.
    let rv = unsafe { real(session, mechanism, key) };
    if rv == CKR_OK {
        let operation = Operation { mechanism: mechanism_type, key_id, key_label, input: Vec::new() };
        module().operations.begin(session, operation);
    }
    call.end(rv)
}

/// Gives a signature. `part` is the input that comes with this call; `real` signs into a buffer of a length.
///
/// # Safety
/// `signature` is NULL or valid for writing `*length` bytes, as the specification has it.
unsafe fn give_signature(
    function: Function,
    session: CK_SESSION_HANDLE,
    part: Vec<u8>,
    signature: *mut CK_BYTE,
    length: *mut CK_ULONG,
    real: impl Fn(*mut CK_BYTE, *mut CK_ULONG) -> CK_RV,
) -> CK_RV {
    if signature.is_null() {
        return real(signature, length);
    }
    let module = module();
    let call = Call::begin(function);
    let Operation { mechanism, key_id, key_label, mut input } = module.operations.get(session);
    check_size(input.len().saturating_add(part.len()));
    input.extend_from_slice(&part);
    let pid = std::process::id();
    let asked = Asked { pid, function, n: call.n, mechanism, key_id, key_label, input, answer: None };
    asked.append(&module.transcript).unwrap_or_else(|error| fatal(&format!("transcript.jsonl: {error}")));

    let fault = call.meet_fault();
    let (rv, given) = match fault {
        Fault::Return(rv) => {
            if rv != CKR_BUFFER_TOO_SMALL {
                end_operation(&real);
            }
            (rv, None)
        }
        Fault::None | Fault::Garbage => {
            let rv = real(signature, length);
            // SAFETY: with CKR_OK the real module has written `*length` bytes there.
            let given = (rv == CKR_OK).then(|| unsafe { finish(signature, length, fault) });
            (rv, given)
        }
    };
    if rv != CKR_BUFFER_TOO_SMALL {
        module.operations.end(session);
    }
    let injected = fault != Fault::None && (rv == CKR_OK || fault != Fault::Garbage);
    let answer = Answer { rv, signature: given, injected };
    asked
        .append_answer(&module.transcript, &answer)
        .unwrap_or_else(|error| fatal(&format!("transcript.jsonl: {error}")));
    call.end(rv)
}

/// Turns a signature into garbage if that is its fault, and copies it.
///
/// # Safety
/// `length` is valid for reading, `signature` for reading and writing `*length` bytes.
unsafe fn finish(signature: *mut CK_BYTE, length: *const CK_ULONG, fault: Fault) -> Vec<u8> {
    // SAFETY: as this function requires.
    let signature = unsafe { std::slice::from_raw_parts_mut(signature, *length as usize) };
    let middle = signature.len() / 2;
    if let (Fault::Garbage, Some(byte)) = (fault, signature.get_mut(middle)) {
        *byte ^= 1;
    }
    signature.to_vec()
}

/// Ends a signing operation in the real module, which has no call for that in 2.40, by having it sign for nobody:
/// the session is left as a real error would leave it. The input is in the transcript already.
fn end_operation(real: impl Fn(*mut CK_BYTE, *mut CK_ULONG) -> CK_RV) {
    let mut nobody = vec![0; MAX_SIGNATURE_BYTES];
    let mut length = MAX_SIGNATURE_BYTES as CK_ULONG;
    // Its answer does not matter: unless the buffer is too small, an error ends the operation too.
    let _ = real(nobody.as_mut_ptr(), &raw mut length);
}

/// Takes one part of an input. `real` hands it to the real module.
fn take_part(function: Function, session: CK_SESSION_HANDLE, part: Vec<u8>, real: impl FnOnce() -> CK_RV) -> CK_RV {
    let call = Call::begin(function);
    if let Fault::Return(rv) = call.meet_fault() {
        module().operations.end(session);
        end_operation(|signature, length| match module().real.C_SignFinal {
            // SAFETY: `end_operation` gives a buffer and its length.
            Some(real) => unsafe { real(session, signature, length) },
            None => CKR_FUNCTION_NOT_SUPPORTED,
        });
        return call.end(rv);
    }
    let rv = real();
    if rv == CKR_OK {
        module().operations.add(session, &part);
    } else {
        module().operations.end(session);
    }
    call.end(rv)
}

/// A copy of an input; an empty one for NULL, which the real module then judges.
///
/// # Safety
/// `data` is NULL or valid for reading `length` bytes.
unsafe fn input(data: *const CK_BYTE, length: CK_ULONG) -> Vec<u8> {
    if data.is_null() {
        return Vec::new();
    }
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    check_size(length);
    // SAFETY: as this function requires.
    unsafe { std::slice::from_raw_parts(data, length) }.to_vec()
}

pub(crate) use exported::*;

/// The functions as the list has them. Each requires of its arguments what the specification does.
#[expect(non_snake_case, reason = "the names are the specification's")]
mod exported {
    use super::*;

    pub(crate) unsafe extern "C" fn C_SignInit(
        session: CK_SESSION_HANDLE,
        mechanism: *mut CK_MECHANISM,
        key: CK_OBJECT_HANDLE,
    ) -> CK_RV {
        // SAFETY: our caller's arguments, with the real function of this name.
        unsafe { init(Function::C_SignInit, module().real.C_SignInit, session, mechanism, key) }
    }

    pub(crate) unsafe extern "C" fn C_SignRecoverInit(
        session: CK_SESSION_HANDLE,
        mechanism: *mut CK_MECHANISM,
        key: CK_OBJECT_HANDLE,
    ) -> CK_RV {
        let real = module().real.C_SignRecoverInit;
        // SAFETY: our caller's arguments, with the real function of this name.
        unsafe { init(Function::C_SignRecoverInit, real, session, mechanism, key) }
    }

    pub(crate) unsafe extern "C" fn C_Sign(
        session: CK_SESSION_HANDLE,
        data: *mut CK_BYTE,
        data_length: CK_ULONG,
        signature: *mut CK_BYTE,
        length: *mut CK_ULONG,
    ) -> CK_RV {
        let real = |signature, length| match module().real.C_Sign {
            // SAFETY: our caller's data, and a buffer with its length.
            Some(real) => unsafe { real(session, data, data_length, signature, length) },
            None => CKR_FUNCTION_NOT_SUPPORTED,
        };
        // SAFETY: our caller's arguments.
        unsafe { give_signature(Function::C_Sign, session, input(data, data_length), signature, length, real) }
    }

    pub(crate) unsafe extern "C" fn C_SignRecover(
        session: CK_SESSION_HANDLE,
        data: *mut CK_BYTE,
        data_length: CK_ULONG,
        signature: *mut CK_BYTE,
        length: *mut CK_ULONG,
    ) -> CK_RV {
        let real = |signature, length| match module().real.C_SignRecover {
            // SAFETY: our caller's data, and a buffer with its length.
            Some(real) => unsafe { real(session, data, data_length, signature, length) },
            None => CKR_FUNCTION_NOT_SUPPORTED,
        };
        // SAFETY: our caller's arguments.
        unsafe { give_signature(Function::C_SignRecover, session, input(data, data_length), signature, length, real) }
    }

    pub(crate) unsafe extern "C" fn C_SignUpdate(
        session: CK_SESSION_HANDLE,
        part: *mut CK_BYTE,
        part_length: CK_ULONG,
    ) -> CK_RV {
        // SAFETY: our caller's arguments.
        take_part(Function::C_SignUpdate, session, unsafe { input(part, part_length) }, || {
            match module().real.C_SignUpdate {
                // SAFETY: our caller's arguments.
                Some(real) => unsafe { real(session, part, part_length) },
                None => CKR_FUNCTION_NOT_SUPPORTED,
            }
        })
    }

    pub(crate) unsafe extern "C" fn C_SignEncryptUpdate(
        session: CK_SESSION_HANDLE,
        part: *mut CK_BYTE,
        part_length: CK_ULONG,
        encrypted: *mut CK_BYTE,
        encrypted_length: *mut CK_ULONG,
    ) -> CK_RV {
        // A request for the size takes nothing in.
        let taken = if encrypted.is_null() { 0 } else { part_length };
        // SAFETY: our caller's arguments.
        take_part(Function::C_SignEncryptUpdate, session, unsafe { input(part, taken) }, || {
            match module().real.C_SignEncryptUpdate {
                // SAFETY: our caller's arguments.
                Some(real) => unsafe { real(session, part, part_length, encrypted, encrypted_length) },
                None => CKR_FUNCTION_NOT_SUPPORTED,
            }
        })
    }

    pub(crate) unsafe extern "C" fn C_SignFinal(
        session: CK_SESSION_HANDLE,
        signature: *mut CK_BYTE,
        length: *mut CK_ULONG,
    ) -> CK_RV {
        let real = |signature, length| match module().real.C_SignFinal {
            // SAFETY: a buffer with its length.
            Some(real) => unsafe { real(session, signature, length) },
            None => CKR_FUNCTION_NOT_SUPPORTED,
        };
        // SAFETY: our caller's arguments.
        unsafe { give_signature(Function::C_SignFinal, session, Vec::new(), signature, length, real) }
    }
}
