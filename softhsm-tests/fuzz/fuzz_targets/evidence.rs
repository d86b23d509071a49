//! The files of a bundle that are lines or statements: parts, and the manifest's payload.
#![no_main]

use countersign_fuzz::{genuine, other_spellings, text, unhex, vectors};
use countersign_trail::evidence::{
    Digest, PartLine, Predicate, Statement, Subject, TrailHead, parse_parts, write_parts,
};
use countersign_trail::hash::Hash;
use countersign_trail::keys::Kid;
use countersign_trail::part;
use libfuzzer_sys::fuzz_target;

fn parts() -> Vec<PartLine> {
    let vectors = vectors("parts");
    let given = vectors["parts"].as_array().unwrap().iter().map(|part| PartLine::Given {
        seq: 7,
        name: text(&part["name"]).parse().unwrap(),
        media_type: text(&part["media_type"]).to_owned(),
        salt: unhex(&part["salt"]).try_into().unwrap(),
        data: unhex(&part["data"]),
    });
    let name = |name: &str| name.parse().unwrap();
    let withheld = [
        PartLine::Withheld { seq: 8, name: name("request"), media_type: Some("text/plain".to_owned()) },
        PartLine::Withheld { seq: 8, name: name("response"), media_type: None },
    ];
    given.chain(withheld).collect()
}

fn statement() -> Statement {
    let digest = || Digest { sha256: Hash::OF_EMPTY };
    let subject = ["keys.json", "vkeys.txt"].map(|name| Subject { digest: digest(), name: name.to_owned() });
    let predicate = Predicate {
        created: "2026-01-31T08:00:00.000000Z".parse().unwrap(),
        genesis: Hash::OF_EMPTY,
        instance: "acme-1".parse().unwrap(),
        kid: Kid::from_bytes([7; 32]),
        number: u64::MAX,
        trails: vec![TrailHead { origin: "a.b/c".parse().unwrap(), root: Hash::OF_EMPTY, size: 0 }],
        v: 1,
        withheld: vec!["request".parse().unwrap(), "response".parse().unwrap()],
    };
    Statement::new(subject.to_vec(), predicate)
}

fn seeds() {
    let parts = parts();
    genuine([write_parts(&parts[parts.len() - 2..])], |bytes| parse_parts(bytes).is_ok());
    genuine(parts.iter().map(|part| write_parts(std::slice::from_ref(part))), |bytes| parse_parts(bytes).is_ok());
    genuine([statement().to_bytes().unwrap()], |bytes| Statement::parse(bytes).is_ok());
}

fuzz_target!(init: seeds(), |bytes: &[u8]| {
    if let Ok(parts) = parse_parts(bytes) {
        assert_eq!(write_parts(&parts), bytes);
        let ordered = |pair: &[PartLine]| (pair[0].seq(), pair[0].name()) < (pair[1].seq(), pair[1].name());
        assert!(parts.windows(2).all(ordered));
        for (part, line) in parts.iter().zip(bytes.split(|byte| *byte == b'\n')) {
            check(part, line);
        }
    }
    if let Ok(statement) = Statement::parse(bytes) {
        assert_eq!(statement.to_bytes().unwrap(), bytes);
        for other in other_spellings(bytes) {
            assert!(Statement::parse(&other).is_err(), "{}", String::from_utf8_lossy(&other));
        }
    }
});

fn check(part: &PartLine, line: &[u8]) {
    countersign_trail::jcs::check_canonical(line, line.len()).expect("a line is canonical JSON");
    for other in other_spellings(line) {
        assert!(parse_parts(&[&other[..], b"\n"].concat()).is_err(), "{}", String::from_utf8_lossy(&other));
    }
    match part {
        PartLine::Given { name, media_type, salt, data, .. } => {
            assert_eq!(part.commitment(), Some(part::commitment(name, media_type, salt, data)));
        }
        PartLine::Withheld { .. } => assert_eq!(part.commitment(), None),
    }
}
