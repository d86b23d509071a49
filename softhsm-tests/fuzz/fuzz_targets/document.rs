//! Plans, genesis documents, and the admin trail that replays them.
#![no_main]

use std::collections::BTreeMap;
use std::sync::OnceLock;

use countersign_fuzz::{genuine, other_spellings, text, vectors};
use countersign_trail::admin::{AdminState, Documents};
use countersign_trail::document::{Genesis, Mode, Plan, planned_keys};
use countersign_trail::hash::Hash;
use libfuzzer_sys::fuzz_target;

#[derive(Clone, Default)]
struct Store(BTreeMap<Hash, Vec<u8>>);

impl Store {
    fn put(&mut self, bytes: &[u8]) -> Hash {
        let hash = Hash::of(bytes);
        self.0.insert(hash, bytes.to_vec());
        hash
    }
}

impl Documents for Store {
    fn document(&self, hash: &Hash) -> Option<Vec<u8>> {
        self.0.get(hash).cloned()
    }
}

/// The ceremony of the vectors.
struct Ceremony {
    store: Store,
    plan: Plan,
    plan_hash: Hash,
    records: [Vec<u8>; 2],
    /// The admin trail before each of its records.
    before: [AdminState; 2],
}

fn ceremony() -> &'static Ceremony {
    static CEREMONY: OnceLock<Ceremony> = OnceLock::new();
    CEREMONY.get_or_init(|| {
        let vectors = vectors("documents");
        let mut store = Store::default();
        let plan_hash = store.put(text(&vectors["plan"]).as_bytes());
        let fingerprint = store.put(text(&vectors["genesis"]).as_bytes());
        for signature in vectors["signatures"].as_array().unwrap() {
            store.put(text(&signature["armor"]).as_bytes());
        }
        let records = [0, 1].map(|at| text(&vectors["admin_records"][at]).as_bytes().to_vec());
        let begun = AdminState::begin(fingerprint, &store).unwrap();
        let mut first = begun.clone();
        first.apply(&records[0], &store).unwrap();
        let plan = Plan::parse(&store.0[&plan_hash]).unwrap();
        Ceremony { store, plan, plan_hash, records, before: [begun, first] }
    })
}

fn seeds() {
    let vectors = vectors("documents");
    genuine([text(&vectors["plan"])], |bytes| Plan::parse(bytes).is_ok());
    genuine([text(&vectors["genesis"])], |bytes| Genesis::parse(bytes).is_ok());
    let applies = |at: usize| move |bytes: &[u8]| ceremony().before[at].clone().apply(bytes, &ceremony().store).is_ok();
    genuine([&ceremony().records[0]], applies(0));
    genuine([&ceremony().records[1]], applies(1));
}

fuzz_target!(init: seeds(), |bytes: &[u8]| {
    if let Ok(plan) = Plan::parse(bytes) {
        assert_eq!(plan.to_bytes().unwrap(), bytes);
        let record_trails = plan.trails.iter().filter(|trail| trail.mode == Mode::Record).count();
        assert_eq!(planned_keys(&plan).len(), 2 + plan.trails.len() + record_trails);
        assert!(plan.administrators().count() as u64 >= u64::from(plan.approvals) + 2);
        for other in other_spellings(bytes) {
            assert!(Plan::parse(&other).is_err(), "{}", String::from_utf8_lossy(&other));
        }
    }
    if let Ok(genesis) = Genesis::parse(bytes) {
        assert_eq!(genesis.to_bytes().unwrap(), bytes);
        for other in other_spellings(bytes) {
            assert!(Genesis::parse(&other).is_err(), "{}", String::from_utf8_lossy(&other));
        }
        // The replay begins with exactly what the check takes.
        let checked = genesis.check(&ceremony().plan, &ceremony().plan_hash);
        let mut store = ceremony().store.clone();
        let begun = AdminState::begin(store.put(bytes), &store);
        assert_eq!(checked.is_ok(), begun.is_ok());
        if let (Ok(keys), Ok(begun)) = (checked, begun) {
            assert_eq!(keys.len(), begun.keys.len());
            assert!(keys.iter().all(|key| begun.keys[&key.kid()].key == *key));
        }
    }
    let Ceremony { store, records, before, .. } = ceremony();
    // The genesis document names the one record 0 that there may be.
    assert_eq!(before[0].clone().apply(bytes, store).is_ok(), *bytes == records[0]);
    let mut sealed = before[1].clone();
    assert_eq!(sealed.apply(bytes, store).is_ok(), sealed.require_sealed().is_ok());
});
