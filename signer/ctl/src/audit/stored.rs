//! Records as the daemon stores them, checked: place, leaf hash, signature or proof, parts.

use countersign_proto::v1;
use countersign_trail::document::Mode;
use countersign_trail::dsse;
use countersign_trail::hash::Hash;
use countersign_trail::id::PartName;
use countersign_trail::origin::Origin;
use countersign_trail::part::{SALT_LEN, commitment};
use countersign_trail::record::{Content, Record};
use countersign_trail::tlog_proof::TlogProof;
use countersign_trail::tree::leaf_hash;
use serde::Serialize;

use crate::exit::{Exit, Failure, Outcome};
use crate::remote::{Remote, Trust, of_status};

/// A record that is what it says.
pub(crate) struct Checked {
    /// Its exact bytes.
    pub(crate) bytes: Vec<u8>,
    /// What they say.
    pub(crate) record: Record,
    /// RFC 6962 leaf hash.
    pub(crate) leaf: Hash,
    /// Record mode: its signature in wire form, verified.
    pub(crate) signature: Option<Vec<u8>>,
    /// The parts that the daemon gave, each checked against its commitment.
    pub(crate) parts: Vec<Part>,
}

/// A part of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// Its name.
    pub(crate) name: PartName,
    /// What the record commits to.
    pub(crate) commitment: Hash,
    /// Its content; none where only the commitment is known here.
    pub(crate) content: Option<PartContent>,
}

/// A part's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PartContent {
    /// Its media type.
    pub(crate) media_type: String,
    /// Its bytes.
    pub(crate) data: Vec<u8>,
}

/// Where a part's content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PartState {
    /// Here, and what the record commits to.
    Held,
    /// Not here: the client keeps it, or it was not asked for.
    Withheld,
}

impl Part {
    /// Where the content is.
    pub(crate) fn state(&self) -> PartState {
        if self.content.is_some() { PartState::Held } else { PartState::Withheld }
    }
}

fn tampered(trail: &Origin, seq: u64, problem: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Tampered, format!("record {seq} of {trail} is not believed: {problem}"))
        .todo("Keep this output; export the evidence and verify it with countersign-verify.")
}

/// Checks a stored record by itself: that it is of `trail`, its leaf hash, its signature under the
/// key that the genesis authorises, and the commitment of each part. In batch mode nothing here
/// proves its place: see [`prove`].
pub(crate) fn check(trust: &Trust, trail: &Origin, stored: &v1::StoredRecord) -> Outcome<Checked> {
    let seq = stored.seq;
    let entry = trust.state.trail(trail).ok_or_else(|| trust.unknown(trail))?;
    let record = Record::parse(&stored.record).map_err(|error| tampered(trail, seq, error))?;
    if record.header.trail != *trail || record.header.seq != seq {
        return Err(tampered(
            trail,
            seq,
            format!("it says that it is record {} of {}", record.header.seq, record.header.trail),
        ));
    }
    let leaf = leaf_hash(&stored.record);
    if stored.leaf_hash != leaf.as_bytes()[..] {
        return Err(tampered(
            trail,
            seq,
            format!("its leaf hash is {leaf}, the daemon says {}", hex::encode(&stored.leaf_hash)),
        ));
    }
    if record.header.kids != entry.record_kids() {
        return Err(tampered(trail, seq, "it does not name the key that the genesis authorises"));
    }
    let signature = match (entry.mode, entry.record_key) {
        (Mode::Record, Some(kid)) => {
            let key = trust.key(&kid).ok_or_else(|| trust.unknown(trail))?;
            let message = dsse::pae(dsse::RECORD, &stored.record);
            key.verify(&message, &stored.signature).map_err(|error| tampered(trail, seq, error))?;
            Some(stored.signature.to_vec())
        }
        _ => None,
    };
    let parts = check_parts(trail, seq, &record, &stored.parts)?;
    Ok(Checked { bytes: stored.record.to_vec(), record, leaf, signature, parts })
}

fn check_parts(trail: &Origin, seq: u64, record: &Record, given: &[v1::Part]) -> Outcome<Vec<Part>> {
    let Content::Event(event) = &record.content else {
        return if given.is_empty() { Ok(Vec::new()) } else { Err(tampered(trail, seq, "parts of a control record")) };
    };
    for part in given {
        if !event.parts.keys().any(|name| name.as_str() == part.name) {
            return Err(tampered(trail, seq, format!("part {:?} is not in the record", part.name)));
        }
    }
    let mut parts = Vec::new();
    for (name, committed) in &event.parts {
        let stored = given.iter().find(|part| part.name == name.as_str() && !part.withheld);
        let content = match stored {
            Some(part) => {
                let salt: [u8; SALT_LEN] =
                    part.salt.as_ref().try_into().map_err(|_| {
                        tampered(trail, seq, format!("part {name}: a salt of {} bytes", part.salt.len()))
                    })?;
                let found = commitment(name, &part.media_type, &salt, &part.data);
                if found != *committed {
                    return Err(tampered(
                        trail,
                        seq,
                        format!("part {name} has commitment {found}, the record says {committed}"),
                    ));
                }
                Some(PartContent { media_type: part.media_type.clone(), data: part.data.to_vec() })
            }
            None => None,
        };
        parts.push(Part { name: name.clone(), commitment: *committed, content });
    }
    Ok(parts)
}

/// The proof that the record with leaf hash `leaf` stands at `seq`, verified under the trail's
/// checkpoint key.
pub(crate) async fn prove(
    remote: &mut Remote,
    trust: &Trust,
    trail: &Origin,
    seq: u64,
    leaf: Hash,
) -> Outcome<TlogProof> {
    let request = v1::GetProofRequest { trail: trail.to_string(), seq };
    let answer = remote.audit.get_proof(request).await.map_err(|status| of_status(&status))?;
    let proof = TlogProof::parse(&answer.into_inner().tlog_proof).map_err(|error| tampered(trail, seq, error))?;
    if proof.index() != seq || proof.checkpoint().checkpoint().origin != *trail {
        return Err(tampered(
            trail,
            seq,
            format!("the proof is of record {} of {}", proof.index(), proof.checkpoint().checkpoint().origin),
        ));
    }
    proof.verify(leaf, trust.checkpoint_key(trail)?).map_err(|error| tampered(trail, seq, error))?;
    Ok(proof)
}

/// One page of a query.
pub(crate) async fn page(remote: &mut Remote, request: v1::ListRecordsRequest) -> Outcome<v1::ListRecordsResponse> {
    let answer = remote.audit.list_records(request).await.map_err(|status| of_status(&status))?;
    Ok(answer.into_inner())
}
