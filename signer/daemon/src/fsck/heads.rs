//! Everything that states where a trail stood: checkpoints, heads in admin records, the second head.

use std::collections::VecDeque;
use std::path::Path;

use countersign_trail::admin::AdminState;
use countersign_trail::checkpoint::SignedCheckpoint;
use countersign_trail::hash::Hash;
use countersign_trail::keys::PublicKey;
use countersign_trail::origin::Origin;
use rusqlite::{Connection, OptionalExtension, params};

use super::Findings;
use crate::store::TrailNo;
use crate::store::files::{HeadFile, SecondHead};

/// The heads of one trail that are still to be compared, by ascending size.
pub(super) struct Heads<'c> {
    connection: &'c Connection,
    no: TrailNo,
    origin: &'c Origin,
    key: Option<&'c PublicKey>,
    /// The next stored checkpoint.
    next: Option<(i64, Vec<u8>)>,
    /// Size, root and admin record of the heads that the admin trail carries.
    noted: VecDeque<(u64, Hash, u64)>,
    second: Option<SecondHead>,
    pub(super) checkpoints: u64,
    /// Size of the last checkpoint that was read.
    pub(super) last: u64,
    /// Checkpoints over another root than the records', the first of which is a finding.
    differing: u64,
}

impl<'c> Heads<'c> {
    pub(super) fn new(
        connection: &'c Connection,
        state: &'c AdminState,
        (no, origin): (TrailNo, &'c Origin),
        head_dir: &Path,
        findings: &mut Findings<'_>,
    ) -> rusqlite::Result<Heads<'c>> {
        let entry = state.trail(origin);
        let key = entry.and_then(|entry| state.keys.get(&entry.checkpoint_key)).map(|entry| &entry.key);
        let noted = state.heads.iter().filter(|noted| noted.head.trail == *origin);
        let second = match HeadFile::open(head_dir, &origin.path_segment(), false) {
            Ok((_, Some(second))) => {
                if second.latched {
                    findings.note(origin, "latched, as the second head says");
                }
                Some(second)
            }
            Ok((_, None)) => {
                findings.differs(origin, "second head", "a slot whose checksum holds", "none");
                None
            }
            Err(error) => {
                findings.problem(origin, format_args!("second head: cannot be opened: {error}"));
                None
            }
        };
        let mut heads = Heads {
            connection,
            no,
            origin,
            key,
            next: None,
            noted: noted.map(|noted| (noted.head.size, noted.head.root, noted.admin_seq)).collect(),
            second,
            checkpoints: 0,
            last: 0,
            differing: 0,
        };
        heads.advance(i64::MIN)?;
        Ok(heads)
    }

    /// Reads the next checkpoint of at least `size`.
    fn advance(&mut self, size: i64) -> rusqlite::Result<()> {
        let sql = "SELECT size, note FROM checkpoints WHERE trail = ?1 AND size >= ?2 ORDER BY size LIMIT 1";
        let mut query = self.connection.prepare_cached(sql)?;
        self.next = query.query_row(params![self.no, size], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        Ok(())
    }

    /// Compares everything that states the first `size` records; `leaf` is the last one's.
    pub(super) fn reached(
        &mut self,
        size: u64,
        leaf: Hash,
        root: impl Fn() -> Hash,
        findings: &mut Findings<'_>,
    ) -> rusqlite::Result<()> {
        while let Some((at, note)) = self.next.take_if(|(at, _)| i128::from(*at) <= i128::from(size)) {
            self.checkpoints += 1;
            if at as u64 == size {
                self.last = size;
                self.checkpoint(size, &note, root(), findings);
            } else {
                findings.problem(format_args!("{} checkpoint at {at}", self.origin), "no record leads to it");
            }
            self.advance(at + 1)?;
        }
        while let Some((_, noted, admin_seq)) = self.noted.pop_front_if(|(at, ..)| *at <= size) {
            let root = root();
            if noted != root {
                let what = format!("root at size {size}, which admin record {admin_seq} states");
                findings.differs(self.origin, what, noted, root);
            }
        }
        if let Some(second) = self.second.take_if(|second| second.size == size)
            && second.leaf != leaf
        {
            findings.differs(
                self.origin,
                format_args!("leaf hash of record {} in the second head", size - 1),
                leaf,
                second.leaf,
            );
        }
        Ok(())
    }

    fn checkpoint(&mut self, size: u64, note: &[u8], root: Hash, findings: &mut Findings<'_>) {
        let place = format!("{} checkpoint at {size}", self.origin);
        let signed = match SignedCheckpoint::parse(note) {
            Ok(signed) => signed,
            Err(error) => return findings.problem(place, error),
        };
        let stated = signed.checkpoint();
        if stated.origin != *self.origin || stated.size != size {
            findings.differs(&place, "text", &place, format_args!("{} at {}", stated.origin, stated.size));
        }
        if let Some(Err(error)) = self.key.map(|key| signed.verify(key)) {
            findings.problem(&place, format_args!("signature: {error}"));
        }
        if stated.root != root {
            self.differing += 1;
            if self.differing == 1 {
                findings.differs(&place, "root of the records", stated.root, root);
            }
        }
    }

    /// What is left when the records end at `size`, or cannot be followed any further.
    pub(super) fn finish(mut self, size: u64, whole: bool, findings: &mut Findings<'_>) -> rusqlite::Result<u64> {
        if self.differing > 1 {
            let others = self.differing - 1;
            findings.note(self.origin, format_args!("{others} later checkpoints do not sign the records' root either"));
        }
        let mut beyond = 0;
        while let Some((at, _)) = self.next.take() {
            beyond += 1;
            if whole && beyond == 1 {
                findings.problem(
                    format_args!("{} checkpoint at {at}", self.origin),
                    format_args!("the records end at {size}"),
                );
            }
            self.advance(at.saturating_add(1))?;
        }
        if !whole {
            let noted = self.noted.len() as u64 + u64::from(self.second.is_some());
            let what = format!("{beyond} checkpoints and {noted} other heads beyond record {size} were not checked");
            findings.note(self.origin, what);
        } else {
            for (at, root, admin_seq) in &self.noted {
                let what = format!("size, which admin record {admin_seq} states with root {root}");
                findings.differs(self.origin, what, format_args!("at least {at}"), size);
            }
            if let Some(second) = &self.second {
                let what = "size, which the second head states";
                findings.differs(self.origin, what, format_args!("at least {}", second.size), size);
            }
        }
        Ok(self.checkpoints + beyond)
    }
}
