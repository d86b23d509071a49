//! The daemon's answers: a first ceremony in software, and trails that a test may change.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};

use countersign_proto::v1;
use countersign_proto::v1::list_records_request::Select;
use countersign_trail::checkpoint::{Checkpoint, SignedCheckpoint};
use countersign_trail::document::Mode;
use countersign_trail::dsse;
use countersign_trail::hash::Hash;
use countersign_trail::id::{EventId, MemberId, PartName, TypeName};
use countersign_trail::keys::Kid;
use countersign_trail::note::VerifierKey;
use countersign_trail::origin::Origin;
use countersign_trail::part::commitment;
use countersign_trail::record::{Category, Decision, Event, EventResult, Header, Record, write_event};
use countersign_trail::tlog_proof::TlogProof;
use countersign_trail::tree::{self, HashReader, leaf_hash, node_hash};
use tonic::{Request, Response, Status};

use crate::common::ceremony::{DECISIONS, METRICS};
use crate::common::{Ceremony, SoftKey, origin, time};

const SALT: [u8; 32] = [7; 32];

/// What the daemon says of one trail. A test lies by changing it.
#[derive(Clone)]
pub(crate) struct Trail {
    /// Leaf hashes, which heads and proofs are made of.
    pub(crate) leaves: Vec<Hash>,
    /// Records as they are given out.
    pub(crate) records: Vec<v1::StoredRecord>,
    /// The size that heads say; all of it where there is none.
    pub(crate) head_size: Option<u64>,
    /// The key that signs heads.
    pub(crate) head_kid: Kid,
}

/// Everything that the daemon says.
pub(crate) struct State {
    pub(crate) ceremony: Ceremony,
    pub(crate) trails: BTreeMap<String, Trail>,
    pub(crate) keys: Vec<v1::Key>,
    /// Whether an export goes on to its end.
    pub(crate) whole_export: bool,
    /// The parts that the last export was asked to withhold.
    pub(crate) withheld: Vec<String>,
}

#[derive(Clone)]
pub(crate) struct Daemon(Arc<Mutex<State>>);

impl Daemon {
    /// A ceremony, and `events` events in each trail behind record 0.
    pub(crate) fn new(events: u64) -> Daemon {
        let ceremony = Ceremony::new();
        let trails = [DECISIONS, METRICS].map(|name| (name.to_owned(), history(&ceremony, name, events, "first")));
        let keys = listed_keys(&ceremony);
        Daemon(Arc::new(Mutex::new(State {
            ceremony,
            trails: trails.into(),
            keys,
            whole_export: false,
            withheld: Vec::new(),
        })))
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Another history of the same trail, signed as well.
    pub(crate) fn other_history(&self, name: &str, events: u64) -> Trail {
        history(&self.state().ceremony, name, events, "second")
    }

    pub(crate) fn change(&self, name: &str, change: impl FnOnce(&mut Trail)) {
        change(self.state().trails.get_mut(name).unwrap());
    }
}

/// Record 0 and so many events; `actor` tells two histories apart.
fn history(ceremony: &Ceremony, name: &str, events: u64, actor: &str) -> Trail {
    let trail = origin(name);
    let genesis = &ceremony.genesis;
    let kid = |word: &str| {
        let of = |key: &&countersign_trail::document::GenesisKey| {
            key.trail.as_ref() == Some(&trail) && key.purpose.word() == word
        };
        genesis.keys.iter().find(of).map(|key| key.kid)
    };
    let head_kid = kid("checkpoint").unwrap();
    let (mode, vouching) = kid("record").map_or((Mode::Batch, head_kid), |kid| (Mode::Record, kid));
    let key = &ceremony.keys[&vouching];
    let mut made = Trail { leaves: Vec::new(), records: Vec::new(), head_size: None, head_kid };
    push(&mut made, key, mode, ceremony.first_records[&trail].clone(), Vec::new());
    for seq in 1..=events {
        let header = Header {
            trail: trail.clone(),
            seq,
            time: time(200 + seq as i64),
            prev: *made.leaves.last().unwrap(),
            kids: vec![vouching],
        };
        let facts = format!(r#"{{"agent":{{"name":"={actor}"}},"request_id":"r-{seq}"}}"#);
        let name = |text: &str| PartName::parse(text).unwrap();
        let committed = commitment(&name("facts"), "application/json", &SALT, facts.as_bytes());
        let event = Event {
            type_name: TypeName::parse("llm.completion").unwrap(),
            category: Category::Normal,
            decision: Decision::Allow,
            result: EventResult::Delivered,
            event_id: EventId::parse(&format!("e-{seq}")).unwrap(),
            client: MemberId::parse("gw-1").unwrap(),
            links: Vec::new(),
            parts: BTreeMap::from([(name("facts"), committed), (name("request"), Hash::of(b"kept by the client"))]),
        };
        let mut bytes = Vec::new();
        write_event(&mut bytes, &header, &event);
        let part = |name: &str, withheld, data: &str| v1::Part {
            name: name.to_owned(),
            media_type: "application/json".to_owned(),
            salt: SALT.to_vec().into(),
            data: data.as_bytes().to_vec().into(),
            withheld,
        };
        push(&mut made, key, mode, bytes, vec![part("facts", false, &facts), part("request", true, "")]);
    }
    made
}

fn push(trail: &mut Trail, key: &SoftKey, mode: Mode, bytes: Vec<u8>, parts: Vec<v1::Part>) {
    let leaf = leaf_hash(&bytes);
    let signature = match mode {
        Mode::Record => key.sign(&dsse::pae(dsse::RECORD, &bytes)),
        Mode::Batch => Vec::new(),
    };
    trail.records.push(v1::StoredRecord {
        seq: trail.leaves.len() as u64,
        leaf_hash: leaf.as_bytes().to_vec().into(),
        signature: signature.into(),
        record: bytes.into(),
        parts,
    });
    trail.leaves.push(leaf);
}

fn listed_keys(ceremony: &Ceremony) -> Vec<v1::Key> {
    let listed = |key: &countersign_trail::document::GenesisKey| {
        let public = ceremony.keys[&key.kid].public();
        let trail = key.trail.as_ref().map(Origin::to_string).unwrap_or_default();
        let vkey = if key.purpose.word().ends_with("checkpoint") {
            VerifierKey::new(&trail, public.clone()).unwrap().to_string()
        } else {
            String::new()
        };
        v1::Key {
            kid: key.kid.to_string(),
            algorithm: key.algorithm.to_string(),
            purpose: key.purpose.to_string(),
            trail,
            state: "active".to_owned(),
            spki: public.spki_der().into(),
            from_seq: 0,
            from_time: time(60).to_string(),
            vkey,
        }
    };
    ceremony.genesis.keys.iter().map(listed).collect()
}

struct Leaves<'a>(&'a [Hash]);

impl HashReader for Leaves<'_> {
    type Error = Infallible;

    fn node(&self, level: u8, index: u64) -> Result<Hash, Infallible> {
        if level == 0 {
            return Ok(self.0[index as usize]);
        }
        Ok(node_hash(self.node(level - 1, 2 * index)?, self.node(level - 1, 2 * index + 1)?))
    }
}

impl State {
    fn trail(&self, name: &str) -> Result<&Trail, Status> {
        self.trails.get(name).ok_or_else(|| Status::not_found(name.to_owned()))
    }

    fn head(&self, name: &str) -> Result<SignedCheckpoint, Status> {
        let trail = self.trail(name)?;
        let size = trail.head_size.unwrap_or(trail.leaves.len() as u64);
        let root = tree::root_at(&Leaves(&trail.leaves), size).unwrap();
        let checkpoint = Checkpoint { origin: origin(name), size, root };
        let key = &self.ceremony.keys[&trail.head_kid];
        let signature = key.sign(checkpoint.text().as_bytes());
        Ok(SignedCheckpoint::assemble(&checkpoint, &key.public(), &signature).unwrap())
    }

    pub(crate) fn get_head(&self, request: &v1::GetHeadRequest) -> Result<v1::GetHeadResponse, Status> {
        Ok(v1::GetHeadResponse { checkpoint: self.head(&request.trail)?.to_bytes().into() })
    }

    pub(crate) fn get_document(&self, request: &v1::GetDocumentRequest) -> Result<v1::GetDocumentResponse, Status> {
        let name = Hash::try_from(&request.sha256[..]).unwrap();
        let document = self.ceremony.store.0.get(&name).ok_or_else(|| Status::not_found("no such document"))?;
        Ok(v1::GetDocumentResponse { document: document.clone().into() })
    }

    pub(crate) fn get_consistency(
        &self,
        request: &v1::GetConsistencyRequest,
    ) -> Result<v1::GetConsistencyResponse, Status> {
        let trail = self.trail(&request.trail)?;
        if request.new_size > trail.leaves.len() as u64 {
            return Err(Status::out_of_range("new_size is beyond the trail"));
        }
        let hashes = tree::consistency_path(&Leaves(&trail.leaves), request.old_size, request.new_size).unwrap();
        Ok(v1::GetConsistencyResponse { hashes: hashes.iter().map(|hash| hash.as_bytes().to_vec().into()).collect() })
    }

    pub(crate) fn get_proof(&self, request: &v1::GetProofRequest) -> Result<v1::GetProofResponse, Status> {
        let trail = self.trail(&request.trail)?;
        let size = trail.leaves.len() as u64;
        let path = tree::inclusion_path(&Leaves(&trail.leaves), request.seq, size)
            .map_err(|_| Status::not_found("no such record"))?;
        let proof = TlogProof::new(None, request.seq, path, self.head(&request.trail)?).unwrap();
        Ok(v1::GetProofResponse { tlog_proof: proof.to_bytes().into() })
    }

    /// Pages of two.
    pub(crate) fn list_records(&self, request: &v1::ListRecordsRequest) -> Result<v1::ListRecordsResponse, Status> {
        let number = |id: &str, prefix: &str| id.strip_prefix(prefix).and_then(|seq| seq.parse().ok());
        let matches: Box<dyn Fn(&v1::StoredRecord) -> bool> = match request.select.clone() {
            Some(Select::FromSeq(seq)) => Box::new(move |record| record.seq >= seq),
            Some(Select::EventId(id)) => Box::new(move |record| Some(record.seq) == number(&id, "e-")),
            Some(Select::RequestId(id)) => Box::new(move |record| Some(record.seq) == number(&id, "r-")),
            Some(Select::Window(window)) => Box::new(move |record| {
                let time = Record::parse(&record.record).unwrap().header.time.to_string();
                time >= window.from && (window.to.is_empty() || time < window.to)
            }),
            None => return Err(Status::invalid_argument("select")),
        };
        let after: u64 = request.page_token.parse().unwrap_or(0);
        let all = &self.trail(&request.trail)?.records;
        let mut rest = all.iter().filter(|record| record.seq >= after && matches(record)).cloned().map(|mut record| {
            if !request.with_parts {
                record.parts.clear();
            }
            record
        });
        let records = rest.by_ref().take(2).collect();
        let next_page_token = rest.next().map(|record| record.seq.to_string()).unwrap_or_default();
        Ok(v1::ListRecordsResponse { records, next_page_token })
    }
}

/// The service's calls, each answered by the state.
macro_rules! calls {
    ($($name:ident($request:ident) -> $response:ident);+ $(;)?) => {
        #[tonic::async_trait]
        impl v1::audit_service_server::AuditService for Daemon {
            $(async fn $name(&self, request: Request<v1::$request>) -> Result<Response<v1::$response>, Status> {
                self.state().$name(request.get_ref()).map(Response::new)
            })+

            async fn list_keys(&self, _: Request<v1::ListKeysRequest>) -> Result<Response<v1::ListKeysResponse>, Status> {
                Ok(Response::new(v1::ListKeysResponse { keys: self.state().keys.clone() }))
            }

            async fn list_trails(&self, _: Request<v1::ListTrailsRequest>) -> Result<Response<v1::ListTrailsResponse>, Status> {
                Err(Status::unimplemented("list_trails"))
            }

            async fn get_status(&self, _: Request<v1::GetStatusRequest>) -> Result<Response<v1::GetStatusResponse>, Status> {
                Err(Status::unimplemented("get_status"))
            }

            type ExportStream = tokio_stream::Iter<std::vec::IntoIter<Result<v1::ExportResponse, Status>>>;

            /// Breaks off after its first chunk, unless it should be whole.
            async fn export(&self, request: Request<v1::ExportRequest>) -> Result<Response<Self::ExportStream>, Status> {
                let mut state = self.state();
                state.withheld = request.into_inner().withhold;
                let mut chunks = vec![Ok(v1::ExportResponse { chunk: b"PK".to_vec().into() })];
                if !state.whole_export {
                    chunks.push(Err(Status::unavailable("the store went away")));
                }
                Ok(Response::new(tokio_stream::iter(chunks)))
            }
        }
    };
}

calls! {
    get_head(GetHeadRequest) -> GetHeadResponse;
    get_document(GetDocumentRequest) -> GetDocumentResponse;
    get_consistency(GetConsistencyRequest) -> GetConsistencyResponse;
    get_proof(GetProofRequest) -> GetProofResponse;
    list_records(ListRecordsRequest) -> ListRecordsResponse;
}
