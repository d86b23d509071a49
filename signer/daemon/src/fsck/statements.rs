//! Statements: one counter a key, and what each number was given to.

use countersign_trail::admin::AdminState;
use countersign_trail::evidence::Statement;
use rusqlite::Connection;

use super::Findings;

/// Numbers ascend from 1 under the evidence key, and every payload says its own number.
pub(super) fn check(connection: &Connection, state: &AdminState, findings: &mut Findings<'_>) -> rusqlite::Result<()> {
    let evidence = state.evidence_key().map(|entry| entry.key.kid().to_string());
    let mut query = connection.prepare("SELECT kid, number, payload FROM statements ORDER BY kid, number")?;
    let mut rows = query.query([])?;
    let mut last = (String::new(), 0);
    while let Some(row) = rows.next()? {
        let (kid, number, payload): (String, i64, Vec<u8>) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let place = format!("statement {number} of key {}", kid.escape_debug());
        if evidence.as_ref() != Some(&kid) {
            findings.differs(&place, "key", evidence.as_deref().unwrap_or("none"), kid.escape_debug());
        }
        let next = if last.0 == kid { last.1 + 1 } else { 1 };
        if number > next {
            // So it is after a store was moved back: the worker's mark knows of more than the store.
            findings.note(&place, format_args!("statements {next} to {} are not in this store", number - 1));
        } else if number != next {
            findings.differs(&place, "number", next, number);
        }
        last = (kid, number);
        // A number whose statement could not be made stays empty, and is never signed.
        if payload.is_empty() {
            continue;
        }
        match Statement::parse(&payload) {
            Err(error) => findings.problem(&place, error),
            Ok(statement) => {
                let predicate = &statement.predicate;
                if predicate.number != number as u64 || predicate.kid.to_string() != last.0 {
                    let found = format!("statement {} of key {}", predicate.number, predicate.kid);
                    findings.differs(&place, "payload", &place, found);
                }
                if predicate.genesis != state.fingerprint {
                    findings.differs(&place, "genesis", state.fingerprint, predicate.genesis);
                }
            }
        }
    }
    Ok(())
}
