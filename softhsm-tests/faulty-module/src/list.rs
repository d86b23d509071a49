//! The function list: every function but those of signing, counted and passed through.

use std::ffi::c_void;

use countersign_faulty_transcript::Function;
use cryptoki_sys::*;

use crate::call::pass_through;
use crate::sign;

macro_rules! pass_through {
    ($($name:ident($($arg:ident: $type:ty),* $(,)?);)*) => {
        $(
            /// Counts the call, meets its rules and passes it through.
            ///
            /// # Safety
            /// The specification's requirements on the arguments hold: they go to the real module as they are.
            #[expect(non_snake_case, reason = "the name is the specification's")]
            unsafe extern "C" fn $name($($arg: $type),*) -> CK_RV {
                pass_through(Function::$name, |real| match real.$name {
                    // SAFETY: the real module's own function of this name, with the arguments of our caller, who
                    // answers for them.
                    Some(function) => unsafe { function($($arg),*) },
                    None => CKR_FUNCTION_NOT_SUPPORTED,
                })
            }
        )*

        /// Our list for a real one: a function of ours wherever the real one has a function.
        pub(crate) fn over(real: &CK_FUNCTION_LIST) -> CK_FUNCTION_LIST {
            CK_FUNCTION_LIST {
                version: real.version,
                C_GetFunctionList: Some(crate::C_GetFunctionList),
                C_SignInit: real.C_SignInit.and(Some(sign::C_SignInit)),
                C_Sign: real.C_Sign.and(Some(sign::C_Sign)),
                C_SignUpdate: real.C_SignUpdate.and(Some(sign::C_SignUpdate)),
                C_SignFinal: real.C_SignFinal.and(Some(sign::C_SignFinal)),
                C_SignRecoverInit: real.C_SignRecoverInit.and(Some(sign::C_SignRecoverInit)),
                C_SignRecover: real.C_SignRecover.and(Some(sign::C_SignRecover)),
                C_SignEncryptUpdate: real.C_SignEncryptUpdate.and(Some(sign::C_SignEncryptUpdate)),
                $($name: real.$name.and(Some($name)),)*
            }
        }
    };
}

pass_through! {
    C_Initialize(a: *mut c_void);
    C_Finalize(a: *mut c_void);
    C_GetInfo(a: *mut CK_INFO);
    C_GetSlotList(a: CK_BBOOL, b: *mut CK_SLOT_ID, c: *mut CK_ULONG);
    C_GetSlotInfo(a: CK_SLOT_ID, b: *mut CK_SLOT_INFO);
    C_GetTokenInfo(a: CK_SLOT_ID, b: *mut CK_TOKEN_INFO);
    C_GetMechanismList(a: CK_SLOT_ID, b: *mut CK_MECHANISM_TYPE, c: *mut CK_ULONG);
    C_GetMechanismInfo(a: CK_SLOT_ID, b: CK_MECHANISM_TYPE, c: *mut CK_MECHANISM_INFO);
    C_InitToken(a: CK_SLOT_ID, b: *mut CK_UTF8CHAR, c: CK_ULONG, d: *mut CK_UTF8CHAR);
    C_InitPIN(a: CK_SESSION_HANDLE, b: *mut CK_UTF8CHAR, c: CK_ULONG);
    C_SetPIN(
        a: CK_SESSION_HANDLE,
        b: *mut CK_UTF8CHAR,
        c: CK_ULONG,
        d: *mut CK_UTF8CHAR,
        e: CK_ULONG,
    );
    C_OpenSession(
        a: CK_SLOT_ID,
        b: CK_FLAGS,
        c: *mut c_void,
        d: CK_NOTIFY,
        e: *mut CK_SESSION_HANDLE,
    );
    C_CloseSession(a: CK_SESSION_HANDLE);
    C_CloseAllSessions(a: CK_SLOT_ID);
    C_GetSessionInfo(a: CK_SESSION_HANDLE, b: *mut CK_SESSION_INFO);
    C_GetOperationState(a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: *mut CK_ULONG);
    C_SetOperationState(
        a: CK_SESSION_HANDLE,
        b: *mut CK_BYTE,
        c: CK_ULONG,
        d: CK_OBJECT_HANDLE,
        e: CK_OBJECT_HANDLE,
    );
    C_Login(a: CK_SESSION_HANDLE, b: CK_USER_TYPE, c: *mut CK_UTF8CHAR, d: CK_ULONG);
    C_Logout(a: CK_SESSION_HANDLE);
    C_CreateObject(
        a: CK_SESSION_HANDLE,
        b: *mut CK_ATTRIBUTE,
        c: CK_ULONG,
        d: *mut CK_OBJECT_HANDLE,
    );
    C_CopyObject(
        a: CK_SESSION_HANDLE,
        b: CK_OBJECT_HANDLE,
        c: *mut CK_ATTRIBUTE,
        d: CK_ULONG,
        e: *mut CK_OBJECT_HANDLE,
    );
    C_DestroyObject(a: CK_SESSION_HANDLE, b: CK_OBJECT_HANDLE);
    C_GetObjectSize(a: CK_SESSION_HANDLE, b: CK_OBJECT_HANDLE, c: *mut CK_ULONG);
    C_GetAttributeValue(
        a: CK_SESSION_HANDLE,
        b: CK_OBJECT_HANDLE,
        c: *mut CK_ATTRIBUTE,
        d: CK_ULONG,
    );
    C_SetAttributeValue(
        a: CK_SESSION_HANDLE,
        b: CK_OBJECT_HANDLE,
        c: *mut CK_ATTRIBUTE,
        d: CK_ULONG,
    );
    C_FindObjectsInit(a: CK_SESSION_HANDLE, b: *mut CK_ATTRIBUTE, c: CK_ULONG);
    C_FindObjects(a: CK_SESSION_HANDLE, b: *mut CK_OBJECT_HANDLE, c: CK_ULONG, d: *mut CK_ULONG);
    C_FindObjectsFinal(a: CK_SESSION_HANDLE);
    C_EncryptInit(a: CK_SESSION_HANDLE, b: *mut CK_MECHANISM, c: CK_OBJECT_HANDLE);
    C_Encrypt(
        a: CK_SESSION_HANDLE,
        b: *mut CK_BYTE,
        c: CK_ULONG,
        d: *mut CK_BYTE,
        e: *mut CK_ULONG,
    );
    C_EncryptUpdate(
        a: CK_SESSION_HANDLE,
        b: *mut CK_BYTE,
        c: CK_ULONG,
        d: *mut CK_BYTE,
        e: *mut CK_ULONG,
    );
    C_EncryptFinal(a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: *mut CK_ULONG);
    C_DecryptInit(a: CK_SESSION_HANDLE, b: *mut CK_MECHANISM, c: CK_OBJECT_HANDLE);
    C_Decrypt(
        a: CK_SESSION_HANDLE,
        b: *mut CK_BYTE,
        c: CK_ULONG,
        d: *mut CK_BYTE,
        e: *mut CK_ULONG,
    );
    C_DecryptUpdate(
        a: CK_SESSION_HANDLE,
        b: *mut CK_BYTE,
        c: CK_ULONG,
        d: *mut CK_BYTE,
        e: *mut CK_ULONG,
    );
    C_DecryptFinal(a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: *mut CK_ULONG);
    C_DigestInit(a: CK_SESSION_HANDLE, b: *mut CK_MECHANISM);
    C_Digest(
        a: CK_SESSION_HANDLE,
        b: *mut CK_BYTE,
        c: CK_ULONG,
        d: *mut CK_BYTE,
        e: *mut CK_ULONG,
    );
    C_DigestUpdate(a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG);
    C_DigestKey(a: CK_SESSION_HANDLE, b: CK_OBJECT_HANDLE);
    C_DigestFinal(a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: *mut CK_ULONG);
    C_VerifyInit(a: CK_SESSION_HANDLE, b: *mut CK_MECHANISM, c: CK_OBJECT_HANDLE);
    C_Verify(a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG, d: *mut CK_BYTE, e: CK_ULONG);
    C_VerifyUpdate(a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG);
    C_VerifyFinal(a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG);
    C_VerifyRecoverInit(a: CK_SESSION_HANDLE, b: *mut CK_MECHANISM, c: CK_OBJECT_HANDLE);
    C_VerifyRecover(
        a: CK_SESSION_HANDLE,
        b: *mut CK_BYTE,
        c: CK_ULONG,
        d: *mut CK_BYTE,
        e: *mut CK_ULONG,
    );
    C_DigestEncryptUpdate(
        a: CK_SESSION_HANDLE,
        b: *mut CK_BYTE,
        c: CK_ULONG,
        d: *mut CK_BYTE,
        e: *mut CK_ULONG,
    );
    C_DecryptDigestUpdate(
        a: CK_SESSION_HANDLE,
        b: *mut CK_BYTE,
        c: CK_ULONG,
        d: *mut CK_BYTE,
        e: *mut CK_ULONG,
    );
    C_DecryptVerifyUpdate(
        a: CK_SESSION_HANDLE,
        b: *mut CK_BYTE,
        c: CK_ULONG,
        d: *mut CK_BYTE,
        e: *mut CK_ULONG,
    );
    C_GenerateKey(
        a: CK_SESSION_HANDLE,
        b: *mut CK_MECHANISM,
        c: *mut CK_ATTRIBUTE,
        d: CK_ULONG,
        e: *mut CK_OBJECT_HANDLE,
    );
    C_GenerateKeyPair(
        a: CK_SESSION_HANDLE,
        b: *mut CK_MECHANISM,
        c: *mut CK_ATTRIBUTE,
        d: CK_ULONG,
        e: *mut CK_ATTRIBUTE,
        f: CK_ULONG,
        g: *mut CK_OBJECT_HANDLE,
        h: *mut CK_OBJECT_HANDLE,
    );
    C_WrapKey(
        a: CK_SESSION_HANDLE,
        b: *mut CK_MECHANISM,
        c: CK_OBJECT_HANDLE,
        d: CK_OBJECT_HANDLE,
        e: *mut CK_BYTE,
        f: *mut CK_ULONG,
    );
    C_UnwrapKey(
        a: CK_SESSION_HANDLE,
        b: *mut CK_MECHANISM,
        c: CK_OBJECT_HANDLE,
        d: *mut CK_BYTE,
        e: CK_ULONG,
        f: *mut CK_ATTRIBUTE,
        g: CK_ULONG,
        h: *mut CK_OBJECT_HANDLE,
    );
    C_DeriveKey(
        a: CK_SESSION_HANDLE,
        b: *mut CK_MECHANISM,
        c: CK_OBJECT_HANDLE,
        d: *mut CK_ATTRIBUTE,
        e: CK_ULONG,
        f: *mut CK_OBJECT_HANDLE,
    );
    C_SeedRandom(a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG);
    C_GenerateRandom(a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG);
    C_GetFunctionStatus(a: CK_SESSION_HANDLE);
    C_CancelFunction(a: CK_SESSION_HANDLE);
    C_WaitForSlotEvent(a: CK_FLAGS, b: *mut CK_SLOT_ID, c: *mut c_void);
}
