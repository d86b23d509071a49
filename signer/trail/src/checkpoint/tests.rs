use ed25519_dalek::Signer as _;
use proptest::prelude::*;

use super::*;
use crate::keys::Algorithm;

pub(crate) const ROOT: &str = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=";

pub(crate) fn signing_key(seed: u8) -> (ed25519_dalek::SigningKey, PublicKey) {
    let key = ed25519_dalek::SigningKey::from_bytes(&[seed; 32]);
    let public = PublicKey::from_raw(Algorithm::Ed25519, key.verifying_key().as_bytes()).unwrap();
    (key, public)
}

pub(crate) fn sign(checkpoint: &Checkpoint, seed: u8) -> SignedCheckpoint {
    let (key, public) = signing_key(seed);
    let signature = key.sign(checkpoint.text().as_bytes()).to_bytes();
    SignedCheckpoint::assemble(checkpoint, &public, &signature).unwrap()
}

fn checkpoint() -> Checkpoint {
    Checkpoint {
        origin: Origin::parse("example.com/behind-the-sofa").unwrap(),
        size: 20_852_163,
        root: parse_hash(ROOT).unwrap(),
    }
}

#[test]
fn the_text_is_that_of_the_specifications_example() {
    let text = format!("example.com/behind-the-sofa\n20852163\n{ROOT}\n");
    assert_eq!(checkpoint().text(), text);
    assert_eq!(Checkpoint::parse_text(text.as_bytes()).unwrap(), checkpoint());
    let note = format!(
        "{text}\n— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
    );
    let parsed = SignedCheckpoint::parse(note.as_bytes()).unwrap();
    assert_eq!(*parsed.checkpoint(), checkpoint());
    assert_eq!(parsed.to_bytes(), note.as_bytes());
}

#[test]
fn only_the_key_that_signed_it_verifies_it() {
    let signed = sign(&checkpoint(), 1);
    let again = SignedCheckpoint::parse(&signed.to_bytes()).unwrap();
    assert_eq!(again, signed);
    assert_eq!(*again.verify(&signing_key(1).1).unwrap(), checkpoint());
    assert!(matches!(again.verify(&signing_key(2).1), Err(CheckpointError::Note(NoteError::NotSigned { .. }))));
    // The same signature beside another size, root or origin.
    let text = String::from_utf8(signed.to_bytes()).unwrap();
    for (from, to) in [("20852163", "20852164"), ("CsUY", "CsUZ"), ("the-sofa", "the-sofb")] {
        let changed = SignedCheckpoint::parse(text.replace(from, to).as_bytes()).unwrap();
        changed.verify(&signing_key(1).1).unwrap_err();
    }
}

#[test]
fn a_p256_key_signs_checkpoints_in_der() {
    use p256::ecdsa::signature::Signer as _;
    let key = p256::ecdsa::SigningKey::from_slice(&[7; 32]).unwrap();
    let point = key.verifying_key().to_sec1_point(false);
    let public = PublicKey::from_raw(Algorithm::EcdsaP256, point.as_bytes()).unwrap();
    let raw: p256::ecdsa::Signature = key.sign(checkpoint().text().as_bytes());
    let der = crate::ecdsa::raw_to_der_low_s(&raw.to_bytes()).unwrap();
    let signed = SignedCheckpoint::assemble(&checkpoint(), &public, &der).unwrap();
    signed.verify(&public).unwrap();
    let id = signed.note().signatures()[0].key_id();
    assert_eq!(
        id.as_bytes(),
        &Hash::of(&public.spki_der()).as_bytes()[..4],
        "the first 4 bytes of the log ID, as Rekor and @sigstore/verify have it"
    );
}

#[test]
fn other_texts_are_refused_each_with_its_cause() {
    let text = |origin: &str, size: &str, root: &str| format!("{origin}\n{size}\n{root}\n");
    let good = "a.example/b";
    let cases = [
        (String::new(), CheckpointError::Lines),
        (format!("{good}\n1\n{ROOT}"), CheckpointError::Lines),
        (format!("{good}\n1\n"), CheckpointError::Lines),
        (format!("{good}\n1\n{ROOT}\n\n"), CheckpointError::Lines),
        (format!("{good}\n1\n{ROOT}\nextra\n"), CheckpointError::Lines),
        (text(good, "", ROOT), CheckpointError::Size),
        (text(good, "01", ROOT), CheckpointError::Size),
        (text(good, "+1", ROOT), CheckpointError::Size),
        (text(good, "-1", ROOT), CheckpointError::Size),
        (text(good, " 1", ROOT), CheckpointError::Size),
        (text(good, "1\r", ROOT), CheckpointError::Size),
        (text(good, "0x1", ROOT), CheckpointError::Size),
        (text(good, "١", ROOT), CheckpointError::Size),
        (text(good, "9223372036854775808", ROOT), CheckpointError::Size),
        (text(good, "99999999999999999999", ROOT), CheckpointError::Size),
        (text(good, "1", ""), CheckpointError::Root),
        (text(good, "1", &ROOT[..40]), CheckpointError::Root),
        (text(good, "1", &ROOT.replace("2I=", "2J=")), CheckpointError::Root),
        (text(good, "1", &format!("{ROOT} ")), CheckpointError::Root),
        (text(good, "0", ROOT), CheckpointError::EmptyRoot(parse_hash(ROOT).unwrap())),
        ("a".repeat(267), CheckpointError::TooLong(267)),
    ];
    for (text, error) in cases {
        assert_eq!(Checkpoint::parse_text(text.as_bytes()), Err(error), "{text:?}");
    }
    for origin in ["", "A.example/b", "a.example", "a.example/b c"] {
        let error = Checkpoint::parse_text(text(origin, "1", ROOT).as_bytes()).unwrap_err();
        assert!(matches!(error, CheckpointError::Origin(_)), "{origin:?}");
    }
    assert_eq!(Checkpoint::parse_text(b"a.example/b\n1\n\xff\n"), Err(CheckpointError::Lines));
}

#[test]
fn bounds_are_exact() {
    let longest = Checkpoint {
        origin: Origin::parse(&format!("a.b/{}", "c".repeat(MAX_ORIGIN_LEN - 4))).unwrap(),
        size: MAX_SIZE,
        root: parse_hash(ROOT).unwrap(),
    };
    assert_eq!(longest.text().len(), MAX_TEXT_LEN);
    assert_eq!(Checkpoint::parse_text(longest.text().as_bytes()), Ok(longest.clone()));
    let (_, public) = signing_key(1);
    let beyond = Checkpoint { size: MAX_SIZE + 1, ..longest.clone() };
    assert_eq!(SignedCheckpoint::assemble(&beyond, &public, &[0; 64]), Err(CheckpointError::TooLarge(MAX_SIZE + 1)));
    assert_eq!(
        SignedCheckpoint::assemble(&longest, &public, &[]),
        Err(CheckpointError::Note(NoteError::EmptySignature(0)))
    );
    let empty = Checkpoint { size: 0, root: Hash::OF_EMPTY, ..longest };
    assert_eq!(Checkpoint::parse_text(empty.text().as_bytes()), Ok(empty.clone()));
}

proptest! {
    #[test]
    fn every_checkpoint_round_trips(size in 1..=MAX_SIZE, root: [u8; 32]) {
        let checkpoint = Checkpoint { size, root: root.into(), ..checkpoint() };
        let text = checkpoint.text();
        prop_assert_eq!(Checkpoint::parse_text(text.as_bytes()).unwrap(), checkpoint);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>) {
        let _ = Checkpoint::parse_text(&bytes);
        let _ = SignedCheckpoint::parse(&bytes);
    }
}
