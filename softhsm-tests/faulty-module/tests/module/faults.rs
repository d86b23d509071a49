//! Each fault, met by a client that is not ended by it.

use std::time::{Duration, Instant};

use countersign_faulty_transcript::{
    Action, Function, Outcome, Rule, Transcript, Which, call_log, calls, write_control,
};
use cryptoki::error::RvError;
use cryptoki::session::UserType;

use crate::support::{self, Algorithm, Key, in_client, refusal, shared};

const DIGEST: [u8; 32] = [7; 32];

fn set(rules: &[(Function, Which, Action)]) {
    let rules: Vec<Rule> = rules.iter().map(|&(function, which, action)| Rule::new(function, which, action)).collect();
    write_control(&shared(), &rules).unwrap();
}

#[test]
fn return_values_by_number_range_and_every() {
    let client = || {
        let session = support::session();
        let key = Key::generate(&session, Algorithm::P256, b"k", "k");
        let sign = || key.sign(&session, &DIGEST);
        set(&[
            (Function::C_Sign, Which::Only(2), Action::Return(0x30)),
            (Function::C_Sign, Which::Range(4, 5), Action::Return(0x32)),
            (Function::C_Sign, Which::From(7), Action::Return(0xB3)),
        ]);
        // An injected error leaves the session free for the next operation, as a real one does.
        assert_eq!(sign().unwrap().len(), 64);
        assert_eq!(refusal(sign()), RvError::DeviceError);
        sign().unwrap();
        assert_eq!(refusal(sign()), RvError::DeviceRemoved);
        assert_eq!(refusal(sign()), RvError::DeviceRemoved);
        sign().unwrap();
        assert_eq!(refusal(sign()), RvError::SessionHandleInvalid);
        assert_eq!(refusal(sign()), RvError::SessionHandleInvalid);
        set(&[(Function::C_SignInit, Which::Every, Action::Return(0x101))]);
        assert_eq!(refusal(sign()), RvError::UserNotLoggedIn);
        assert_eq!(refusal(sign()), RvError::UserNotLoggedIn);
        set(&[]);
        sign().unwrap();
    };
    in_client(concat!(module_path!(), "::return_values_by_number_range_and_every"), client, |bench| {
        let transcript = Transcript::read(&bench.dir()).unwrap();
        let answers = transcript.asked().map(|asked| asked.answer.clone().unwrap());
        let answers: Vec<_> = answers.map(|a| (a.rv, a.injected, a.signature.is_some())).collect();
        let (signed, refused) = ((0, false, true), |rv| (rv, true, false));
        let expected =
            [signed, refused(0x30), signed, refused(0x32), refused(0x32), signed, refused(0xB3), refused(0xB3), signed];
        assert_eq!(answers, expected);
        assert!(transcript.asked().all(|asked| asked.input == DIGEST));
        let log = call_log(&bench.dir()).unwrap();
        let refused = log.iter().find(|line| (line.function, line.n) == (Function::C_Sign, 2)).unwrap();
        assert_eq!(refused.outcome, Outcome::Returned(0x30));
    });
}

#[test]
fn a_lock_out_never_reaches_the_token() {
    let client = || {
        let pkcs11 = support::initialized();
        let session = pkcs11.open_rw_session(support::slot(&pkcs11)).unwrap();
        set(&[(Function::C_Login, Which::From(1), Action::Return(0xA4))]);
        let login = || session.login(UserType::User, Some(&support::pin()));
        assert_eq!(refusal(login()), RvError::PinLocked);
        assert_eq!(refusal(login()), RvError::PinLocked);
        set(&[]);
        // Had the first one reached the token, this would be "already logged in".
        login().unwrap();
        assert_eq!(calls(&shared(), Function::C_Login).unwrap(), 3);
    };
    in_client(concat!(module_path!(), "::a_lock_out_never_reaches_the_token"), client, |bench| {
        assert!(!support::any_file_holds(&bench.dir(), support::PIN.as_bytes()));
    });
}

#[test]
fn latency_is_at_least_what_was_asked() {
    let client = || {
        let session = support::session();
        let key = Key::generate(&session, Algorithm::Ed25519, b"k", "k");
        set(&[
            (Function::C_Sign, Which::From(2), Action::Latency(Duration::from_millis(80))),
            (Function::C_Sign, Which::Only(2), Action::Latency(Duration::from_millis(70))),
            (Function::C_Sign, Which::Only(3), Action::Return(0x30)),
        ]);
        let timed = || {
            let began = Instant::now();
            (key.sign(&session, b"m"), began.elapsed())
        };
        timed().0.unwrap();
        let (slow, took) = timed();
        assert!(slow.is_ok() && took >= Duration::from_millis(150), "both latencies, not {took:?}");
        let (failed, took) = timed();
        assert_eq!(refusal(failed), RvError::DeviceError);
        assert!(took >= Duration::from_millis(80), "a latency before the error, not {took:?}");
    };
    in_client(concat!(module_path!(), "::latency_is_at_least_what_was_asked"), client, |_| {});
}

#[test]
fn a_garbage_signature_does_not_verify() {
    let client = || {
        let session = support::session();
        for (algorithm, id, input) in
            [(Algorithm::Ed25519, b"e", &b"a message"[..]), (Algorithm::P256, b"p", &DIGEST[..])]
        {
            let key = Key::generate(&session, algorithm, id, "k");
            let next = calls(&shared(), Function::C_Sign).unwrap() + 1;
            set(&[(Function::C_Sign, Which::Only(next), Action::Garbage)]);
            let garbage = key.sign(&session, input).unwrap();
            let good = key.sign(&session, input).unwrap();
            let point = key.point(&session);
            assert_eq!(garbage.len(), 64);
            assert!(!support::verifies(algorithm, &point, input, &garbage), "{algorithm:?}");
            assert!(support::verifies(algorithm, &point, input, &good), "{algorithm:?}");
            let transcript = Transcript::read(&shared()).unwrap();
            let asked = transcript.asked().find(|asked| asked.n == next).unwrap();
            let answer = asked.answer.as_ref().unwrap();
            assert_eq!((answer.injected, answer.signature.as_ref()), (true, Some(&garbage)));
        }
    };
    in_client(concat!(module_path!(), "::a_garbage_signature_does_not_verify"), client, |_| {});
}
