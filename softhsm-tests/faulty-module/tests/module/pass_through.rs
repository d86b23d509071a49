//! Without rules the faulty module is the real one, and the transcript is exact.

use countersign_faulty_transcript::{
    Asked, Function, Outcome, Transcript, call_log, calls, find_library, find_softhsm,
};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::Attribute;
use cryptoki_sys::{CK_FUNCTION_LIST, CK_RV};

use crate::support::{self, Algorithm, Key, PIN, in_client, shared};

const MESSAGE: &[u8] = b"DSSEv1 \x00\xff a message that is longer than any digest, so that nothing can have cut it";
const DIGEST: [u8; 32] = [0x5a; 32];

fn check_answered(asked: &Asked, n: u64, point: &str, algorithm: Algorithm, input: &[u8]) {
    assert_eq!((asked.function, asked.n), (Function::C_Sign, n));
    assert_eq!(asked.input, input, "the exact input");
    let answer = asked.answer.as_ref().unwrap();
    assert_eq!((answer.rv, answer.injected), (0, false));
    let signature = answer.signature.as_ref().unwrap();
    let point = std::fs::read(point).unwrap();
    assert!(support::verifies(algorithm, &point, input, signature));
}

#[test]
fn signs_with_both_algorithms() {
    let client = || {
        let session = support::session();
        let ed25519 = Key::generate(&session, Algorithm::Ed25519, b"\x01\xed", "an Ed25519 key");
        let p256 = Key::generate(&session, Algorithm::P256, b"\x02\x56", "ключ P-256");
        std::fs::write(shared().join("ed25519"), ed25519.point(&session)).unwrap();
        std::fs::write(shared().join("p256"), p256.point(&session)).unwrap();
        let first = ed25519.sign(&session, MESSAGE).unwrap();
        let second = p256.sign(&session, &DIGEST).unwrap();
        // What the caller holds is what the transcript says; and C_Verify passes through.
        session.verify(&ed25519.algorithm.mechanism(), ed25519.public, MESSAGE, &first).unwrap();
        session.verify(&p256.algorithm.mechanism(), p256.public, &DIGEST, &second).unwrap();
        let transcript = Transcript::read(&shared()).unwrap();
        let signatures: Vec<_> = transcript.asked().map(|a| a.answer.clone().unwrap().signature.unwrap()).collect();
        assert_eq!(signatures, [first, second]);
    };
    in_client(concat!(module_path!(), "::signs_with_both_algorithms"), client, |bench| {
        let dir = bench.dir();
        let transcript = Transcript::read(&dir).unwrap();
        assert_eq!(transcript.torn(), 0);
        let asked: Vec<&Asked> = transcript.asked().collect();
        let [first, second] = asked.as_slice() else { panic!("two signatures, not {asked:?}") };
        check_answered(first, 1, dir.join("ed25519").to_str().unwrap(), Algorithm::Ed25519, MESSAGE);
        assert_eq!(first.mechanism, Some(0x1057));
        assert_eq!(first.key_id.as_deref(), Some(&b"\x01\xed"[..]));
        assert_eq!(first.key_label.as_deref(), Some("an Ed25519 key"));
        check_answered(second, 2, dir.join("p256").to_str().unwrap(), Algorithm::P256, &DIGEST);
        assert_eq!(second.mechanism, Some(0x1041));
        assert_eq!(second.key_id.as_deref(), Some(&b"\x02\x56"[..]));
        assert_eq!(second.key_label.as_deref(), Some("ключ P-256"));

        // cryptoki asks for the size before each signature; that is not counted.
        assert_eq!(calls(&dir, Function::C_Sign).unwrap(), 2);
        assert_eq!(calls(&dir, Function::C_Login).unwrap(), 1);
        assert_eq!(calls(&dir, Function::C_GenerateKeyPair).unwrap(), 2);
        let log = call_log(&dir).unwrap();
        let logged: Vec<_> = log.iter().map(|line| (line.function, line.n, line.outcome)).collect();
        let ok = Outcome::Returned(0);
        assert_eq!(
            logged[..3],
            [(Function::C_Initialize, 1, ok), (Function::C_OpenSession, 1, ok), (Function::C_Login, 1, ok)]
        );
        assert!(logged.contains(&(Function::C_Sign, 2, ok)), "{logged:?}");
        assert!(!support::any_file_holds(&dir, PIN.as_bytes()), "the PIN was written");
    });
}

#[test]
fn parts_are_accumulated() {
    let client = || {
        let session = support::session();
        let name = [Attribute::Token(false), Attribute::Id(vec![7])];
        let mut public = name.to_vec();
        public.extend([Attribute::ModulusBits(2048.into()), Attribute::PublicExponent(vec![1, 0, 1])]);
        let (public, private) = session.generate_key_pair(&Mechanism::RsaPkcsKeyPairGen, &public, &name).unwrap();
        session.sign_init(&Mechanism::Sha256RsaPkcs, private).unwrap();
        session.sign_update(b"one, ").unwrap();
        session.sign_update(b"two").unwrap();
        let signature = session.sign_final().unwrap();
        session.verify(&Mechanism::Sha256RsaPkcs, public, b"one, two", &signature).unwrap();
    };
    in_client(concat!(module_path!(), "::parts_are_accumulated"), client, |bench| {
        let transcript = Transcript::read(&bench.dir()).unwrap();
        let asked: Vec<&Asked> = transcript.asked().collect();
        let [only] = asked.as_slice() else { panic!("one signature, not {asked:?}") };
        assert_eq!((only.function, only.n, only.mechanism), (Function::C_SignFinal, 1, Some(0x40)));
        assert_eq!(only.input, b"one, two");
        assert_eq!(only.answer.as_ref().unwrap().signature.as_ref().unwrap().len(), 256);
        assert_eq!(calls(&bench.dir(), Function::C_SignUpdate).unwrap(), 2);
    });
}

/// The functions that a module has, in the order of the list, as addresses.
fn functions(library: &std::path::Path) -> Vec<usize> {
    const WORDS: usize = size_of::<CK_FUNCTION_LIST>() / size_of::<usize>();
    type GetFunctionList = unsafe extern "C" fn(*mut *mut CK_FUNCTION_LIST) -> CK_RV;
    let mut list: *mut CK_FUNCTION_LIST = std::ptr::null_mut();
    // SAFETY: both libraries are PKCS#11 modules, whose C_GetFunctionList has this type and gives a valid list for as
    // long as the library stays loaded; it is not unloaded here. The list is the version, padded to a word, and then
    // function pointers, NULL or not, which are read as words.
    unsafe {
        let library = libloading::Library::new(library).unwrap();
        assert_eq!(library.get::<GetFunctionList>(b"C_GetFunctionList\0").unwrap()(&raw mut list), 0);
        std::mem::forget(library);
        std::slice::from_raw_parts(list.cast::<usize>().add(1), WORDS - 1).to_vec()
    }
}

#[test]
fn every_function_is_there_and_ours() {
    let client = || {
        let real = functions(find_softhsm().unwrap());
        let ours = functions(&find_library().unwrap());
        assert_eq!(real.len(), Function::ALL.len() + 1, "the 2.40 list, C_GetFunctionList included");
        for (index, (real, ours)) in real.iter().zip(&ours).enumerate() {
            assert_eq!(*real == 0, *ours == 0, "function {index}");
            assert!(*real == 0 || real != ours, "function {index} is the real one's");
        }
        let mut distinct = ours.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), ours.len(), "no function stands twice in the list");
    };
    in_client(concat!(module_path!(), "::every_function_is_there_and_ours"), client, |_| {});
}
