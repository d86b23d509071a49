//! Page tokens: where the next page of one query begins.
//!
//! A token is `base64url(version (1) || next sequence number (8, big-endian) || tag (16))`; the tag
//! is the beginning of a SHA-256 over the query and that number. It is no secret and grants nothing
//! (every page is authorised anew); it only refuses a token of another query, or a damaged one. It
//! holds across restarts.

use countersign_trail::base64;
use countersign_trail::hash::Hash;

use crate::reason::{Reason, Refusal};

/// The layout that this module writes.
const VERSION: u8 = 1;
/// Bytes of the tag: enough against accidents.
const TAG_LEN: usize = 16;
/// Bytes of a token before its text form.
const TOKEN_LEN: usize = 1 + 8 + TAG_LEN;
/// Longest text that is looked at: 34 characters are a token.
const MAX_TEXT: usize = 64;

/// What a token belongs to: every field of the query but page size and token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query(Hash);

impl Query {
    /// The query made of these fields, in this order.
    pub fn of(fields: &[&[u8]]) -> Query {
        let mut bytes = Vec::new();
        for field in fields {
            bytes.extend_from_slice(&(field.len() as u64).to_be_bytes());
            bytes.extend_from_slice(field);
        }
        Query(Hash::of(&bytes))
    }

    fn tag(&self, next: u64) -> [u8; TAG_LEN] {
        let hash = Hash::of_parts(&[b"countersign/page/v1\0", self.0.as_bytes(), &next.to_be_bytes()]);
        let mut tag = [0; TAG_LEN];
        tag.copy_from_slice(&hash.as_bytes()[..TAG_LEN]);
        tag
    }

    /// The token of the page that begins at `next`.
    pub fn token(&self, next: u64) -> String {
        let mut bytes = Vec::with_capacity(TOKEN_LEN);
        bytes.push(VERSION);
        bytes.extend_from_slice(&next.to_be_bytes());
        bytes.extend_from_slice(&self.tag(next));
        base64::url_encode(&bytes)
    }

    /// Where the page of a token begins; none for the first page, which has no token.
    ///
    /// # Errors
    /// INVALID_PAGE_TOKEN for anything that [`Query::token`] did not make of this query.
    pub fn parse(&self, token: &str) -> Result<Option<u64>, Refusal> {
        if token.is_empty() {
            return Ok(None);
        }
        let next = self.read(token);
        next.map(Some).ok_or_else(|| Refusal::from(Reason::InvalidPageToken))
    }

    fn read(&self, token: &str) -> Option<u64> {
        if token.len() > MAX_TEXT {
            return None;
        }
        let bytes = base64::url_decode(token).ok()?;
        let (&version, rest) = bytes.split_first()?;
        let (next, tag) = rest.split_first_chunk::<8>()?;
        let next = u64::from_be_bytes(*next);
        (version == VERSION && tag == self.tag(next)).then_some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query() -> Query {
        Query::of(&[b"acme.example/x", b"seq", &7u64.to_be_bytes()])
    }

    #[test]
    fn tokens_come_back() {
        for next in [0, 1, 1000, u64::MAX] {
            let token = query().token(next);
            assert_eq!(token.len(), 34);
            assert_eq!(query().parse(&token), Ok(Some(next)));
        }
        assert_eq!(query().parse(""), Ok(None));
    }

    #[test]
    fn a_token_of_another_query_is_refused() {
        let token = query().token(5);
        let others = [
            Query::of(&[b"acme.example/y", b"seq", &7u64.to_be_bytes()]),
            Query::of(&[b"acme.example/x", b"seq", &8u64.to_be_bytes()]),
            // The same bytes, cut elsewhere.
            Query::of(&[b"acme.example/xs", b"eq", &7u64.to_be_bytes()]),
        ];
        for other in others {
            assert_eq!(other.parse(&token).unwrap_err().reason(), Reason::InvalidPageToken);
        }
    }

    #[test]
    fn every_changed_or_foreign_token_is_refused() {
        let token = query().token(5);
        for at in 0..token.len() {
            for with in ['A', 'B', '-', '=', '!'] {
                let mut changed = token.clone();
                changed.replace_range(at..=at, &with.to_string());
                if changed != token {
                    assert_eq!(query().parse(&changed).unwrap_err().reason(), Reason::InvalidPageToken, "{changed}");
                }
            }
        }
        for foreign in ["x", "AAAA", &"A".repeat(34), &"A".repeat(100_000), "\u{e4}\u{e4}", " "] {
            assert_eq!(query().parse(foreign).unwrap_err().reason(), Reason::InvalidPageToken);
        }
        for cut in 1..token.len() {
            assert!(query().parse(&token[..cut]).is_err());
        }
    }
}
