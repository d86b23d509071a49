use proptest::prelude::*;

use super::*;
use crate::checkpoint::tests::{sign, signing_key};
use crate::origin::Origin;
use crate::tree::inclusion_path;
use crate::tree::tests::{Store, leaves, mth};

const SIZE: u64 = 13;

fn proof(index: u64, extra: Option<&[u8]>) -> TlogProof {
    let all = leaves(SIZE);
    let checkpoint = Checkpoint { origin: Origin::parse("example.com/fancylog").unwrap(), size: SIZE, root: mth(&all) };
    let path = inclusion_path(&Store(&all), index, SIZE).unwrap();
    TlogProof::new(extra.map(<[u8]>::to_vec), index, path, sign(&checkpoint, 1)).unwrap()
}

fn text(proof: &TlogProof) -> String {
    String::from_utf8(proof.to_bytes()).unwrap()
}

fn parse(text: &str) -> Result<TlogProof, TlogProofError> {
    TlogProof::parse(text.as_bytes())
}

#[test]
fn a_proof_has_the_lines_of_the_specification() {
    let proof = proof(12, Some(b"extra information"));
    let lines: Vec<String> = text(&proof).lines().map(str::to_owned).collect();
    assert_eq!(lines[0], "c2sp.org/tlog-proof@v1");
    assert_eq!(lines[1], "extra ZXh0cmEgaW5mb3JtYXRpb24=");
    assert_eq!(lines[2], "index 12");
    assert_eq!(lines[3], std_encode(proof.path()[0].as_bytes()));
    assert_eq!(proof.path().len(), 2);
    assert_eq!(lines[5..8], ["", "example.com/fancylog", "13"]);
}

#[test]
fn every_leaf_is_proven_by_its_own_proof_alone() {
    let all = leaves(SIZE);
    let key = signing_key(1).1;
    for index in 0..SIZE {
        for extra in [None, Some(&b"x"[..])] {
            let proof = proof(index, extra);
            let again = TlogProof::parse(&proof.to_bytes()).unwrap();
            assert_eq!(again, proof);
            assert_eq!(again.extra(), extra);
            for (leaf, hash) in (0..).zip(&all) {
                assert_eq!(again.verify(*hash, &key).is_ok(), leaf == index);
            }
            assert!(matches!(again.verify(all[index as usize], &signing_key(2).1), Err(TlogProofError::Checkpoint(_))));
        }
    }
}

#[test]
fn malformed_proofs_are_refused_each_with_its_cause() {
    let good = text(&proof(12, Some(b"x")));
    parse(&good).unwrap();
    let replaced = |from: &str, to: &str| good.replacen(from, to, 1);
    let first = std_encode(proof(12, None).path()[0].as_bytes());
    let cases = [
        (String::new(), TlogProofError::NoSeparator),
        (good.replace("\n\n", "\n"), TlogProofError::NoSeparator),
        (replaced("@v1", "@v2"), TlogProofError::Header),
        (replaced("@v1\n", "@v1\r\n"), TlogProofError::Header),
        (format!("\n{good}"), TlogProofError::Header),
        (replaced("extra eA==", "extra eB=="), TlogProofError::Extra(Base64Error::LastCharacter(1))),
        (replaced("extra eA==", "extra "), TlogProofError::ExtraLength(0)),
        (replaced("extra eA==\n", "extra\n"), TlogProofError::Index),
        (replaced("extra eA==\n", "extra eA==\nextra eA==\n"), TlogProofError::Index),
        (replaced("index 12\n", ""), TlogProofError::Index),
        (replaced("index 12", "index 012"), TlogProofError::Index),
        (replaced("index 12", "index  12"), TlogProofError::Index),
        (replaced("index 12", "index -12"), TlogProofError::Index),
        (replaced("index 12", "Index 12"), TlogProofError::Index),
        (replaced("index 12", "index 13"), TreeError::OutsideTree { index: 13, size: 13 }.into()),
        (replaced("index 12", "index 0"), TlogProofError::PathLength { expected: 4, actual: 2 }),
        (replaced(&first, "eA=="), TlogProofError::PathLine(0)),
        (replaced(&first, &format!("{first}\r")), TlogProofError::PathLine(0)),
        (replaced(&first, &format!("{first}\n{first}")), TlogProofError::PathLength { expected: 2, actual: 3 }),
        (replaced(&first, &[first.as_str(); 500].join("\n")), TlogProofError::PathLength { expected: 2, actual: 64 }),
    ];
    for (text, error) in cases {
        assert_eq!(parse(&text), Err(error), "{text}");
    }
    // Everything behind the empty line is the checkpoint's own.
    for text in [replaced("\n\n", "\n\n\n"), format!("{good}\n"), format!("{good}x"), good.trim_end().to_owned()] {
        assert!(matches!(parse(&text), Err(TlogProofError::Checkpoint(_))), "{text}");
    }
}

#[test]
fn bounds_are_exact() {
    let extra = vec![0; MAX_EXTRA_LEN + 1];
    let full = proof(0, Some(&extra[1..]));
    assert_eq!(TlogProof::parse(&full.to_bytes()).unwrap(), full);
    let rest = (full.index, full.path.clone(), full.checkpoint.clone());
    assert_eq!(
        TlogProof::new(Some(extra), rest.0, rest.1, rest.2),
        Err(TlogProofError::ExtraLength(MAX_EXTRA_LEN + 1))
    );
    let long = vec![b'\n'; MAX_PROOF_LEN + 1];
    assert_eq!(TlogProof::parse(&long), Err(TlogProofError::TooLong(MAX_PROOF_LEN + 1)));
    assert_eq!(TlogProof::parse(&long[1..]), Err(TlogProofError::Header));
}

proptest! {
    #[test]
    fn changed_bytes_never_verify_and_never_panic(index in 0..SIZE, at: prop::sample::Index, byte: u8) {
        let proof = proof(index, None);
        let mut bytes = proof.to_bytes();
        let at = at.index(bytes.len());
        prop_assume!(bytes[at] != byte);
        bytes[at] = byte;
        if let Ok(changed) = TlogProof::parse(&bytes) {
            prop_assert_eq!(&changed.to_bytes(), &bytes);
            let leaf = leaves(SIZE)[index as usize];
            prop_assert!(changed.verify(leaf, &signing_key(1).1).is_err());
        }
    }
}
