//! What a record says, against the roster, the parts and the indexes.

use std::collections::BTreeMap;

use countersign_trail::admin::AdminState;
use countersign_trail::control::Body;
use countersign_trail::document::Role;
use countersign_trail::hash::Hash;
use countersign_trail::id::PartName;
use countersign_trail::origin::Origin;
use countersign_trail::part::{self, SALT_LEN};
use countersign_trail::record::{Content, Control, Event, Link};
use rusqlite::{Connection, OptionalExtension, params};

use super::{Findings, Rows};
use crate::store::TrailNo;
use crate::store::sqlite::schema::{part_id, record_id};

/// The part that names the request.
const FACTS: &str = "facts";

/// Checks contents of one trail's records, and counts the rows that they must have.
pub(super) struct Contents<'c> {
    pub(super) connection: &'c Connection,
    pub(super) state: &'c AdminState,
    pub(super) origin: &'c Origin,
    pub(super) no: TrailNo,
    pub(super) rows: Rows,
}

impl Contents<'_> {
    /// One record's content.
    pub(super) fn check(&mut self, seq: u64, content: &Content, findings: &mut Findings<'_>) -> rusqlite::Result<()> {
        let place = format!("{} record {seq}", self.origin);
        match content {
            Content::Control(control) => {
                self.control(control, seq, &place, findings);
                self.parts(seq, &BTreeMap::new(), &place, findings).map(drop)
            }
            Content::Event(event) => {
                self.event(event, seq, &place, findings)?;
                self.links(&event.links, &place, findings)?;
                let request_id = self.parts(seq, &event.parts, &place, findings)?;
                self.request(seq, request_id, &place, findings)
            }
        }
    }

    fn control(&self, control: &Control, seq: u64, place: &str, findings: &mut Findings<'_>) {
        match Body::parse(control) {
            Err(error) => findings.problem(place, error),
            // The admin trail's own order was checked by its replay.
            Ok(_) if *self.origin == self.state.plan.admin_trail => {}
            Ok(Body::Trail(_)) if seq == 0 => {}
            Ok(Body::Heartbeat(_) | Body::Gap(_)) if seq > 0 => {}
            Ok(body) => findings.differs(place, "type", "one that may stand here", body.type_name()),
        }
    }

    /// A gateway with a grant wrote it, and its id leads to it.
    fn event(&mut self, event: &Event, seq: u64, place: &str, findings: &mut Findings<'_>) -> rusqlite::Result<()> {
        let member = self.state.plan.members.iter().find(|member| member.id == event.client);
        if !member.is_some_and(|member| member.role == Role::Gateway && member.grants.contains(self.origin)) {
            findings.differs(place, "client", "a gateway with a grant for the trail", &event.client);
        }
        let sql = "SELECT seq FROM events
            WHERE trail = ?1 AND client = (SELECT no FROM clients WHERE member = ?2) AND event_id = ?3";
        let key = params![self.no, event.client.as_str(), event.event_id.as_str()];
        let found: Option<i64> = self.connection.prepare_cached(sql)?.query_row(key, |row| row.get(0)).optional()?;
        self.rows.events += 1;
        if found != Some(seq as i64) {
            let found = found.map_or("none".to_owned(), |seq| seq.to_string());
            findings.differs(place, format_args!("event index of {} {}", event.client, event.event_id), seq, found);
        }
        Ok(())
    }

    fn links(&self, links: &[Link], place: &str, findings: &mut Findings<'_>) -> rusqlite::Result<()> {
        let sql = "SELECT leaf FROM records WHERE id = (SELECT no FROM trails WHERE origin = ?1) * ?2 + ?3";
        for link in links {
            let mut query = self.connection.prepare_cached(sql)?;
            let key = params![link.trail.as_str(), record_id(1, 0), link.seq as i64];
            let found: Option<Vec<u8>> = query.query_row(key, |row| row.get(0)).optional()?;
            let found = found.map(hex::encode);
            if found.as_deref() != Some(&link.leaf_hash.to_string()) {
                let what = format!("link to {} record {}", link.trail, link.seq);
                findings.differs(place, what, link.leaf_hash, found.as_deref().unwrap_or("none"));
            }
        }
        Ok(())
    }

    /// The stored parts are those that the record commits to. Gives the request id that the facts
    /// name.
    fn parts(
        &mut self,
        seq: u64,
        commitments: &BTreeMap<PartName, Hash>,
        place: &str,
        findings: &mut Findings<'_>,
    ) -> rusqlite::Result<Option<String>> {
        let sql = "SELECT id, name, media_type, salt, data FROM parts WHERE id >= ?1 AND id < ?2 ORDER BY id";
        let mut query = self.connection.prepare_cached(sql)?;
        let mut rows = query.query([part_id(self.no, seq, 0), part_id(self.no, seq + 1, 0)])?;
        let mut expected = commitments.iter();
        let mut request_id = None;
        let mut ordinal = 0;
        while let Some(row) = rows.next()? {
            let (id, name, media_type): (i64, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let (salt, data): (Option<Vec<u8>>, Option<Vec<u8>>) = (row.get(3)?, row.get(4)?);
            let name = name.escape_debug().to_string();
            let Some((want, commitment)) = expected.next() else {
                findings.differs(place, "part", "none", name);
                continue;
            };
            self.rows.parts += 1;
            if name != want.as_str() || id != part_id(self.no, seq, ordinal) {
                findings.differs(place, format_args!("part {ordinal}"), want, name);
            }
            ordinal += 1;
            compare(want, commitment, &media_type, salt, data.as_deref(), place, findings);
            if want.as_str() == FACTS {
                request_id = data.as_deref().and_then(request_of);
            }
        }
        for (name, commitment) in expected {
            findings.differs(
                place,
                format_args!("part {name}"),
                format_args!("a row for commitment {commitment}"),
                "none",
            );
        }
        Ok(request_id)
    }

    /// The request id of the facts leads to the record.
    fn request(
        &mut self,
        seq: u64,
        request_id: Option<String>,
        place: &str,
        findings: &mut Findings<'_>,
    ) -> rusqlite::Result<()> {
        let Some(request_id) = request_id else { return Ok(()) };
        let sql = "SELECT 1 FROM requests WHERE trail = ?1 AND request_id = ?2 AND seq = ?3";
        let found = self.connection.prepare_cached(sql)?.exists(params![self.no, request_id, seq as i64])?;
        self.rows.requests += 1;
        if !found {
            findings.differs(place, "request index", "a row for the request_id of its facts", "none");
        }
        Ok(())
    }
}

/// A stored part against its commitment.
fn compare(
    name: &PartName,
    commitment: &Hash,
    media_type: &str,
    salt: Option<Vec<u8>>,
    data: Option<&[u8]>,
    place: &str,
    findings: &mut Findings<'_>,
) {
    let salt = salt.map(<[u8; SALT_LEN]>::try_from);
    match (salt, data) {
        // The client keeps the content; only the record knows the commitment.
        (None, None) => {}
        (Some(Ok(salt)), Some(data)) => {
            let found = part::commitment(name, media_type, &salt, data);
            if found != *commitment {
                findings.differs(place, format_args!("commitment of part {name}"), commitment, found);
            }
        }
        _ => findings.differs(
            place,
            format_args!("part {name}"),
            "content with a salt of 32 bytes, or neither",
            "something else",
        ),
    }
}

/// `request_id` of stored facts.
fn request_of(facts: &[u8]) -> Option<String> {
    let facts: serde_json::Value = serde_json::from_slice(facts).ok()?;
    facts.get("request_id")?.as_str().filter(|text| !text.is_empty()).map(ToOwned::to_owned)
}
