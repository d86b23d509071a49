//! A first ceremony: plan, software keys with their probes, records 0, genesis, people's
//! signatures, and the admin trail that holds them.

use std::collections::BTreeMap;

use countersign_trail::admin::{AdminState, Documents};
use countersign_trail::base64;
use countersign_trail::control::{Body, GenesisBody, Head, PersonSignature, PlanBody, TrailBody};
use countersign_trail::document::{
    DocumentError, FirstRecord, Genesis, GenesisKey, Member, Mode, Plan, REQUIRED_ATTRIBUTES, Role, TokenFacts,
    TokenPlan, TokenRole, TrailPlan, planned_keys,
};
use countersign_trail::dsse;
use countersign_trail::hash::Hash;
use countersign_trail::id::{InstanceId, MemberId};
use countersign_trail::jcs;
use countersign_trail::keys::{Algorithm, Kid};
use countersign_trail::origin::Origin;
use countersign_trail::record::{Content, Header, Record};
use countersign_trail::signing::{Probe, Purpose};
use countersign_trail::sshsig::Act;
use countersign_trail::time::Timestamp;
use countersign_trail::tree::leaf_hash;

use super::{Person, SoftKey};

pub(crate) const INSTANCE: &str = "acme-1";
pub(crate) const ADMIN_TRAIL: &str = "acme.example/admin";
/// In record mode: record key Ed25519, checkpoint key P-256.
pub(crate) const DECISIONS: &str = "acme.example/decisions";
/// In batch mode: checkpoint key Ed25519.
pub(crate) const METRICS: &str = "acme.example/metrics";

pub(crate) fn origin(text: &str) -> Origin {
    Origin::parse(text).unwrap()
}

/// `2026-01-01T00:00:00Z` and so many seconds.
pub(crate) fn time(seconds: i64) -> Timestamp {
    Timestamp::from_micros((1_767_225_600 + seconds) * 1_000_000).unwrap()
}

/// Documents by their SHA-256; a document's bytes can be replaced under its name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Store(pub(crate) BTreeMap<Hash, Vec<u8>>);

impl Store {
    pub(crate) fn put(&mut self, bytes: Vec<u8>) -> Hash {
        let hash = Hash::of(&bytes);
        self.0.insert(hash, bytes);
        hash
    }
}

impl Documents for Store {
    fn document(&self, hash: &Hash) -> Option<Vec<u8>> {
        self.0.get(hash).cloned()
    }
}

/// A ceremony up to the point where people sign.
pub(crate) struct Ceremony {
    pub(crate) people: Vec<Person>,
    pub(crate) plan: Plan,
    pub(crate) keys: BTreeMap<Kid, SoftKey>,
    pub(crate) genesis: Genesis,
    /// SHA-256 of the genesis document.
    pub(crate) fingerprint: Hash,
    /// Record 0 of every trail, the admin trail's included.
    pub(crate) first_records: BTreeMap<Origin, Vec<u8>>,
    pub(crate) store: Store,
}

impl Ceremony {
    /// Four administrators, two approvals, a gateway, an auditor, one trail in each mode.
    pub(crate) fn new() -> Ceremony {
        let people = [("alice", "ed25519"), ("bob", "ecdsa"), ("carol", "ed25519"), ("dave", "ed25519")];
        let people: Vec<Person> = people.iter().map(|(id, kind)| Person::new(id, kind)).collect();
        let plan = plan(&people);
        Ceremony::of(people, plan)
    }

    /// Makes the keys and the records 0 that `plan` asks for.
    pub(crate) fn of(people: Vec<Person>, plan: Plan) -> Ceremony {
        let mut store = Store::default();
        let plan_hash = store.put(plan.to_bytes().unwrap());
        let mut keys = BTreeMap::new();
        let mut made = Vec::new();
        for (seed, slot) in (1..).zip(planned_keys(&plan)) {
            let key = SoftKey::new(slot.2, seed);
            made.push(genesis_key(&key, seed, &slot));
            keys.insert(key.kid(), key);
        }
        made.sort_by_key(|key| key.kid);
        let first_records = first_records(&plan, plan_hash, &made);
        let records = first_records
            .iter()
            .map(|(trail, bytes)| FirstRecord { leaf_hash: leaf_hash(bytes), trail: trail.clone() })
            .collect();
        let genesis = Genesis {
            created: time(60),
            document: "countersign.genesis".to_owned(),
            instance: plan.instance.clone(),
            keys: made,
            plan: plan_hash,
            records,
            tokens: vec![
                token_facts(TokenRole::Admin, &plan.admin_token),
                token_facts(TokenRole::Record, &plan.record_token),
            ],
            v: 1,
        };
        let fingerprint = store.put(genesis.to_bytes().unwrap());
        Ceremony { people, plan, keys, genesis, fingerprint, first_records, store }
    }

    pub(crate) fn genesis_bytes(&self) -> Vec<u8> {
        self.genesis.to_bytes().unwrap()
    }

    /// One person's signature over the genesis document, as the admin trail names it.
    pub(crate) fn signature_of(&mut self, person: usize) -> PersonSignature {
        let person = &self.people[person];
        let armor = person.sign(Act::Genesis, &self.genesis.to_bytes().unwrap());
        PersonSignature { key: person.key.fingerprint(), member: person.id.clone(), document: self.store.put(armor) }
    }

    /// Every administrator's signature, sorted by member.
    pub(crate) fn signatures(&mut self) -> Vec<PersonSignature> {
        (0..self.people.len()).map(|person| self.signature_of(person)).collect()
    }

    /// The body of admin record 1.
    pub(crate) fn seal(&self, signatures: Vec<PersonSignature>) -> Body {
        Body::Genesis(GenesisBody { genesis: self.fingerprint, heads: self.first_heads(), signatures })
    }

    /// The heads of all trails at size 1.
    pub(crate) fn first_heads(&self) -> Vec<Head> {
        let mut heads: Vec<Head> = Vec::new();
        for first in &self.genesis.records {
            if first.trail != self.plan.admin_trail {
                heads.push(head(first.trail.as_str(), 1, first.leaf_hash));
            }
        }
        heads
    }

    /// The kid that issues for a purpose in a trail.
    pub(crate) fn kid(&self, purpose: Purpose, trail: Option<&str>) -> Kid {
        let of = |key: &&GenesisKey| key.purpose == purpose && key.trail.as_ref().map(Origin::as_str) == trail;
        self.genesis.keys.iter().find(of).unwrap().kid
    }

    pub(crate) fn admin_kid(&self) -> Kid {
        self.kid(Purpose::AdminCheckpoint, Some(ADMIN_TRAIL))
    }

    /// The bytes of an admin record.
    pub(crate) fn admin_record(&self, seq: u64, prev: Hash, body: &Body) -> Vec<u8> {
        let header = Header {
            trail: self.plan.admin_trail.clone(),
            seq,
            time: time(120 + seq as i64),
            prev,
            kids: vec![self.admin_kid()],
        };
        control_bytes(header, body)
    }

    /// Begins from the pinned fingerprint and applies admin record 0.
    pub(crate) fn begin(&self) -> AdminState {
        let mut state = AdminState::begin(self.fingerprint, &self.store).unwrap();
        let first = &self.first_records[&self.plan.admin_trail];
        state.apply(first, &self.store).unwrap();
        state
    }

    /// Begins, and applies the admin records 0 and 1 with everyone's signature.
    pub(crate) fn sealed(&mut self) -> AdminState {
        let signatures = self.signatures();
        let mut state = self.begin();
        let record = self.next(&state, &self.seal(signatures));
        state.apply(&record, &self.store).unwrap();
        state
    }

    /// The admin record that follows.
    pub(crate) fn next(&self, state: &AdminState, body: &Body) -> Vec<u8> {
        self.admin_record(state.chain().size(), state.chain().last_leaf(), body)
    }
}

pub(crate) fn head(trail: &str, size: u64, root: Hash) -> Head {
    Head { root, size, trail: origin(trail) }
}

/// The bytes of a control record.
pub(crate) fn control_bytes(header: Header, body: &Body) -> Vec<u8> {
    let content = Content::Control(body.to_control().unwrap());
    Record { header, content }.to_bytes().unwrap()
}

/// The plan of [`Ceremony::new`].
pub(crate) fn plan(people: &[Person]) -> Plan {
    let mut members: Vec<Member> = people
        .iter()
        .map(|person| {
            let mut member = member(person.id.as_str(), Role::Administrator);
            member.ssh_keys = vec![person.key.clone()];
            member
        })
        .collect();
    members.push(member("audrey", Role::Auditor));
    let mut gateway = member("gw-1", Role::Gateway);
    gateway.grants = vec![origin(DECISIONS), origin(METRICS)];
    members.push(gateway);
    members.push(member("olga", Role::Operator));
    members.sort_by(|a, b| a.id.cmp(&b.id));
    Plan {
        admin_algorithm: Algorithm::EcdsaP256,
        admin_token: token_plan("countersign-admin", "0a0a0a0a0a0a0a0a"),
        admin_trail: origin(ADMIN_TRAIL),
        approvals: 2,
        client_roots: vec![base64::std_encode(&[0x30, 0x03, 0x02, 0x01, 0x05])],
        created: time(0),
        document: "countersign.plan".to_owned(),
        evidence_algorithm: Algorithm::Ed25519,
        instance: InstanceId::parse(INSTANCE).unwrap(),
        members,
        nonce: Hash::of(b"nonce"),
        predecessor: None,
        record_token: token_plan("countersign-record", "0b0b0b0b0b0b0b0b"),
        trails: vec![
            TrailPlan {
                checkpoint_algorithm: Algorithm::EcdsaP256,
                mode: Mode::Record,
                origin: origin(DECISIONS),
                record_algorithm: Some(Algorithm::Ed25519),
            },
            TrailPlan {
                checkpoint_algorithm: Algorithm::Ed25519,
                mode: Mode::Batch,
                origin: origin(METRICS),
                record_algorithm: None,
            },
        ],
        v: 1,
    }
}

/// A member with one SPIFFE ID and no keys.
pub(crate) fn member(id: &str, role: Role) -> Member {
    Member {
        grants: Vec::new(),
        id: MemberId::parse(id).unwrap(),
        name: format!("The member {id}"),
        role,
        spiffe_ids: vec![format!("spiffe://acme.example/{id}")],
        ssh_keys: Vec::new(),
    }
}

fn token_plan(label: &str, serial: &str) -> TokenPlan {
    TokenPlan { label: label.to_owned(), serial: serial.to_owned() }
}

fn token_facts(role: TokenRole, plan: &TokenPlan) -> TokenFacts {
    TokenFacts {
        firmware: "2.6".to_owned(),
        label: plan.label.clone(),
        manufacturer: "Tests".to_owned(),
        model: "Software".to_owned(),
        module: Hash::of(b"module"),
        role,
        serial: plan.serial.clone(),
    }
}

type Slot = (Purpose, Option<Origin>, Algorithm, TokenRole);

fn genesis_key(key: &SoftKey, seed: u8, slot: &Slot) -> GenesisKey {
    let (purpose, trail, algorithm, token) = slot.clone();
    let probe = probe(key, INSTANCE, seed);
    GenesisKey {
        algorithm,
        attributes: REQUIRED_ATTRIBUTES.map(|(name, value)| (name.to_owned(), value)).into(),
        cka_id: hex::encode([seed; 16]),
        kid: key.kid(),
        origin: "generated".to_owned(),
        probe: base64::std_encode(&probe),
        probe_signature: base64::std_encode(&key.sign(&dsse::pae(dsse::PROBE, &probe))),
        purpose,
        spki: base64::std_encode(&key.public().spki_der()),
        token,
        trail,
    }
}

/// The payload of a probe of `key`.
pub(crate) fn probe(key: &SoftKey, instance: &str, seed: u8) -> Vec<u8> {
    let probe = Probe {
        instance: InstanceId::parse(instance).unwrap(),
        kid: key.kid(),
        nonce: Hash::of(&[seed]),
        time: time(30),
    };
    jcs::to_canonical(&probe).unwrap()
}

fn first_records(plan: &Plan, plan_hash: Hash, keys: &[GenesisKey]) -> BTreeMap<Origin, Vec<u8>> {
    let kid = |trail: &Origin, purpose: Purpose| {
        let of = |key: &&GenesisKey| key.trail.as_ref() == Some(trail) && key.purpose == purpose;
        keys.iter().find(of).unwrap().kid
    };
    let header = |trail: &Origin, prev, purpose| Header {
        trail: trail.clone(),
        seq: 0,
        time: time(60),
        prev,
        kids: vec![kid(trail, purpose)],
    };
    let admin = control_bytes(
        header(&plan.admin_trail, plan_hash, Purpose::AdminCheckpoint),
        &Body::Plan(PlanBody { plan: plan_hash }),
    );
    let admin_leaf = leaf_hash(&admin);
    let mut records = BTreeMap::from([(plan.admin_trail.clone(), admin)]);
    for trail in &plan.trails {
        let purpose = match trail.mode {
            Mode::Record => Purpose::Record,
            Mode::Batch => Purpose::Checkpoint,
        };
        let body = Body::Trail(TrailBody { admin_seq: 0, admin_trail: plan.admin_trail.clone(), mode: trail.mode });
        let bytes = control_bytes(header(&trail.origin, admin_leaf, purpose), &body);
        records.insert(trail.origin.clone(), bytes);
    }
    records
}

/// Asserts that a rule of `document` is what is broken, and that its text holds `problem`.
pub(crate) fn broken_rule(result: Result<impl std::fmt::Debug, DocumentError>, document: &str, problem: &str) {
    match result {
        Err(DocumentError::Rule { document: of, problem: found }) => {
            assert_eq!(of, document);
            assert!(found.contains(problem), "{found:?} lacks {problem:?}");
        }
        other => panic!("{problem:?}: {other:?}"),
    }
}
