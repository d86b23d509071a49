//! The layout of an evidence bundle: which files it holds, in which order, with which bytes.
//!
//! A bundle is an archive in the profile of [`crate::archive`]. Its files, in this very order:
//!
//! | file | what |
//! |---|---|
//! | `documents/<sha256>` | every document that the admin trail names, by ascending hash |
//! | `keys.json` | the key file: every key that ever was, by ascending kid |
//! | `jwks.json` | the same keys as a JWK Set (RFC 7517) |
//! | `keys/<kid>.pem` | each key as SubjectPublicKeyInfo in PEM (RFC 7468), by ascending kid |
//! | `vkeys.txt` | a C2SP verifier key line for each checkpoint key, sorted as text |
//! | `trails/<origin>/…` | the admin trail, then every other exported trail by ascending origin |
//! | `manifest.dsse.json` | the manifest: the digest of every file before it, signed |
//!
//! `<origin>` has `~` for `/`. In the folder of a trail, for a tree of the checkpoint's size:
//!
//! | file | what |
//! |---|---|
//! | `checkpoint` | the signed checkpoint (C2SP tlog-checkpoint) |
//! | `tile/entries/<n>` | the records, 256 a file (C2SP tlog-tiles) |
//! | `tile/<level>/<n>` | the tree's hashes, by level, then by index |
//! | `signatures/<n>` | record mode only: for each record of the tile one line, its DSSE envelope |
//! | `parts/<n>` | the stored parts of the tile's records, one line each; see [`PartLine`] |
//!
//! `<n>` is the index of a tile as C2SP writes it (`x001/234`), with `.p/<width>` where the tile is
//! not full. A file that would be empty is not there. Kids and hashes ascend as bytes.
//!
//! Everything up to the manifest follows from the trails and the admin trail alone, so the verifier
//! derives it again and compares bytes.

mod keyfile;
mod manifest;
mod name;
mod parts;
mod rows;
mod signatures;
mod writer;

pub use keyfile::{KeyFileError, KeyFiles, derive_key_files};
pub use manifest::{
    Digest, MANIFEST_PREDICATE_TYPE, ManifestError, Predicate, STATEMENT_TYPE, Statement, Subject, TrailHead,
};
pub use name::{FileName, NameError, TrailFile, trail_files};
pub use parts::{MAX_PART_LINE_LEN, PartLine, PartsError, parse_parts, write_parts};
pub use rows::tile_rows;
pub use signatures::{RecordSignature, SignaturesError, parse_signatures, write_signatures};
pub use writer::{BundleWriter, EvidenceError};

/// Name of the key file.
pub const KEY_FILE: &str = "keys.json";
/// Name of the JWK Set.
pub const JWKS_FILE: &str = "jwks.json";
/// Name of the verifier key lines.
pub const VKEYS_FILE: &str = "vkeys.txt";
/// Name of the manifest, the last file.
pub const MANIFEST_FILE: &str = "manifest.dsse.json";
