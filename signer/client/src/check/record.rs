//! One record against the event that was sent.
//!
//! All of the record but time and `prev` is known beforehand, so the check writes the record that
//! it wants and compares bytes. Only a record that differs is parsed, to say where.

use std::fmt::Debug;

use countersign_proto::event::PartBody;
use countersign_proto::v1;
use countersign_trail::hash::{HASH_TEXT_LEN, Hash};
use countersign_trail::id::PartName;
use countersign_trail::keys::Kid;
use countersign_trail::part::SALT_LEN;
use countersign_trail::record::{Content, Event, Header, Record, write_event};
use countersign_trail::time::Timestamp;
use countersign_trail::tree::{MAX_SIZE, leaf_hash};

use super::{Checked, Problem, Sent, problem};
use crate::error::AlarmReason;
use crate::trust::TrailTrust;

/// Length of a time in a record, in bytes.
const TIME_LEN: usize = 27;

type Salts = Vec<(PartName, [u8; SALT_LEN])>;

/// Writes wanted records; one for a message, so that its buffers are made once.
#[derive(Default)]
pub(super) struct Writer {
    header: Option<Header>,
    bytes: Vec<u8>,
}

impl Writer {
    /// Whether the record is the one of `event` under one of the trusted keys: its time, `prev` and
    /// key.
    fn matches(&mut self, trust: &TrailTrust, event: &Event, signed: &v1::Signed) -> Option<(Timestamp, Hash, Kid)> {
        let (time, prev) = variable(&signed.record, trust.origin.as_str(), event, signed.seq)?;
        let header = self.header.get_or_insert_with(|| {
            let trail = trust.origin.as_ref().clone();
            Header { trail, seq: 0, time, prev, kids: Vec::with_capacity(1) }
        });
        (header.seq, header.time, header.prev) = (signed.seq, time, prev);
        for key in &trust.keys {
            header.kids.clear();
            header.kids.push(key.kid());
            self.bytes.clear();
            write_event(&mut self.bytes, header, event);
            if self.bytes == signed.record {
                return Some((time, prev, key.kid()));
            }
        }
        None
    }
}

/// Reads time and `prev` from where they stand in the record of `event`, counted from its end. What
/// stands there is compared as a whole afterwards.
fn variable(record: &[u8], trail: &str, event: &Event, seq: u64) -> Option<(Timestamp, Hash)> {
    let digits = seq.checked_ilog10().map_or(1, |log| log as usize + 1);
    let behind_time = r#"","trail":"","type":"","v":1}"#.len() + trail.len() + event.type_name.as_str().len();
    let between = r#"","result":"","seq":"","time":""#.len() + event.result.word().len() + digits;
    let time_end = record.len().checked_sub(behind_time)?;
    let time_start = time_end.checked_sub(TIME_LEN)?;
    let prev_end = time_start.checked_sub(between)?;
    let prev_start = prev_end.checked_sub(HASH_TEXT_LEN)?;
    let text = |range: std::ops::Range<usize>| std::str::from_utf8(record.get(range)?).ok();
    let time = text(time_start..time_end)?.parse().ok()?;
    let prev = text(prev_start..prev_end)?.parse().ok()?;
    Some((time, prev))
}

/// Checks all of a record but its time and its proof. Fills in the commitments of `sent`.
pub(super) fn check(
    trust: &TrailTrust,
    writer: &mut Writer,
    sent: &mut Sent,
    signed: &v1::Signed,
) -> Result<Checked, Problem> {
    // Only a daemon that lies counts so far; the next place could not be counted at all.
    if signed.seq >= MAX_SIZE {
        return Err(problem(AlarmReason::Seq, format!("a seq below {MAX_SIZE}"), signed.seq));
    }
    let leaf = leaf_hash(&signed.record);
    let salts = match salts(sent, signed) {
        Ok(salts) => salts,
        // The record itself may be wrong, which says more.
        Err(salt) => return Err(diagnose(trust, sent, signed, false).err().unwrap_or(salt)),
    };
    let mut salt = salts.iter();
    for part in &sent.parts {
        let commitment = match &part.body {
            PartBody::Commitment(commitment) => *commitment,
            // One salt for each such part, in their order.
            PartBody::Data { .. } => part.commitment(salt.next().map_or(&[0; SALT_LEN], |(_, salt)| salt)),
        };
        sent.expected.parts.insert(part.name.clone(), commitment);
    }
    let (time, prev, kid) = match writer.matches(trust, &sent.expected, signed) {
        Some(found) => found,
        None => diagnose(trust, sent, signed, true)?,
    };
    if signed.leaf_hash != leaf.as_bytes()[..] {
        let found =
            Hash::try_from(&signed.leaf_hash[..]).map_or_else(|error| error.to_string(), |hash| hash.to_string());
        return Err(problem(AlarmReason::Leaf, leaf, found));
    }
    Ok(Checked { event_id: sent.event.event_id.clone(), leaf, prev, time, kid, salts })
}

/// The salts of the parts that the daemon holds, in the order of the parts.
fn salts(sent: &Sent, signed: &v1::Signed) -> Result<Salts, Problem> {
    let wrong = |expected: String, found: String| problem(AlarmReason::Salt, expected, found);
    let mut salts = Vec::with_capacity(signed.salts.len());
    for part in &sent.parts {
        let PartBody::Data { salt: ours, .. } = &part.body else { continue };
        let name = part.name.as_str();
        let Some(given) = signed.salts.iter().find(|salt| salt.part == name) else {
            return Err(wrong(format!("a salt of part {name}"), "none".to_owned()));
        };
        let Ok(salt) = <[u8; SALT_LEN]>::try_from(&given.salt[..]) else {
            return Err(wrong(
                format!("{SALT_LEN} bytes of salt of part {name}"),
                format!("{} bytes", given.salt.len()),
            ));
        };
        if ours.is_some_and(|ours| ours != salt) {
            return Err(wrong(format!("the salt of part {name} that was sent"), "another one".to_owned()));
        }
        salts.push((part.name.clone(), salt));
    }
    if salts.len() != signed.salts.len() {
        let names: Vec<&str> = signed.salts.iter().map(|salt| salt.part.as_str()).collect();
        let expected = format!("{} salts, one for each part that the daemon holds", salts.len());
        return Err(wrong(expected, format!("salts of {}", names.join(", "))));
    }
    Ok(salts)
}

/// Parses a record and compares it member by member: the reference for what [`Writer::matches`]
/// does at once. Without `parts` the commitments are left out.
fn diagnose(
    trust: &TrailTrust,
    sent: &Sent,
    signed: &v1::Signed,
    parts: bool,
) -> Result<(Timestamp, Hash, Kid), Problem> {
    let Record { header, content } =
        Record::parse(&signed.record).map_err(|error| problem(AlarmReason::Record, "a record", error))?;
    same(AlarmReason::Trail, "trail", trust.origin.as_ref(), &header.trail)?;
    same(AlarmReason::Seq, "seq", &signed.seq, &header.seq)?;
    let Content::Event(found) = content else {
        return Err(problem(AlarmReason::Content, "an event record", "a control record"));
    };
    let wanted = &sent.expected;
    same(AlarmReason::Client, "client", &wanted.client, &found.client)?;
    same(AlarmReason::Content, "type", &wanted.type_name, &found.type_name)?;
    same(AlarmReason::Content, "category", &wanted.category, &found.category)?;
    same(AlarmReason::Content, "decision", &wanted.decision, &found.decision)?;
    same(AlarmReason::Content, "result", &wanted.result, &found.result)?;
    same(AlarmReason::Content, "event_id", &wanted.event_id, &found.event_id)?;
    same(AlarmReason::Content, "links", &wanted.links, &found.links)?;
    let [kid] = header.kids[..] else {
        return Err(problem(AlarmReason::Key, "one key", format!("{} keys", header.kids.len())));
    };
    if trust.key(&kid).is_none() {
        let known: Vec<String> = trust.keys.iter().map(|key| key.kid().to_string()).collect();
        return Err(problem(AlarmReason::Key, format!("a key of {}", known.join(", ")), kid));
    }
    let names: Vec<&PartName> = sent.parts.iter().map(|part| &part.name).collect();
    same(AlarmReason::Part, "parts", &names, &found.parts.keys().collect())?;
    if parts {
        // The names are the same: both lists are in one order.
        for ((name, expected), actual) in wanted.parts.iter().zip(found.parts.values()) {
            same(AlarmReason::Part, &format!("commitment of part {name}"), expected, actual)?;
        }
    }
    Ok((header.time, header.prev, kid))
}

fn same<T: PartialEq + Debug>(reason: AlarmReason, what: &str, expected: &T, found: &T) -> Result<(), Problem> {
    if expected == found {
        return Ok(());
    }
    Err(problem(reason, format!("{what} {expected:?}"), format!("{found:?}")))
}
