//! Writing records: the members stand in canonical order by construction.

use super::{Control, Event, Header};
use crate::hash::Hash;
use crate::id::TypeName;
use crate::jcs::{self, JcsError};
use crate::keys::Kid;

/// Appends an event record's bytes. The caller checks the length.
pub fn write_event(out: &mut Vec<u8>, header: &Header, event: &Event) {
    out.extend_from_slice(b"{\"category\":\"");
    out.extend_from_slice(event.category.word().as_bytes());
    out.extend_from_slice(b"\",\"client\":\"");
    out.extend_from_slice(event.client.as_str().as_bytes());
    out.extend_from_slice(b"\",\"decision\":\"");
    out.extend_from_slice(event.decision.word().as_bytes());
    // An event id may hold a quotation mark or a backslash.
    out.extend_from_slice(b"\",\"event_id\":");
    jcs::write_string(out, event.event_id.as_str());
    write_kids(out, &header.kids);
    out.extend_from_slice(b",\"kind\":\"event\",\"links\":[");
    for (at, link) in event.links.iter().enumerate() {
        out.extend_from_slice(if at == 0 { b"{\"leaf_hash\":\"" } else { b",{\"leaf_hash\":\"" });
        write_hex(out, &link.leaf_hash);
        out.extend_from_slice(b"\",\"rel\":\"");
        out.extend_from_slice(link.rel.as_str().as_bytes());
        out.extend_from_slice(b"\",\"seq\":\"");
        write_decimal(out, link.seq);
        out.extend_from_slice(b"\",\"trail\":\"");
        out.extend_from_slice(link.trail.as_str().as_bytes());
        out.extend_from_slice(b"\"}");
    }
    out.extend_from_slice(b"],\"parts\":{");
    for (at, (name, commitment)) in event.parts.iter().enumerate() {
        out.extend_from_slice(if at == 0 { b"\"" } else { b",\"" });
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b"\":\"");
        write_hex(out, commitment);
        out.push(b'"');
    }
    out.extend_from_slice(b"},\"prev\":\"");
    write_hex(out, &header.prev);
    out.extend_from_slice(b"\",\"result\":\"");
    out.extend_from_slice(event.result.word().as_bytes());
    out.push(b'"');
    write_tail(out, header, &event.type_name);
}

/// Appends a control record's bytes; `body` is written in canonical form. The caller checks the
/// length.
pub fn write_control(out: &mut Vec<u8>, header: &Header, control: &Control) -> Result<(), JcsError> {
    out.extend_from_slice(b"{\"body\":");
    out.extend_from_slice(&jcs::to_canonical(&control.body)?);
    out.extend_from_slice(b",\"category\":\"config\"");
    write_kids(out, &header.kids);
    out.extend_from_slice(b",\"kind\":\"control\",\"prev\":\"");
    write_hex(out, &header.prev);
    out.push(b'"');
    write_tail(out, header, &control.type_name);
    Ok(())
}

fn write_kids(out: &mut Vec<u8>, kids: &[Kid]) {
    out.extend_from_slice(b",\"kids\":[");
    for (at, kid) in kids.iter().enumerate() {
        out.extend_from_slice(if at == 0 { b"\"" } else { b",\"" });
        out.extend_from_slice(kid.to_string().as_bytes());
        out.push(b'"');
    }
    out.push(b']');
}

fn write_tail(out: &mut Vec<u8>, header: &Header, type_name: &TypeName) {
    out.extend_from_slice(b",\"seq\":\"");
    write_decimal(out, header.seq);
    out.extend_from_slice(b"\",\"time\":\"");
    header.time.write(out);
    out.extend_from_slice(b"\",\"trail\":\"");
    out.extend_from_slice(header.trail.as_str().as_bytes());
    out.extend_from_slice(b"\",\"type\":\"");
    out.extend_from_slice(type_name.as_str().as_bytes());
    out.extend_from_slice(b"\",\"v\":1}");
}

fn write_hex(out: &mut Vec<u8>, hash: &Hash) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in hash.as_bytes() {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
}

fn write_decimal(out: &mut Vec<u8>, value: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = value;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}
