//! Pages over a store that was filled without an HSM: nothing here looks at signatures.

use std::collections::BTreeMap;

use countersign_trail::document::Mode;
use countersign_trail::hash::Hash;
use countersign_trail::id::{PartName, TypeName};
use countersign_trail::keys::Kid;
use countersign_trail::origin::Origin;
use countersign_trail::part;
use countersign_trail::record::{Category, Decision, Event, EventResult};
use countersign_trail::tree::CompactRange;

use super::*;
use crate::sequencer::batch::{Batch, Item};
use crate::sequencer::{Prepared, TrailFacts};
use crate::store::sqlite::SqliteStore;
use crate::store::{Append, Head, Outcome, Store, TrailRow};

const NO: TrailNo = 1;
const SIGNED: u64 = 120;
/// Records of an intent without an outcome.
const OPEN: u64 = 10;

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_micros((1_767_225_600 + seconds as i64) * 1_000_000).unwrap()
}

fn client(n: u64) -> MemberId {
    MemberId::parse(if n.is_multiple_of(2) { "gw-1" } else { "gw-2" }).unwrap()
}

/// Event `n`: two records a second, three to a request.
fn item(n: u64, part_len: usize) -> (Item, Timestamp) {
    let (name, data) = (PartName::parse("facts").unwrap(), vec![b'x'; part_len]);
    let commitment = part::commitment(&name, "text/plain", &[1; 32], &data);
    let event = Event {
        type_name: TypeName::parse("llm.call").unwrap(),
        category: Category::Normal,
        decision: Decision::Allow,
        result: EventResult::Delivered,
        event_id: EventId::parse(&format!("e-{n}")).unwrap(),
        client: client(n),
        links: Vec::new(),
        parts: BTreeMap::from([(name.clone(), commitment)]),
    };
    let parts = vec![StoredPart { name, media_type: "text/plain".to_owned(), content: Some(([1; 32], data.into())) }];
    let prepared = Prepared { event, parts, request_id: Some(format!("r-{}", n / 3)), weight: 0 };
    (Item::Event(Box::new(prepared)), at(n / 2))
}

async fn filled(part_len: usize) -> (tempfile::TempDir, SqliteStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::create(dir.path()).unwrap();
    let origin = Origin::parse("acme.example/x").unwrap();
    let key = Kid::from_bytes([1; 32]);
    let facts = TrailFacts { no: NO, origin: origin.clone(), mode: Mode::Batch, checkpoint_key: key, record_key: None };
    let head = Head { size: 0, leaf: Hash::of(b"first"), time: at(0) };
    store.add_trail(TrailRow { no: NO, origin, head, signed: 0, latched: None }).await.unwrap();
    let items = |from, to| (from..to).map(|n| item(n, part_len)).collect();
    let signed = Batch::build(&facts, head, &CompactRange::empty(), items(0, SIGNED), true).unwrap();
    let open = Batch::build(&facts, signed.next, &signed.frontier, items(SIGNED, SIGNED + OPEN), true).unwrap();
    let outcome = Outcome { first_seq: 0, count: SIGNED, signatures: Vec::new(), checkpoint: None };
    for (outcome, batch) in [(None, signed), (Some(outcome), open)] {
        let intent = Some(batch.intent([0; 32]));
        store.append(Append { trail: NO, outcome, intent, checkpoint: None }).await.unwrap();
    }
    (dir, store)
}

fn page(wanted: &Wanted, token: &str, size: usize, parts: Option<Parts>) -> Page {
    let query = wanted.query("acme.example/x", parts.is_some());
    Page { no: NO, signed: SIGNED, wanted: wanted.clone(), next: query.parse(token).unwrap(), size, parts, query }
}

/// Every page of a query: the sequence numbers of each.
fn pages(store: &SqliteStore, wanted: &Wanted, size: usize, parts: Option<Parts>) -> Vec<Vec<u64>> {
    let (mut pages, mut token) = (Vec::new(), String::new());
    loop {
        let page = page(wanted, &token, size, parts.clone());
        let answer = store.reader().read(|snapshot| page.fill(snapshot)).unwrap();
        pages.push(answer.records.iter().map(|record| record.seq).collect());
        token = answer.next_page_token;
        if token.is_empty() {
            return pages;
        }
    }
}

fn lengths(pages: &[Vec<u64>]) -> Vec<usize> {
    pages.iter().map(Vec::len).collect()
}

fn seqs(pages: &[Vec<u64>]) -> Vec<u64> {
    pages.concat()
}

fn event(client: &str, n: u64) -> Wanted {
    Wanted::Event(MemberId::parse(client).unwrap(), EventId::parse(&format!("e-{n}")).unwrap())
}

#[tokio::test]
async fn pages_hold_every_signed_record_once() {
    let (_dir, store) = filled(4).await;
    let all = pages(&store, &Wanted::From(0), 50, None);
    assert_eq!(lengths(&all), [50, 50, 20]);
    assert_eq!(seqs(&all), (0..SIGNED).collect::<Vec<_>>());
    assert_eq!(lengths(&pages(&store, &Wanted::From(0), 120, None)), [120]);
    assert_eq!(lengths(&pages(&store, &Wanted::From(0), 119, None)), [119, 1]);
    assert_eq!(seqs(&pages(&store, &Wanted::From(117), 2, None)), [117, 118, 119]);
    assert_eq!(pages(&store, &Wanted::From(SIGNED), 2, None), [[0_u64; 0]]);
    assert_eq!(pages(&store, &Wanted::From(u64::MAX), 2, None), [[0_u64; 0]]);
}

#[tokio::test]
async fn what_is_not_signed_is_not_there() {
    let (_dir, store) = filled(4).await;
    assert_eq!(pages(&store, &event("gw-1", 118), 5, None), [[118]]);
    assert_eq!(pages(&store, &event("gw-2", 118), 5, None), [[0_u64; 0]]);
    assert_eq!(pages(&store, &event("gw-1", 120), 5, None), [[0_u64; 0]]);
    assert_eq!(pages(&store, &Wanted::Request("r-39".to_owned()), 5, None), [[117, 118, 119]]);
    assert_eq!(pages(&store, &Wanted::Request("r-40".to_owned()), 5, None), [[0_u64; 0]]);
    let late = Wanted::Between(Some(at(59)), None);
    assert_eq!(pages(&store, &late, 5, None), [[118, 119]]);
}

#[tokio::test]
async fn requests_and_windows_in_pages() {
    let (_dir, store) = filled(4).await;
    assert_eq!(pages(&store, &Wanted::Request("r-2".to_owned()), 2, None), [vec![6, 7], vec![8]]);
    assert_eq!(pages(&store, &Wanted::Request("r-2".to_owned()), 3, None), [[6, 7, 8]]);
    // From the first record of its second on, up to the last one before `to`.
    let window = Wanted::Between(Some(at(10)), Some(at(13)));
    assert_eq!(pages(&store, &window, 4, None), [vec![20, 21, 22, 23], vec![24, 25]]);
    assert_eq!(pages(&store, &Wanted::Between(None, Some(at(1))), 4, None), [[0, 1]]);
    assert_eq!(pages(&store, &Wanted::Between(Some(at(5)), Some(at(5))), 4, None), [[0_u64; 0]]);
    assert_eq!(seqs(&pages(&store, &Wanted::Between(None, None), 100, None)).len() as u64, SIGNED);
}

#[tokio::test]
async fn a_page_is_bounded_in_bytes() {
    // 500 KiB of parts each: the fifth record passes 2 MiB and ends the page.
    let (_dir, store) = filled(500 << 10).await;
    let all = pages(&store, &Wanted::From(0), 1000, Some(Parts::All));
    assert!(all.iter().all(|page| page.len() <= 5), "{:?}", lengths(&all));
    assert_eq!(seqs(&all), (0..SIGNED).collect::<Vec<_>>());
    // Without parts they are small.
    assert_eq!(pages(&store, &Wanted::From(0), 1000, None).len(), 1);
}

#[tokio::test]
async fn parts_go_to_those_who_may_read_them() {
    let (_dir, store) = filled(4).await;
    let with_parts = |parts: Option<Parts>| {
        let page = page(&Wanted::From(0), "", 4, parts);
        let answer = store.reader().read(|snapshot| page.fill(snapshot)).unwrap();
        answer.records.iter().map(|record| record.parts.len()).collect::<Vec<_>>()
    };
    assert_eq!(with_parts(None), [0, 0, 0, 0]);
    assert_eq!(with_parts(Some(Parts::None)), [0, 0, 0, 0]);
    assert_eq!(with_parts(Some(Parts::Of(client(0)))), [1, 0, 1, 0]);
    assert_eq!(with_parts(Some(Parts::All)), [1, 1, 1, 1]);
}

#[test]
fn bad_selections_are_named() {
    let caller = crate::access::Caller { id: client(0), role: countersign_trail::document::Role::Gateway };
    let reader = Reader { caller, parts: Parts::None };
    let of = |select: Option<Select>, client: &str| {
        Wanted::of(&ListRecordsRequest { select, client: client.to_owned(), ..Default::default() }, &reader)
    };
    let window = |from: &str, to: &str| Some(Select::Window(TimeWindow { from: from.to_owned(), to: to.to_owned() }));
    let (early, late) = (at(0).to_string(), at(1).to_string());
    let refused = [
        (of(None, "gw-1"), "client goes with event_id"),
        (of(Some(Select::EventId("a b".to_owned())), ""), "event_id: "),
        (of(Some(Select::EventId("a".to_owned())), "A"), "client: "),
        (of(Some(Select::RequestId(String::new())), ""), "request_id has 0 bytes"),
        (of(Some(Select::RequestId("x".repeat(257))), ""), "request_id has 257 bytes"),
        (of(window("today", ""), ""), "window.from: "),
        (of(window("", "2026-01-01"), ""), "window.to: "),
        (of(window(&late, &early), ""), "window.from lies after"),
    ];
    for (result, message) in refused {
        let refusal = result.unwrap_err();
        assert_eq!(refusal.reason(), Reason::InvalidRequest);
        assert!(refusal.message().starts_with(message), "{refusal}");
    }
    assert_eq!(of(None, ""), Ok(Wanted::From(0)));
    assert_eq!(
        of(Some(Select::EventId("e".to_owned())), ""),
        Ok(Wanted::Event(client(0), EventId::parse("e").unwrap()))
    );
    assert_eq!(of(window(&early, &late), ""), Ok(Wanted::Between(Some(at(0)), Some(at(1)))));
}
