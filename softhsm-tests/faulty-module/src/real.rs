//! The real module and the shared files, opened once for each process.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use countersign_faulty_transcript::counters::Counters;
use countersign_faulty_transcript::{ENV_DIR, ENV_MODULE, calls, transcript};
use cryptoki_sys::{CK_FUNCTION_LIST, CK_RV, CKR_OK};
use libloading::Library;

use crate::list;
use crate::operations::Operations;

/// Everything that this process's calls share.
pub(crate) struct Module {
    /// The real module's functions.
    pub(crate) real: CK_FUNCTION_LIST,
    /// Ours, a function wherever the real module has one.
    pub(crate) list: CK_FUNCTION_LIST,
    pub(crate) dir: PathBuf,
    pub(crate) counters: Counters,
    pub(crate) calls: File,
    pub(crate) transcript: File,
    pub(crate) operations: Operations,
    /// Keeps `real` valid. A static is never dropped, so it stays loaded until the process ends.
    _library: Library,
}

static MODULE: OnceLock<Module> = OnceLock::new();

/// The module, loaded at the first call.
pub(crate) fn module() -> &'static Module {
    MODULE.get_or_init(Module::load)
}

impl Module {
    fn load() -> Self {
        let dir = PathBuf::from(from_environment(ENV_DIR));
        let path = PathBuf::from(from_environment(ENV_MODULE));
        let (library, real) = load_real(&path)
            .unwrap_or_else(|reason| fatal(&format!("cannot use {} as the real module: {reason}", path.display())));
        Self {
            list: list::over(&real),
            real,
            counters: Counters::open(&dir).unwrap_or_else(|error| fatal(&error.to_string())),
            calls: open_append(&dir.join(calls::CALLS_FILE)),
            transcript: open_append(&dir.join(transcript::TRANSCRIPT_FILE)),
            operations: Operations::default(),
            dir,
            _library: library,
        }
    }
}

fn from_environment(name: &str) -> std::ffi::OsString {
    match std::env::var_os(name) {
        Some(value) if !value.is_empty() => value,
        _ => fatal(&format!("the environment variable {name} is not set")),
    }
}

fn open_append(path: &Path) -> File {
    let opened = OpenOptions::new().append(true).create(true).open(path);
    opened.unwrap_or_else(|error| fatal(&format!("{}: {error}", path.display())))
}

fn load_real(path: &Path) -> Result<(Library, CK_FUNCTION_LIST), String> {
    // SAFETY: loading runs the real module's initialisers, which is what whoever named it asks for.
    let library = unsafe { Library::new(path) }.map_err(|error| error.to_string())?;
    let mut list = std::ptr::null_mut();
    let rv = {
        type GetFunctionList = unsafe extern "C" fn(*mut *mut CK_FUNCTION_LIST) -> CK_RV;
        // SAFETY: PKCS#11 gives the function of this name this type.
        let get = unsafe { library.get::<GetFunctionList>(b"C_GetFunctionList\0") };
        let get = get.map_err(|error| error.to_string())?;
        // SAFETY: `list` is valid for writing a pointer; C_GetFunctionList may be called before C_Initialize.
        unsafe { get(&raw mut list) }
    };
    if rv != CKR_OK || list.is_null() {
        return Err(format!("C_GetFunctionList answers {rv:#x}"));
    }
    // SAFETY: CKR_OK, so the pointer is to the module's list, which stays valid while the library is loaded.
    Ok((library, unsafe { *list }))
}

/// Ends the process with a message: what a test relies on cannot be had.
pub(crate) fn fatal(reason: &str) -> ! {
    eprintln!("countersign-faulty-module: {reason}; aborting");
    std::process::abort()
}
