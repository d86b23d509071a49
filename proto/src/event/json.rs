//! Facts, subject and review as canonical JSON (RFC 8785), straight from the messages.
//!
//! One rule for all of it: a member whose value is empty (string, list, map, or message without
//! members) is left out; elements of lists and entries of maps always stand. 64-bit numbers are
//! decimal strings, and always stand where their message does. Members are written in the order of
//! their names, which for these ASCII names is RFC 8785's.

use std::collections::HashMap;

use countersign_trail::jcs::write_string;
use countersign_trail::time::Timestamp;

use super::{
    EventError, MAX_ATTRIBUTES, MAX_LIST, MAX_MONEY_LEN, MAX_REQUEST_ID_LEN, MAX_REVIEWERS, MAX_STRING_LEN, grammar,
};
use crate::v1;

type Written = Result<(), EventError>;

/// Writes the facts.
pub(super) fn facts(out: &mut Vec<u8>, facts: &v1::Facts) -> Written {
    let mut object = Object::open(out);
    object.message("agent", facts.agent.as_ref(), agent)?;
    object.map("attributes", &facts.attributes)?;
    object.list("classification", &facts.classification, MAX_LIST, |out, text| {
        bounded("", text, MAX_STRING_LEN)?;
        write_string(out, text);
        Ok(())
    })?;
    object.message("cost", facts.cost.as_ref(), cost)?;
    object.message("model", facts.model.as_ref(), model)?;
    object.time("occurred_at", &facts.occurred_at)?;
    object.text("org", &facts.org)?;
    object.message("policy", facts.policy.as_ref(), policy)?;
    object.list("policy_results", &facts.policy_results, MAX_LIST, policy_result)?;
    object.text("reason_code", &facts.reason_code)?;
    object.list("redactions", &facts.redactions, MAX_LIST, redaction)?;
    bounded("request_id", &facts.request_id, MAX_REQUEST_ID_LEN)?;
    object.text("request_id", &facts.request_id)?;
    object.text("role", &facts.role)?;
    object.text("session_id", &facts.session_id)?;
    object.text("team", &facts.team)?;
    object.message("tokens", facts.tokens.as_ref(), tokens)?;
    object.message("tool", facts.tool.as_ref(), tool)?;
    object.text("trace_id", &facts.trace_id)?;
    object.close();
    Ok(())
}

/// Writes the subject.
pub(super) fn subject(out: &mut Vec<u8>, subject: &v1::Subject) -> Written {
    let mut object = Object::open(out);
    object.message("actor", subject.actor.as_ref(), actor)?;
    object.map("attributes", &subject.attributes)?;
    object.message("on_behalf_of", subject.on_behalf_of.as_ref(), actor)?;
    object.close();
    Ok(())
}

/// Writes the review.
pub(super) fn review(out: &mut Vec<u8>, review: &v1::Review) -> Written {
    let mut object = Object::open(out);
    object.list("reviewers", &review.reviewers, MAX_REVIEWERS, reviewer)?;
    object.close();
    Ok(())
}

fn agent(out: &mut Vec<u8>, agent: &v1::Agent) -> Written {
    texts(out, &[("id", &agent.id), ("name", &agent.name), ("version", &agent.version)])
}

fn model(out: &mut Vec<u8>, model: &v1::Model) -> Written {
    texts(out, &[("name", &model.name), ("provider", &model.provider), ("version", &model.version)])
}

fn tool(out: &mut Vec<u8>, tool: &v1::Tool) -> Written {
    texts(out, &[("call_id", &tool.call_id), ("name", &tool.name), ("server", &tool.server)])
}

fn policy(out: &mut Vec<u8>, policy: &v1::Policy) -> Written {
    texts(out, &[("digest", &policy.digest), ("id", &policy.id), ("version", &policy.version)])
}

fn policy_result(out: &mut Vec<u8>, result: &v1::PolicyResult) -> Written {
    texts(out, &[("detail", &result.detail), ("name", &result.name), ("outcome", &result.outcome)])
}

fn actor(out: &mut Vec<u8>, actor: &v1::Actor) -> Written {
    texts(out, &[("id", &actor.id), ("name", &actor.name), ("type", &actor.r#type)])
}

fn redaction(out: &mut Vec<u8>, redaction: &v1::Redaction) -> Written {
    let mut object = Object::open(out);
    object.number("count", redaction.count);
    object.text("field", &redaction.field)?;
    object.text("label", &redaction.label)?;
    object.close();
    Ok(())
}

fn tokens(out: &mut Vec<u8>, tokens: &v1::Tokens) -> Written {
    let mut object = Object::open(out);
    object.number("completion", tokens.completion);
    object.number("prompt", tokens.prompt);
    object.close();
    Ok(())
}

fn cost(out: &mut Vec<u8>, cost: &v1::Cost) -> Written {
    let currency = cost.currency.as_str();
    let code = currency.len() == 3 && currency.bytes().all(|b| b.is_ascii_uppercase());
    if !code && !currency.is_empty() {
        return Err(grammar("currency", "three letters A-Z (ISO 4217)"));
    }
    money("estimated", &cost.estimated)?;
    money("settled", &cost.settled)?;
    texts(out, &[("currency", currency), ("estimated", &cost.estimated), ("settled", &cost.settled)])
}

fn reviewer(out: &mut Vec<u8>, reviewer: &v1::Reviewer) -> Written {
    let mut object = Object::open(out);
    object.time("decided_at", &reviewer.decided_at)?;
    object.text("decision", &reviewer.decision)?;
    object.text("id", &reviewer.id)?;
    object.text("name", &reviewer.name)?;
    object.text("reason", &reviewer.reason)?;
    object.close();
    Ok(())
}

/// An object of nothing but strings, in the order of their names.
fn texts(out: &mut Vec<u8>, members: &[(&'static str, &str)]) -> Written {
    let mut object = Object::open(out);
    for (name, text) in members {
        object.text(name, text)?;
    }
    object.close();
    Ok(())
}

/// `-?[0-9]+(\.[0-9]+)?`, at most [`MAX_MONEY_LEN`] bytes; or empty, which is absent.
fn money(field: &'static str, text: &str) -> Written {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let amount = text.strip_prefix('-').unwrap_or(text);
    let decimal = match amount.split_once('.') {
        Some((whole, fraction)) => digits(whole) && digits(fraction),
        None => digits(amount),
    };
    if text.is_empty() || (decimal && text.len() <= MAX_MONEY_LEN) {
        return Ok(());
    }
    Err(grammar(field, "a decimal number without exponent, at most 40 bytes"))
}

fn bounded(field: &str, text: &str, max: usize) -> Written {
    if text.len() <= max {
        return Ok(());
    }
    Err(EventError::TooLong { field: field.to_owned(), len: text.len(), max })
}

fn at_most(field: &str, count: usize, max: usize) -> Written {
    if count <= max {
        return Ok(());
    }
    Err(EventError::TooMany { field: field.to_owned(), count, max })
}

/// An object being written, member by member.
struct Object<'a> {
    out: &'a mut Vec<u8>,
    /// Length of `out` behind the opening brace.
    start: usize,
}

impl<'a> Object<'a> {
    fn open(out: &'a mut Vec<u8>) -> Object<'a> {
        out.push(b'{');
        let start = out.len();
        Object { out, start }
    }

    fn close(self) {
        self.out.push(b'}');
    }

    /// Writes a member's name, which needs no escapes, and the colon.
    fn name(&mut self, name: &'static str) {
        if self.out.len() > self.start {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn text(&mut self, name: &'static str, text: &str) -> Written {
        if text.is_empty() {
            return Ok(());
        }
        bounded(name, text, MAX_STRING_LEN)?;
        self.name(name);
        write_string(self.out, text);
        Ok(())
    }

    fn time(&mut self, name: &'static str, text: &str) -> Written {
        if !text.is_empty() && text.parse::<Timestamp>().is_err() {
            return Err(grammar(name, "a time as 2026-01-31T08:00:00.000000Z"));
        }
        self.text(name, text)
    }

    fn number(&mut self, name: &'static str, value: u64) {
        use std::io::Write as _;
        self.name(name);
        // Writing to a Vec does not fail.
        let _ = write!(self.out, "\"{value}\"");
    }

    fn message<T>(
        &mut self,
        name: &'static str,
        message: Option<&T>,
        write: impl FnOnce(&mut Vec<u8>, &T) -> Written,
    ) -> Written {
        let Some(message) = message else { return Ok(()) };
        let before = self.out.len();
        self.name(name);
        let value = self.out.len();
        write(self.out, message).map_err(|error| error.within(name))?;
        if self.out[value..] == *b"{}" {
            self.out.truncate(before);
        }
        Ok(())
    }

    fn list<T>(
        &mut self,
        name: &'static str,
        items: &[T],
        max: usize,
        mut write: impl FnMut(&mut Vec<u8>, &T) -> Written,
    ) -> Written {
        at_most(name, items.len(), max)?;
        if items.is_empty() {
            return Ok(());
        }
        self.name(name);
        for (at, item) in items.iter().enumerate() {
            self.out.push(if at == 0 { b'[' } else { b',' });
            write(self.out, item).map_err(|error| error.within(format_args!("{name}[{at}]")))?;
        }
        self.out.push(b']');
        Ok(())
    }

    /// A map from string to string; keys in the order of their UTF-16 code units (RFC 8785, 3.2.3).
    fn map(&mut self, name: &'static str, map: &HashMap<String, String>) -> Written {
        at_most(name, map.len(), MAX_ATTRIBUTES)?;
        if map.is_empty() {
            return Ok(());
        }
        let mut entries: Vec<(&str, &str)> = map.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        entries.sort_unstable_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
        self.name(name);
        for (at, (key, value)) in entries.into_iter().enumerate() {
            // The place in the written order; the key itself is content.
            let inside = |error: EventError| error.within(format_args!("{name}[{at}]"));
            bounded("key", key, MAX_STRING_LEN).map_err(inside)?;
            bounded("value", value, MAX_STRING_LEN).map_err(inside)?;
            self.out.push(if at == 0 { b'{' } else { b',' });
            write_string(self.out, key);
            self.out.push(b':');
            write_string(self.out, value);
        }
        self.out.push(b'}');
        Ok(())
    }
}
