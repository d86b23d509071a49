//! Writes a bundle in one forward pass.
//!
//! The writer holds names, digests and the archive's directory (some 600 bytes a file), never a
//! trail. Each call gives the bytes to append to the stream.

use std::collections::{BTreeMap, VecDeque};

use crate::admin::AdminState;
use crate::archive::{ArchiveError, ArchiveWriter};
use crate::checkpoint::{CheckpointError, SignedCheckpoint};
use crate::document::Mode;
use crate::dsse::{DsseError, Envelope, Signature};
use crate::hash::Hash;
use crate::id::{InstanceId, PartName};
use crate::keys::PublicKey;
use crate::origin::Origin;
use crate::signing::{MAX_STATEMENT_LEN, STATEMENT_PAYLOAD_TYPE};
use crate::tiles::{self, TileError, TileKind, TilePath};
use crate::time::Timestamp;

use super::{
    Digest, FileName, KeyFileError, KeyFiles, ManifestError, PartLine, Predicate, RecordSignature, SignaturesError,
    Statement, Subject, TrailFile, TrailHead, derive_key_files, trail_files, write_parts, write_signatures,
};

/// Bytes of a manifest line beside the file's name: `{"digest":{"sha256":"…"},"name":"…"},`.
const SUBJECT_LEN: usize = 27 + 64 + 12;
/// Bytes of a manifest beside its file lines: 65 trails of at most 320 bytes, and 4,096 for the rest.
const PREDICATE_LEN: usize = 65 * 320 + 4096;

/// Why the writer refuses a step. Nothing was written; the bundle cannot be finished without it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvidenceError {
    /// A step out of order.
    #[error("the bundle wants {expected} next, not {found}")]
    Order {
        /// What comes next.
        expected: String,
        /// What was given.
        found: String,
    },
    /// A trail that the admin trail does not know.
    #[error("{0} is not a trail of this genesis")]
    UnknownTrail(Origin),
    /// The admin trail's checkpoint is not that of the state which the bundle is made from.
    #[error(
        "the admin trail's checkpoint has size {found}, the replayed admin trail has size {expected}, or their roots differ"
    )]
    AdminHead {
        /// Size of the replayed admin trail.
        expected: u64,
        /// Size in the checkpoint.
        found: u64,
    },
    /// The instance has no evidence key.
    #[error("the genesis names no evidence key")]
    NoEvidenceKey,
    /// The bundle's manifest would pass its bound.
    #[error("the manifest would have more than {MAX_STATEMENT_LEN} bytes; export fewer trails in one bundle")]
    TooManyFiles,
    /// A tile of another width than the checkpoint's size demands, or beyond it.
    #[error("tile: {0}")]
    Tile(#[from] TileError),
    /// The archive refuses a file.
    #[error("archive: {0}")]
    Archive(#[from] ArchiveError),
    /// A checkpoint that does not verify under the trail's key.
    #[error("checkpoint: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// A record signature that fits no envelope.
    #[error("signatures: {0}")]
    Signatures(#[from] SignaturesError),
    /// The key files cannot be made.
    #[error(transparent)]
    Keys(#[from] KeyFileError),
    /// The statement cannot be made.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The statement's signature does not hold.
    #[error("manifest signature: {0}")]
    Signature(#[from] DsseError),
}

/// The trail that is being written.
struct OpenTrail {
    origin: Origin,
    size: u64,
    /// The files that must still come, in order.
    required: Box<dyn Iterator<Item = TrailFile> + Send>,
    next: Option<TrailFile>,
    /// The lowest tile whose parts may still come.
    parts_from: u64,
}

/// Writes a bundle: [`document`](Self::document) for each of [`documents`](Self::documents),
/// [`keys`](Self::keys); then for the admin trail and each other trail by ascending origin
/// [`begin_trail`](Self::begin_trail), every [`entries_tile`](Self::entries_tile), every
/// [`hash_tile`](Self::hash_tile) by level and index, in record mode every
/// [`signatures_tile`](Self::signatures_tile), and a [`parts_tile`](Self::parts_tile) where there
/// are parts; at last [`manifest_statement`](Self::manifest_statement) and
/// [`finish`](Self::finish).
pub struct BundleWriter {
    archive: ArchiveWriter,
    subjects: Vec<Subject>,
    statement_len: usize,
    documents: VecDeque<Hash>,
    keys: Option<KeyFiles>,
    admin: TrailHead,
    /// Every trail with its mode and checkpoint key.
    trails: BTreeMap<Origin, (Mode, PublicKey)>,
    evidence_key: PublicKey,
    genesis: Hash,
    instance: InstanceId,
    heads: Vec<TrailHead>,
    open: Option<OpenTrail>,
    statement: Option<Vec<u8>>,
}

impl BundleWriter {
    /// Begins a bundle of the appliance whose admin trail was replayed into `state`. The admin
    /// trail is exported at the size of that state.
    ///
    /// # Errors
    /// [`EvidenceError::NoEvidenceKey`], [`EvidenceError::Keys`]; neither for a replayed state.
    pub fn new(state: &AdminState) -> Result<BundleWriter, EvidenceError> {
        let admin_origin = &state.plan.admin_trail;
        let every = state.trails.iter().chain([(admin_origin, &state.admin)]);
        let keyed = every.filter_map(|(origin, entry)| {
            let key = state.keys.get(&entry.checkpoint_key)?.key.clone();
            Some((origin.clone(), (entry.mode, key)))
        });
        let chain = state.chain();
        Ok(BundleWriter {
            archive: ArchiveWriter::new(),
            subjects: Vec::new(),
            statement_len: PREDICATE_LEN,
            documents: state.documents.iter().copied().collect(),
            keys: Some(derive_key_files(state)?),
            admin: TrailHead { origin: admin_origin.clone(), root: chain.root(), size: chain.size() },
            trails: keyed.collect(),
            evidence_key: state.evidence_key().ok_or(EvidenceError::NoEvidenceKey)?.key.clone(),
            genesis: state.fingerprint,
            instance: state.plan.instance.clone(),
            heads: Vec::new(),
            open: None,
            statement: None,
        })
    }

    /// The documents that must still come, in order.
    pub fn documents(&self) -> impl ExactSizeIterator<Item = &Hash> {
        self.documents.iter()
    }

    /// Writes the next document of [`documents`](Self::documents).
    ///
    /// # Errors
    /// [`EvidenceError::Order`] for another one; [`EvidenceError::Archive`].
    pub fn document(&mut self, bytes: &[u8]) -> Result<Vec<u8>, EvidenceError> {
        let name = FileName::Document(Hash::of(bytes));
        let expected = self.documents.front().copied().map(FileName::Document);
        if expected.as_ref() != Some(&name) {
            return Err(order(expected.map_or("the keys".to_owned(), |name| name.to_string()), name));
        }
        let out = self.put(&name, bytes)?;
        self.documents.pop_front();
        Ok(out)
    }

    /// Writes the key file and what is generated from it.
    ///
    /// # Errors
    /// [`EvidenceError::Order`] before the documents or a second time; [`EvidenceError::Archive`].
    pub fn keys(&mut self) -> Result<Vec<u8>, EvidenceError> {
        if let Some(hash) = self.documents.front() {
            return Err(order(FileName::Document(*hash), FileName::KeyFile));
        }
        let Some(keys) = self.keys.take() else {
            return Err(order("a trail", FileName::KeyFile));
        };
        let mut out = self.put(&FileName::KeyFile, &keys.key_file)?;
        out.extend(self.put(&FileName::Jwks, &keys.jwks)?);
        for (kid, pem) in &keys.pems {
            out.extend(self.put(&FileName::Pem(*kid), pem)?);
        }
        out.extend(self.put(&FileName::Vkeys, &keys.vkeys)?);
        Ok(out)
    }

    /// Begins a trail at the size of its checkpoint, and writes that.
    ///
    /// # Errors
    /// [`EvidenceError::Order`], [`EvidenceError::UnknownTrail`], [`EvidenceError::AdminHead`],
    /// [`EvidenceError::Checkpoint`] for a signature that does not hold, [`EvidenceError::Archive`].
    pub fn begin_trail(&mut self, checkpoint: &SignedCheckpoint) -> Result<Vec<u8>, EvidenceError> {
        let head = checkpoint.checkpoint();
        let name = FileName::Trail(head.origin.clone(), TrailFile::Checkpoint);
        if self.keys.is_some() {
            return Err(order("the documents and the keys", name));
        }
        self.require_closed(&name)?;
        let unknown = || EvidenceError::UnknownTrail(head.origin.clone());
        let (mode, key) = self.trails.get(&head.origin).ok_or_else(unknown)?;
        match self.heads.as_slice() {
            [] if head.origin != self.admin.origin => {
                return Err(order(FileName::Trail(self.admin.origin.clone(), TrailFile::Checkpoint), name));
            }
            [] if (head.size, head.root) != (self.admin.size, self.admin.root) => {
                return Err(EvidenceError::AdminHead { expected: self.admin.size, found: head.size });
            }
            [_, .., last] if last.origin >= head.origin => {
                return Err(order(format!("a trail after {}", last.origin), name));
            }
            [_] if head.origin == self.admin.origin => return Err(order("another trail", name)),
            _ => {}
        }
        checkpoint.verify(key)?;
        let mut required = trail_files(head.size, *mode)?.skip(1);
        let next = required.next();
        let open = OpenTrail {
            origin: head.origin.clone(),
            size: head.size,
            required: Box::new(required),
            next,
            parts_from: 0,
        };
        let out = self.put(&name, &checkpoint.to_bytes())?;
        self.open = Some(open);
        self.heads.push(TrailHead { origin: head.origin.clone(), root: head.root, size: head.size });
        Ok(out)
    }

    /// Writes the records of tile `n`: 256, or what is left for the last.
    ///
    /// # Errors
    /// [`EvidenceError::Order`] for another tile or width than the next; [`EvidenceError::Tile`];
    /// [`EvidenceError::Archive`].
    pub fn entries_tile<R: AsRef<[u8]>>(&mut self, n: u64, records: &[R]) -> Result<Vec<u8>, EvidenceError> {
        let file = TrailFile::Entries(tile(TileKind::Entries, n, records.len())?);
        self.put_required(file, || Ok(tiles::encode_bundle(records)?))
    }

    /// Writes the hashes of tile `n` of a tile level: the nodes of the tree's level 8 * `level`.
    ///
    /// # Errors
    /// As [`entries_tile`](Self::entries_tile).
    pub fn hash_tile(&mut self, level: u8, n: u64, hashes: &[Hash]) -> Result<Vec<u8>, EvidenceError> {
        let file = TrailFile::Hashes(tile(TileKind::Hashes(level), n, hashes.len())?);
        self.put_required(file, || Ok(tiles::encode_hashes(hashes)?))
    }

    /// Writes the signatures of the records of tile `n`, in their order.
    ///
    /// # Errors
    /// As [`entries_tile`](Self::entries_tile); [`EvidenceError::Signatures`].
    pub fn signatures_tile(&mut self, n: u64, signatures: &[RecordSignature<'_>]) -> Result<Vec<u8>, EvidenceError> {
        let file = TrailFile::Signatures(tile(TileKind::Entries, n, signatures.len())?);
        self.put_required(file, || Ok(write_signatures(signatures)?))
    }

    /// Writes the stored parts of the records of tile `n`, by ascending (seq, name). A tile without
    /// parts is left out: no parts, no file, no bytes.
    ///
    /// # Errors
    /// [`EvidenceError::Order`] before the trail's other files, for a tile that does not come after
    /// the last, and for lines out of order or of another tile's records; [`EvidenceError::Archive`].
    pub fn parts_tile(&mut self, n: u64, parts: &[PartLine]) -> Result<Vec<u8>, EvidenceError> {
        if parts.is_empty() {
            return Ok(Vec::new());
        }
        let Some(open) = &self.open else {
            return Err(order("a trail", format!("parts of tile {n}")));
        };
        if let Some(next) = open.next {
            return Err(order(next, format!("parts of tile {n}")));
        }
        let width = u64::from(tiles::TILE_WIDTH);
        let first = n.saturating_mul(width);
        let here = open.size.saturating_sub(first).min(width);
        let path = TilePath::new(TileKind::Entries, n, here as u16)?;
        if n < open.parts_from {
            return Err(order(format!("parts of tile {} or later", open.parts_from), format!("parts of tile {n}")));
        }
        let ascending = parts.windows(2).all(|pair| (pair[0].seq(), pair[0].name()) < (pair[1].seq(), pair[1].name()));
        let of_tile = parts.iter().all(|part| (first..first + here).contains(&part.seq()));
        if !ascending || !of_tile {
            let expected = format!("parts of records {first} to {} by (seq, name)", first + here - 1);
            return Err(order(expected, "other parts, or another order"));
        }
        let name = FileName::Trail(open.origin.clone(), TrailFile::Parts(path));
        let out = self.put(&name, &write_parts(parts))?;
        if let Some(open) = &mut self.open {
            open.parts_from = n + 1;
        }
        Ok(out)
    }

    /// The manifest's statement: the payload that the evidence key signs in DSSE, with payload type
    /// [`STATEMENT_PAYLOAD_TYPE`]. `number` is the key's next statement number; `withheld` are the
    /// names of parts that were left out on purpose, ascending. May be called again.
    ///
    /// # Errors
    /// [`EvidenceError::Order`] while something is missing; [`EvidenceError::Manifest`].
    pub fn manifest_statement(
        &mut self,
        created: Timestamp,
        number: u64,
        withheld: Vec<PartName>,
    ) -> Result<Vec<u8>, EvidenceError> {
        self.require_closed(&FileName::Manifest)?;
        if self.heads.is_empty() {
            return Err(order("the admin trail", FileName::Manifest));
        }
        let predicate = Predicate {
            created,
            genesis: self.genesis,
            instance: self.instance.clone(),
            kid: self.evidence_key.kid(),
            number,
            trails: self.heads.clone(),
            v: 1,
            withheld,
        };
        let payload = Statement::new(self.subjects.clone(), predicate).to_bytes()?;
        // What cannot be read again is not signed.
        Statement::parse(&payload)?;
        self.statement = Some(payload.clone());
        Ok(payload)
    }

    /// Writes the manifest with the evidence key's signature (wire form) and ends the bundle.
    ///
    /// # Errors
    /// [`EvidenceError::Order`] without a statement; [`EvidenceError::Signature`] for one that does
    /// not hold; [`EvidenceError::Archive`].
    pub fn finish(mut self, signature: &[u8]) -> Result<Vec<u8>, EvidenceError> {
        let Some(payload) = self.statement.take() else {
            return Err(order("the statement", "its signature"));
        };
        let signature = Signature { keyid: self.evidence_key.kid(), sig: signature.to_vec() };
        let envelope = Envelope::new(STATEMENT_PAYLOAD_TYPE, payload, vec![signature])?;
        envelope.verify(STATEMENT_PAYLOAD_TYPE, &self.evidence_key)?;
        let json = envelope.to_json();
        let (mut out, content) = self.archive.push(&FileName::Manifest.to_string(), &json)?;
        out.extend_from_slice(content);
        out.extend(self.archive.finish());
        Ok(out)
    }

    /// Refuses to go on while a trail lacks files.
    fn require_closed(&self, found: &FileName) -> Result<(), EvidenceError> {
        match self.open.as_ref().and_then(|open| Some((open, open.next?))) {
            Some((open, next)) => Err(order(FileName::Trail(open.origin.clone(), next), found)),
            None => Ok(()),
        }
    }

    fn put_required(
        &mut self,
        file: TrailFile,
        content: impl FnOnce() -> Result<Vec<u8>, EvidenceError>,
    ) -> Result<Vec<u8>, EvidenceError> {
        let Some(open) = &self.open else {
            return Err(order("a trail", file));
        };
        if open.next != Some(file) {
            return Err(order(open.next.map_or("parts or another trail".to_owned(), |next| next.to_string()), file));
        }
        let name = FileName::Trail(open.origin.clone(), file);
        let out = self.put(&name, &content()?)?;
        if let Some(open) = &mut self.open {
            open.next = open.required.next();
        }
        Ok(out)
    }

    fn put(&mut self, name: &FileName, content: &[u8]) -> Result<Vec<u8>, EvidenceError> {
        let name = name.to_string();
        let statement_len = self.statement_len + SUBJECT_LEN + name.len();
        if statement_len > MAX_STATEMENT_LEN {
            return Err(EvidenceError::TooManyFiles);
        }
        let (mut out, content) = self.archive.push(&name, content)?;
        out.extend_from_slice(content);
        self.statement_len = statement_len;
        // A statement made before would not name this file.
        self.statement = None;
        self.subjects.push(Subject { digest: Digest { sha256: Hash::of(content) }, name });
        Ok(out)
    }
}

fn order(expected: impl ToString, found: impl ToString) -> EvidenceError {
    EvidenceError::Order { expected: expected.to_string(), found: found.to_string() }
}

fn tile(kind: TileKind, n: u64, width: usize) -> Result<TilePath, TileError> {
    TilePath::new(kind, n, u16::try_from(width).map_err(|_| TileError::Width(width as u64))?)
}
