//! What a reader finds when writers were killed inside a line.
#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests, helpers included")]

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use countersign_faulty_transcript::calls::CALLS_FILE;
use countersign_faulty_transcript::transcript::TRANSCRIPT_FILE;
use countersign_faulty_transcript::{Answer, Asked, CallLine, Error, Function, Outcome, Transcript, call_log};

fn appending(path: &Path) -> File {
    OpenOptions::new().append(true).create(true).open(path).unwrap()
}

fn asked(n: u64) -> Asked {
    Asked {
        pid: 7,
        function: Function::C_Sign,
        n,
        mechanism: Some(0x1057),
        key_id: Some(vec![0, 255]),
        key_label: Some("a \"label\" with {\"phase\": and ключ\n".to_owned()),
        input: vec![n as u8; 3],
        answer: None,
    }
}

const ANSWER: Answer = Answer { rv: 0x30, signature: None, injected: true };

/// The bytes of the line for an input.
fn line(entry: &Asked) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().unwrap();
    entry.append(&appending(file.path())).unwrap();
    std::fs::read(file.path()).unwrap()
}

#[test]
fn an_entry_is_read_as_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(Transcript::read(dir.path()), Err(Error::Io { .. })), "never loaded is not empty");
    let file = appending(&dir.path().join(TRANSCRIPT_FILE));
    let bare = Asked { mechanism: None, key_id: None, key_label: None, input: Vec::new(), ..asked(2) };
    asked(1).append(&file).unwrap();
    bare.append(&file).unwrap();
    let signed = Answer { rv: 0, signature: Some(vec![1, 2]), injected: false };
    bare.append_answer(&file, &signed).unwrap();
    let transcript = Transcript::read(dir.path()).unwrap();
    let expected = [asked(1), Asked { answer: Some(signed), ..bare }];
    assert_eq!(transcript.asked().cloned().collect::<Vec<_>>(), expected);
    assert_eq!(transcript.torn(), 0);

    let text = std::fs::read_to_string(dir.path().join(TRANSCRIPT_FILE)).unwrap();
    assert!(text.starts_with(
        r#"{"phase":"asked","pid":7,"function":"C_Sign","n":1,"mechanism":"0x1057","key_id":"00ff","key_label":"#
    ));
    assert!(text.ends_with(
        "{\"phase\":\"answered\",\"pid\":7,\"function\":\"C_Sign\",\"n\":2,\"rv\":\"0x0\",\"sig\":\"0102\",\"injected\":false}\n"
    ));
}

/// A line cut at every byte, then another writer's whole line: the whole one is read, and the cut one only if nothing
/// but its newline is missing.
#[test]
fn a_whole_line_behind_a_torn_one_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(TRANSCRIPT_FILE);
    let torn = line(&asked(1));
    for cut in 1..torn.len() {
        std::fs::write(&path, &torn[..cut]).unwrap();
        let file = appending(&path);
        for behind in [false, true] {
            if behind {
                asked(2).append(&file).unwrap();
                asked(2).append_answer(&file, &ANSWER).unwrap();
            }
            let transcript = Transcript::read(dir.path()).unwrap();
            let complete = cut == torn.len() - 1;
            let mut expected = if complete { vec![asked(1)] } else { Vec::new() };
            expected.extend(behind.then(|| Asked { answer: Some(ANSWER), ..asked(2) }));
            assert_eq!(transcript.asked().cloned().collect::<Vec<_>>(), expected, "cut at {cut}");
            assert_eq!(transcript.torn(), u64::from(!complete), "cut at {cut}, {behind}");
        }
    }
}

#[test]
fn what_no_kill_explains_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(TRANSCRIPT_FILE);
    let question = String::from_utf8(line(&asked(1))).unwrap();
    let answer = "{\"phase\":\"answered\",\"pid\":7,\"function\":\"C_Sign\",\"n\":1,\"rv\":\"0x0\",\"sig\":null,\"injected\":false}\n";
    for (text, number) in [
        (format!("{question}{question}"), 2),
        (answer.to_owned(), 1),
        (format!("{question}{answer}{answer}"), 3),
        (format!("{question}{}", question.replace("\"input\"", "\"output\"")), 2),
        (format!("{question}{}", question.replace("C_Sign", "C_Sing")), 2),
    ] {
        std::fs::write(&path, &text).unwrap();
        match Transcript::read(dir.path()) {
            Err(Error::Line { line, .. }) => assert_eq!(line, number, "{text}"),
            other => panic!("{text}: {other:?}"),
        }
    }
}

#[test]
fn the_call_log_is_read_likewise() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = appending(&dir.path().join(CALLS_FILE));
    let outcomes = [Outcome::Returned(0xA0), Outcome::Hang, Outcome::Abort, Outcome::Returned(0)];
    let lines: Vec<CallLine> =
        (1..).zip(outcomes).map(|(n, outcome)| CallLine { pid: 9, function: Function::C_Login, n, outcome }).collect();
    for line in &lines {
        line.append(&file).unwrap();
        file.write_all(b"call 9 C_Lo").unwrap();
    }
    assert_eq!(call_log(dir.path()).unwrap(), lines);
    let text = std::fs::read_to_string(dir.path().join(CALLS_FILE)).unwrap();
    assert!(text.starts_with("call 9 C_Login 1 0xa0\ncall 9 C_Lo"));
    file.write_all(b"call 9 C_Login 5 0xa0 more\n").unwrap();
    assert!(matches!(call_log(dir.path()), Err(Error::Line { .. })));
}
