use ed25519_dalek::Signer as _;
use proptest::prelude::*;

use super::*;
use crate::base64::std_decode;

// golang.org/x/mod/sumdb/note, note_test.go.
const PETER_SECRET: &str = "AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
const PETER: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
const ENOCH: &str = "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop";
const TEXT: &str = "If you think cryptography is the answer to your problem,\n\
                    then you don't know what your problem is.\n";
const PETER_LINE: &str =
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
const ENOCH_LINE: &str =
    "— EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=\n";

// transparency-dev/formats, note/note_verifier_test.go: real logs with ECDSA keys.
const REKOR: &str = "rekor.sigstore.dev+c0d23d6a+AjBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABNhtmPtrWm3U1eQXBogSMdGvXwBcK5AW5i0hrZLOC96l+smGNM7nwZ4QvFK/4sueRoVj//QP22Ni4Qt9DPfkWLc=";
const REKOR_NOTE: &str = "Rekor\n798034\nf+7CoKgXKE/tNys9TTXcr/ad6U/K3xvznmzew9y6SP0=\n\n— rekor.sigstore.dev wNI9ajBEAiARInWIWyCdyG27CO6LPnPekyw20qO0YJfoaPaowGp/XgIgc+qEHS3+GKVClgqq20uDLet7MCoTURUCRdxwWBHHufk=\n";
const PIXEL: &str = "pixel6_transparency_log+91c16e30+AjBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABN+4x0Jk1yTwvLFI9A4NDdGZcX0aiWVdWM5XJVy0M4VWD3AvyW5Q6Hs9A0mcDkpUoYgn+KKPNzFC0H3nN3q6JQ8=";
const PIXEL_NOTE: &str = "DEFAULT\n10\nbsWRucJU5xJPHb5eBdOm6+DM+VelCZBuvtI3sHERJ9Y=\n\n— pixel6_transparency_log kcFuMDBFAiEAhqMAP8P6qf6QxtUJhzMhbN+MbZ9dwfUHzGQJmffJHtoCIGD0cNe47dHWBoPwYdgBCepB06/+g5O1FmYjXl06owL4\n";

fn parse(note: &str) -> Result<SignedNote, NoteError> {
    SignedNote::parse(note.as_bytes())
}

fn vkey(text: &str) -> VerifierKey {
    text.parse().unwrap()
}

#[test]
fn published_notes_verify() {
    let peters = format!("{TEXT}\n{PETER_LINE}");
    let both = format!("{TEXT}\n{PETER_LINE}{ENOCH_LINE}");
    for (key, note) in
        [(PETER, peters.as_str()), (PETER, &both), (ENOCH, &both), (REKOR, REKOR_NOTE), (PIXEL, PIXEL_NOTE)]
    {
        let key = vkey(key);
        let parsed = parse(note).unwrap();
        assert_eq!(parsed.to_bytes(), note.as_bytes());
        parsed.verify(key.name(), key.key()).unwrap();
        // One bit of the text.
        let changed = note.replacen(['y', '9', '1'], "0", 1);
        let error = parse(&changed).unwrap().verify(key.name(), key.key()).unwrap_err();
        assert!(matches!(error, NoteError::BadSignature { .. }), "{error}");
    }
}

#[test]
fn a_note_is_signed_as_gos_package_signs_it() {
    let secret = std_decode(PETER_SECRET).unwrap();
    let key = ed25519_dalek::SigningKey::from_bytes(secret[1..].try_into().unwrap());
    let signature = key.sign(TEXT.as_bytes()).to_bytes();
    let public = PublicKey::from_raw(Algorithm::Ed25519, key.verifying_key().as_bytes()).unwrap();
    let line = NoteSignature::new("PeterNeumann", &public, &signature).unwrap();
    let note = SignedNote::assemble(TEXT.to_owned(), vec![line]).unwrap();
    assert_eq!(note.to_bytes(), format!("{TEXT}\n{PETER_LINE}").into_bytes());
    let key = VerifierKey::new("PeterNeumann", public).unwrap();
    assert_eq!(key.to_string(), PETER);
}

#[test]
fn signatures_by_others_are_no_signature() {
    let note = parse(&format!("{TEXT}\n{ENOCH_LINE}")).unwrap();
    let peter = vkey(PETER);
    let enoch = vkey(ENOCH);
    for (name, key) in
        [("PeterNeumann", &peter), ("EnochRoot", &peter), ("PeterNeumann", &enoch), ("enochRoot", &enoch)]
    {
        let error = note.verify(name, key.key()).unwrap_err();
        assert!(matches!(error, NoteError::NotSigned { .. }), "{error}");
    }
    // The ECDSA key id does not depend on the name, so the name itself must be compared.
    let rekor = vkey(REKOR);
    let error = parse(REKOR_NOTE).unwrap().verify("bananas.sigstore.dev", rekor.key()).unwrap_err();
    assert!(matches!(error, NoteError::NotSigned { .. }), "{error}");
}

#[test]
fn a_verifier_key_has_one_spelling() {
    for text in [PETER, ENOCH, REKOR, PIXEL] {
        assert_eq!(vkey(text).to_string(), text);
        // The id of an Ed25519 key binds the name, that of an ECDSA key does not.
        let bound = if text.contains("+Aj") { text.find('+').unwrap() } else { 0 };
        // As in Go's test: no proper substring and no changed byte is accepted.
        for i in bound..text.len() {
            assert!(text[i + 1..].parse::<VerifierKey>().is_err());
            assert!(text[..i].parse::<VerifierKey>().is_err());
            let mut bytes = text.as_bytes().to_vec();
            bytes[i] += 1;
            let changed = String::from_utf8(bytes).unwrap();
            assert!(changed.parse::<VerifierKey>().is_err(), "{changed}");
        }
        assert!(text.to_uppercase().parse::<VerifierKey>().is_err());
        assert!(format!("{text}\n").parse::<VerifierKey>().is_err());
    }
    let cases = [
        // Upper case in the id.
        PETER.replace("c74f20a3", "C74F20A3"),
        // The wrong key length and an unknown type, with adjusted ids (Go's test).
        "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==".to_owned(),
        "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW".to_owned(),
        format!("{}{}", "a".repeat(1024), PETER),
    ];
    for text in cases {
        assert!(text.parse::<VerifierKey>().is_err(), "{text}");
    }
    let other = PETER.replace("c74f20a3", "c74f20a4").parse::<VerifierKey>();
    assert!(matches!(other, Err(NoteError::KeyIdMismatch { .. })));
}

#[test]
fn an_ecdsa_type_holds_no_ed25519_key() {
    let der = vkey(PETER).key().spki_der();
    let id = Hash::of(&der).to_string();
    let typed = std_encode(&[&[TYPE_ECDSA], der.as_slice()].concat());
    let text = format!("PeterNeumann+{}+{typed}", &id[..8]);
    assert!(text.parse::<VerifierKey>().is_err());
}

#[test]
fn malformed_notes_are_refused_each_with_its_cause() {
    let line = |name: &str| format!("— {name} x08go/ZJ\n");
    let many: String = (0..17).map(|i| line(&format!("n{i}"))).collect();
    let cases: [(String, NoteError); 21] = [
        (String::new(), NoteError::NoSeparator),
        (TEXT.to_owned(), NoteError::NoSeparator),
        (format!("{TEXT}{PETER_LINE}"), NoteError::NoSeparator),
        (format!("{TEXT}\n"), NoteError::NoSignatures),
        (format!("{TEXT}\n{}", PETER_LINE.trim_end()), NoteError::UnfinishedLine),
        (format!("\u{1}{TEXT}\n{PETER_LINE}"), NoteError::ControlCharacter(0)),
        (
            format!("{TEXT}\n{}", PETER_LINE.replace('\n', "\r\n")),
            NoteError::ControlCharacter(TEXT.len() + PETER_LINE.len()),
        ),
        (format!("a\tb\n\n{PETER_LINE}"), NoteError::ControlCharacter(1)),
        (format!("{TEXT}\n{PETER_LINE}Unexpected line.\n"), NoteError::SignatureLine(1)),
        // A blank line at the end is the last one, so it separates nothing from nothing.
        (format!("{TEXT}\n{PETER_LINE}\n"), NoteError::NoSignatures),
        (format!("{TEXT}\n{PETER_LINE}{PETER_LINE}"), NoteError::DuplicateSignature(1)),
        (format!("{TEXT}\n{}", PETER_LINE.replace('—', "-")), NoteError::SignatureLine(0)),
        (format!("{TEXT}\n— name\n"), NoteError::SignatureLine(0)),
        (format!("{TEXT}\n—  name x08go/ZJ\n"), NoteError::Name),
        (format!("{TEXT}\n{}", line("a+b")), NoteError::Name),
        (format!("{TEXT}\n{}", line("a\u{a0}b")), NoteError::Name),
        (format!("{TEXT}\n— Bad Name x08go/ZJ\n"), NoteError::SignatureBase64 { line: 0, cause: Base64Error::Byte(4) }),
        (
            format!("{TEXT}\n{}", PETER_LINE.replace("nAM=", "nAN=")),
            NoteError::SignatureBase64 { line: 0, cause: Base64Error::LastCharacter(90) },
        ),
        (format!("{TEXT}\n— name x08gow==\n"), NoteError::EmptySignature(0)),
        (format!("{TEXT}\n— name x08=\n"), NoteError::EmptySignature(0)),
        (format!("{TEXT}\n{many}"), NoteError::TooManySignatures),
    ];
    for (note, error) in cases {
        assert_eq!(parse(&note), Err(error), "{note:?}");
    }
    let not_utf8 = [b"\xff", TEXT.as_bytes(), b"\n", PETER_LINE.as_bytes()].concat();
    assert_eq!(SignedNote::parse(&not_utf8), Err(NoteError::NotUtf8(0)));
}

#[test]
fn bounds_are_exact() {
    let line = |i: usize| format!("— n{i} x08go/ZJ\n");
    let sixteen: String = (0..MAX_SIGNATURES).map(line).collect();
    let note = parse(&format!("{TEXT}\n{sixteen}")).unwrap();
    assert_eq!(note.signatures().len(), MAX_SIGNATURES);

    let text = "t".repeat(MAX_NOTE_LEN - PETER_LINE.len() - 2);
    let full = format!("{text}\n\n{PETER_LINE}");
    assert_eq!(full.len(), MAX_NOTE_LEN);
    let parsed = parse(&full).unwrap();
    assert_eq!(parse(&format!("t{full}")), Err(NoteError::TooLong(MAX_NOTE_LEN + 1)));
    let signatures = parsed.signatures().to_vec();
    assert_eq!(
        SignedNote::assemble(format!("t{}", parsed.text()), signatures),
        Err(NoteError::TooLong(MAX_NOTE_LEN + 1))
    );
}

#[test]
fn the_last_blank_line_separates() {
    let note = parse(&format!("a\n\nb\n\n\n{PETER_LINE}")).unwrap();
    assert_eq!(note.text(), "a\n\nb\n\n");
    // A text that ends within a line cannot be assembled into one that is signed otherwise.
    assert_eq!(SignedNote::assemble("a".to_owned(), note.signatures().to_vec()), Err(NoteError::UnfinishedText));
    assert_eq!(SignedNote::assemble("a\n".to_owned(), vec![]), Err(NoteError::NoSignatures));
}

#[test]
fn the_example_of_the_specification_parses() {
    let note = "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\ned è subito sera.\n\n— quasimodo.example/salvatore NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=\n";
    let parsed = parse(note).unwrap();
    assert!(parsed.text().ends_with("subito sera.\n"));
    let [signature] = parsed.signatures() else { panic!("one signature expected") };
    assert_eq!(signature.name(), "quasimodo.example/salvatore");
    assert_eq!(signature.key_id().to_string(), "367ba04b");
    assert_eq!(signature.signature().len(), 64);
}

proptest! {
    #[test]
    fn what_parses_is_rebuilt_byte_for_byte(note in "[ab\n]{1,6}\n\n(— [ab+ ]{1,2} [AQgw]{6}(==|=A|AA)\n){1,3}") {
        if let Ok(parsed) = parse(&note) {
            prop_assert_eq!(parsed.to_bytes(), note.into_bytes());
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>, text in "\\PC{0,40}") {
        let _ = SignedNote::parse(&bytes);
        let _ = parse(&format!("{text}\n\n— {text}\n"));
        let _ = text.parse::<VerifierKey>();
    }
}
