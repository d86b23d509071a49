//! What each PKCS#11 return value means for us: the one table.
//!
//! | remedy | values |
//! |---|---|
//! | retry | 0x5, 0x6, 0x200, 0x201, 0x202 as they are; 0x60, 0x82 after the key was found again; 0x101 after one login |
//! | new session | 0x90, 0x91, 0xB0, 0xB3 |
//! | replace the worker | 0x1, 0x2, 0x3, 0x30, 0x31, 0x32, 0x50, 0xB1, 0xE0, 0xE1, 0x150, 0x190, 0x191, 0x1A0, 0x1A1 |
//! | latched down | the PIN codes 0xA0 to 0xA4, and everything that only an operator can explain |
//! | caller's error | a call that the token or its policy does not take |
//!
//! A retry or new session that fails as often as [`MAX_ATTEMPTS`] replaces the worker. A value
//! that is in no row latches down: nothing is known about repeating it.

use cryptoki::error::{Error, RvError};

use crate::error::{HsmError, Reason};

/// How often one call is made in one worker before the worker is replaced.
pub(crate) const MAX_ATTEMPTS: u32 = 3;

/// What comes before a retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Prepare {
    Nothing,
    /// The object handle is stale: find the key by its CKA_ID.
    FindKey,
    /// The token forgot the login: log in once.
    Login,
}

/// What to do after a return value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// Make the same call again in the same session.
    Retry(Prepare),
    /// Make the same call again in a new session.
    NewSession,
    /// End this process; the supervisor starts another, with back-off.
    ReplaceWorker,
    /// End this process; nothing starts again before an operator acts.
    LatchedDown,
    /// The call fails, the worker goes on.
    CallersError,
}

use Remedy::{CallersError, LatchedDown, NewSession, ReplaceWorker};

const RETRY: Remedy = Remedy::Retry(Prepare::Nothing);
const FIND_KEY: Remedy = Remedy::Retry(Prepare::FindKey);
const LOGIN: Remedy = Remedy::Retry(Prepare::Login);

/// The row of a return value that the bindings know by name; None for the others.
#[rustfmt::skip]
fn named(rv: RvError) -> Option<Remedy> {
    Some(match rv {
        RvError::Cancel => ReplaceWorker,                          // 0x001
        RvError::HostMemory => ReplaceWorker,                      // 0x002
        RvError::SlotIdInvalid => ReplaceWorker,                   // 0x003
        RvError::GeneralError => RETRY,                            // 0x005
        RvError::FunctionFailed => RETRY,                          // 0x006
        RvError::ArgumentsBad => CallersError,                     // 0x007
        RvError::NoEvent => CallersError,                          // 0x008
        RvError::NeedToCreateThreads => LatchedDown,               // 0x009
        RvError::CantLock => LatchedDown,                          // 0x00A
        RvError::AttributeReadOnly => CallersError,                // 0x010
        RvError::AttributeSensitive => CallersError,               // 0x011
        RvError::AttributeTypeInvalid => CallersError,             // 0x012
        RvError::AttributeValueInvalid => CallersError,            // 0x013
        RvError::ActionProhibited => CallersError,                 // 0x01B
        RvError::DataInvalid => CallersError,                      // 0x020
        RvError::DataLenRange => CallersError,                     // 0x021
        RvError::DeviceError => ReplaceWorker,                     // 0x030
        RvError::DeviceMemory => ReplaceWorker,                    // 0x031
        RvError::DeviceRemoved => ReplaceWorker,                   // 0x032
        RvError::EncryptedDataInvalid => LatchedDown,              // 0x040
        RvError::EncryptedDataLenRange => LatchedDown,             // 0x041
        RvError::FunctionCanceled => ReplaceWorker,                // 0x050
        RvError::FunctionNotParallel => LatchedDown,               // 0x051
        RvError::FunctionNotSupported => CallersError,             // 0x054
        RvError::KeyHandleInvalid => FIND_KEY,                     // 0x060
        RvError::KeySizeRange => CallersError,                     // 0x062
        RvError::KeyTypeInconsistent => CallersError,              // 0x063
        RvError::KeyNotNeeded => LatchedDown,                      // 0x064
        RvError::KeyChanged => LatchedDown,                        // 0x065
        RvError::KeyNeeded => LatchedDown,                         // 0x066
        RvError::KeyIndigestible => LatchedDown,                   // 0x067
        RvError::KeyFunctionNotPermitted => CallersError,          // 0x068
        RvError::KeyNotWrappable => LatchedDown,                   // 0x069
        RvError::KeyUnextractable => LatchedDown,                  // 0x06A
        RvError::MechanismInvalid => CallersError,                 // 0x070
        RvError::MechanismParamInvalid => CallersError,            // 0x071
        RvError::ObjectHandleInvalid => FIND_KEY,                  // 0x082
        RvError::OperationActive => NewSession,                    // 0x090
        RvError::OperationNotInitialized => NewSession,            // 0x091
        RvError::PinIncorrect => LatchedDown,                      // 0x0A0
        RvError::PinInvalid => LatchedDown,                        // 0x0A1
        RvError::PinLenRange => LatchedDown,                       // 0x0A2
        RvError::PinExpired => LatchedDown,                        // 0x0A3
        RvError::PinLocked => LatchedDown,                         // 0x0A4
        RvError::SessionClosed => NewSession,                      // 0x0B0
        RvError::SessionCount => ReplaceWorker,                    // 0x0B1
        RvError::SessionHandleInvalid => NewSession,               // 0x0B3
        RvError::SessionParallelNotSupported => LatchedDown,       // 0x0B4
        RvError::SessionReadOnly => CallersError,                  // 0x0B5
        RvError::SessionExists => LatchedDown,                     // 0x0B6
        RvError::SessionReadOnlyExists => LatchedDown,             // 0x0B7
        RvError::SessionReadWriteSoExists => LatchedDown,          // 0x0B8
        RvError::SignatureInvalid => LatchedDown,                  // 0x0C0
        RvError::SignatureLenRange => LatchedDown,                 // 0x0C1
        RvError::TemplateIncomplete => CallersError,               // 0x0D0
        RvError::TemplateInconsistent => CallersError,             // 0x0D1
        RvError::TokenNotPresent => ReplaceWorker,                 // 0x0E0
        RvError::TokenNotRecognized => ReplaceWorker,              // 0x0E1
        RvError::TokenWriteProtected => CallersError,              // 0x0E2
        RvError::UnwrappingKeyHandleInvalid => LatchedDown,        // 0x0F0
        RvError::UnwrappingKeySizeRange => LatchedDown,            // 0x0F1
        RvError::UnwrappingKeyTypeInconsistent => LatchedDown,     // 0x0F2
        RvError::UserAlreadyLoggedIn => RETRY,                     // 0x100
        RvError::UserNotLoggedIn => LOGIN,                         // 0x101
        RvError::UserPinNotInitialized => LatchedDown,             // 0x102
        RvError::UserTypeInvalid => LatchedDown,                   // 0x103
        RvError::UserAnotherAlreadyLoggedIn => LatchedDown,        // 0x104
        RvError::UserTooManyTypes => LatchedDown,                  // 0x105
        RvError::WrappedKeyInvalid => LatchedDown,                 // 0x110
        RvError::WrappedKeyLenRange => LatchedDown,                // 0x112
        RvError::WrappingKeyHandleInvalid => LatchedDown,          // 0x113
        RvError::WrappingKeySizeRange => LatchedDown,              // 0x114
        RvError::WrappingKeyTypeInconsistent => LatchedDown,       // 0x115
        RvError::RandomSeedNotSupported => LatchedDown,            // 0x120
        RvError::RandomNoRng => LatchedDown,                       // 0x121
        RvError::DomainParamsInvalid => CallersError,              // 0x130
        RvError::CurveNotSupported => CallersError,                // 0x140
        RvError::BufferTooSmall => ReplaceWorker,                  // 0x150
        RvError::SavedStateInvalid => LatchedDown,                 // 0x160
        RvError::InformationSensitive => LatchedDown,              // 0x170
        RvError::StateUnsaveable => LatchedDown,                   // 0x180
        RvError::CryptokiNotInitialized => ReplaceWorker,          // 0x190
        RvError::CryptokiAlreadyInitialized => ReplaceWorker,      // 0x191
        RvError::MutexBad => ReplaceWorker,                        // 0x1A0
        RvError::MutexNotLocked => ReplaceWorker,                  // 0x1A1
        RvError::NewPinMode => LatchedDown,                        // 0x1B0
        RvError::NextOtp => LatchedDown,                           // 0x1B1
        RvError::ExceededMaxIterations => CallersError,            // 0x1B5
        RvError::FipsSelfTestFailed => LatchedDown,                // 0x1B6
        RvError::LibraryLoadFailed => LatchedDown,                 // 0x1B7
        RvError::PinTooWeak => LatchedDown,                        // 0x1B8
        RvError::PublicKeyInvalid => CallersError,                 // 0x1B9
        RvError::FunctionRejected => RETRY,                        // 0x200
        RvError::VendorDefined(_) | RvError::UnknownErrorCode(_) => return None,
    })
}

/// The rows that the bindings have no name for (PKCS#11 3.0 and 3.2), by value.
const NUMBERED: [(u64, Remedy); 10] = [
    (0x042, LatchedDown),   // CKR_AEAD_DECRYPT_FAILED
    (0x201, RETRY),         // CKR_TOKEN_RESOURCE_EXCEEDED
    (0x202, RETRY),         // CKR_OPERATION_CANCEL_FAILED
    (0x203, LatchedDown),   // CKR_KEY_EXHAUSTED
    (0x204, ReplaceWorker), // CKR_PENDING
    (0x205, LatchedDown),   // CKR_SESSION_ASYNC_NOT_SUPPORTED
    (0x206, LatchedDown),   // CKR_SEED_RANDOM_REQUIRED
    (0x207, LatchedDown),   // CKR_OPERATION_NOT_VALIDATED
    (0x208, ReplaceWorker), // CKR_TOKEN_NOT_INITIALIZED
    (0x209, CallersError),  // CKR_PARAMETER_SET_NOT_SUPPORTED
];

/// The remedy for a return value. Unknown values latch down.
pub(crate) fn remedy(rv: RvError) -> Remedy {
    let row = match rv {
        RvError::UnknownErrorCode(code) => NUMBERED.iter().find(|row| row.0 == code).map(|row| row.1),
        rv => named(rv),
    };
    row.unwrap_or(LatchedDown)
}

/// Whether a return value of C_Login speaks about the PIN itself.
pub(crate) fn is_pin_error(rv: RvError) -> bool {
    matches!(
        rv,
        RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange | RvError::PinExpired | RvError::PinLocked
    )
}

/// A failed call, short enough for a log line, and its remedy.
///
/// Errors that are no return value (a missing function, a value that does not convert) come from a
/// module that breaks its own contract: they latch down.
pub(crate) fn judge(error: &Error) -> (Remedy, String) {
    match error {
        Error::Pkcs11(rv, function) => (remedy(*rv), format!("{function} answered {}", name(*rv))),
        other => (LatchedDown, format!("the module broke its contract: {other}")),
    }
}

/// The error that a caller sees after `remedy`, for a call that is not repeated any more.
pub(crate) fn failure(remedy: Remedy, text: &str) -> HsmError {
    let reason = match remedy {
        Remedy::Retry(_) | NewSession | ReplaceWorker => Reason::HsmUnavailable,
        LatchedDown => Reason::HsmLatched,
        CallersError => Reason::HsmRejected,
    };
    HsmError::new(reason, text)
}

/// `DeviceError`, `VendorDefined(0x80000001)`: without the bindings' long prose.
fn name(rv: RvError) -> String {
    match rv {
        RvError::VendorDefined(code) => format!("vendor-defined {code:#x}"),
        RvError::UnknownErrorCode(code) => format!("unknown {code:#x}"),
        rv => format!("{rv:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cryptoki::error::Rv;

    /// Every CKR_ constant of PKCS#11 3.2 except CKR_OK and CKR_VENDOR_DEFINED.
    const ALL: [u64; 103] = [
        1, 2, 3, 5, 6, 7, 8, 9, 10, 16, 17, 18, 19, 27, 32, 33, 48, 49, 50, 64, 65, 66, 80, 81, 84, 96, 98, 99, 100,
        101, 102, 103, 104, 105, 106, 112, 113, 130, 144, 145, 160, 161, 162, 163, 164, 176, 177, 179, 180, 181, 182,
        183, 184, 192, 193, 208, 209, 224, 225, 226, 240, 241, 242, 256, 257, 258, 259, 260, 261, 272, 274, 275, 276,
        277, 288, 289, 304, 320, 336, 352, 368, 384, 400, 401, 416, 417, 432, 433, 437, 438, 439, 440, 441, 512, 513,
        514, 515, 516, 517, 518, 519, 520, 521,
    ];

    fn of(code: u64) -> RvError {
        match Rv::from(code) {
            Rv::Error(rv) => rv,
            Rv::Ok => panic!("{code} is CKR_OK"),
        }
    }

    #[test]
    fn every_constant_has_a_row() {
        for code in ALL {
            let row = match of(code) {
                RvError::UnknownErrorCode(code) => NUMBERED.iter().any(|row| row.0 == code),
                rv => named(rv).is_some(),
            };
            assert!(row, "{code:#x} has no row");
        }
    }

    #[test]
    fn no_constant_of_the_bindings_is_forgotten() {
        for code in 1..0x1000 {
            let known = !matches!(of(code), RvError::UnknownErrorCode(_));
            assert!(!known || ALL.contains(&code), "{code:#x} is missing from the list");
        }
    }

    #[test]
    fn the_unknown_latches_down() {
        assert_eq!(remedy(of(0x0FF)), LatchedDown);
        assert_eq!(remedy(of(0x8000_0001)), LatchedDown);
    }

    #[test]
    fn the_ladder_of_the_design() {
        for code in [0x90, 0xB0, 0xB3] {
            assert_eq!(remedy(of(code)), NewSession, "{code:#x}");
        }
        for code in [0x82, 0x60] {
            assert_eq!(remedy(of(code)), FIND_KEY, "{code:#x}");
        }
        assert_eq!(remedy(of(0x101)), LOGIN);
        for code in [0x30, 0x32, 0xE0, 0x3, 0x190] {
            assert_eq!(remedy(of(code)), ReplaceWorker, "{code:#x}");
        }
        for code in [0xA0, 0xA1, 0xA2, 0xA3, 0xA4] {
            assert_eq!(remedy(of(code)), LatchedDown, "{code:#x}");
            assert!(is_pin_error(of(code)));
        }
        assert!(!is_pin_error(of(0x101)));
    }
}
