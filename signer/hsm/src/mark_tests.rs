use std::path::PathBuf;

use super::*;
use crate::mac::create_mac_key;

const SERIAL: &str = "0a/1b c";

struct Token {
    dir: tempfile::TempDir,
    mac: MacKey,
}

impl Token {
    fn new() -> Token {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("mac.key");
        create_mac_key(&key).unwrap();
        let mac = MacKey::open(&key, SERIAL).unwrap();
        let token = Token { dir, mac };
        create(token.dir.path(), &token.mac).unwrap();
        token
    }

    fn path(&self) -> PathBuf {
        files::of_serial(self.dir.path(), SERIAL, "mark")
    }

    fn begin(&self, mark: &Mark) -> Result<(), HsmError> {
        begin(self.dir.path(), &self.mac, mark.clone())
    }

    fn confirm(&self, mark: &Mark) -> Result<(), HsmError> {
        confirm(self.dir.path(), &self.mac, mark.clone())
    }

    fn get(&self, origin: &str) -> Result<Option<Mark>, HsmError> {
        get(self.dir.path(), &self.mac, &Marked::checkpoints(&Origin::parse(origin).unwrap()))
    }
}

fn mark(origin: &str, size: u64, variant: u8) -> Mark {
    Mark { of: Marked::checkpoints(&Origin::parse(origin).unwrap()), size, input: Hash::of(&[variant]) }
}

fn reason<T: std::fmt::Debug>(result: Result<T, HsmError>) -> Reason {
    result.unwrap_err().reason()
}

const ADMIN: &str = "acme.example/admin";

#[test]
fn a_mark_moves_forward_alone() {
    let token = Token::new();
    assert_eq!(token.get(ADMIN).unwrap(), None);
    token.begin(&mark(ADMIN, 1, 1)).unwrap();
    token.begin(&mark(ADMIN, 1, 1)).unwrap();
    assert_eq!(reason(token.begin(&mark(ADMIN, 1, 2))), Reason::PositionConflict);
    token.begin(&mark(ADMIN, 3, 3)).unwrap();
    for (size, variant) in [(1, 1), (2, 1), (0, 1)] {
        assert_eq!(reason(token.begin(&mark(ADMIN, size, variant))), Reason::PositionStale);
    }
    assert_eq!(token.get(ADMIN).unwrap(), Some(mark(ADMIN, 3, 3)), "a refusal moves nothing");
    token.begin(&mark("acme.example/other", 2, 1)).unwrap();
    assert_eq!(token.get(ADMIN).unwrap(), Some(mark(ADMIN, 3, 3)), "each trail has its own");
}

#[test]
fn a_missing_mark_is_not_an_empty_one() {
    let token = Token::new();
    std::fs::remove_file(token.path()).unwrap();
    assert_eq!(reason(token.begin(&mark(ADMIN, 1, 1))), Reason::MarkState);
    assert_eq!(reason(token.get(ADMIN)), Reason::MarkState);
    assert!(!token.path().exists());
    create(token.dir.path(), &token.mac).unwrap();
    token.begin(&mark(ADMIN, 1, 1)).unwrap();
}

#[test]
fn every_byte_of_the_mark_file_counts() {
    let token = Token::new();
    token.begin(&mark(ADMIN, 7, 1)).unwrap();
    let whole = std::fs::read(token.path()).unwrap();
    let refused = |bytes: &[u8], what: &str| {
        std::fs::write(token.path(), bytes).unwrap();
        assert_eq!(reason(token.get(ADMIN)), Reason::MarkState, "{what}");
        assert_eq!(reason(token.begin(&mark(ADMIN, 8, 1))), Reason::MarkState, "{what}");
        assert_eq!(std::fs::read(token.path()).unwrap(), bytes, "{what}: what is refused is not replaced");
    };
    for at in 0..whole.len() {
        for change in [1, 0x20, 0x80] {
            let mut changed = whole.clone();
            changed[at] ^= change;
            refused(&changed, &format!("byte {at} changed"));
        }
        refused(&whole[..at], &format!("cut at {at}"));
        let mut longer = whole.clone();
        longer.insert(at, b' ');
        refused(&longer, &format!("a blank at {at}"));
    }
    refused(&[&whole[..], b"\n"].concat(), "a further line feed");
    refused(&vec![b'x'; usize::try_from(MAX_FILE_BYTES).unwrap() + 1], "too long");
    std::fs::write(token.path(), &whole).unwrap();
    assert_eq!(token.get(ADMIN).unwrap(), Some(mark(ADMIN, 7, 1)));
}

#[test]
fn a_mark_of_another_key_or_another_token_is_refused() {
    let (ours, theirs) = (Token::new(), Token::new());
    ours.begin(&mark(ADMIN, 7, 1)).unwrap();
    theirs.begin(&mark(ADMIN, 3, 1)).unwrap();
    std::fs::copy(theirs.path(), ours.path()).unwrap();
    assert_eq!(reason(ours.get(ADMIN)), Reason::MarkState);
    // The same MAC key, another serial.
    let mac = MacKey::open(&ours.dir.path().join("mac.key"), "another").unwrap();
    create(ours.dir.path(), &mac).unwrap();
    std::fs::copy(files::of_serial(ours.dir.path(), "another", "mark"), ours.path()).unwrap();
    assert_eq!(reason(ours.begin(&mark(ADMIN, 8, 1))), Reason::MarkState);
}

#[test]
fn a_confirmed_mark_heals_a_lost_one_and_never_moves_back() {
    let token = Token::new();
    token.begin(&mark(ADMIN, 7, 1)).unwrap();
    assert_eq!(reason(token.confirm(&mark(ADMIN, 6, 1))), Reason::PositionStale);
    assert_eq!(reason(token.confirm(&mark(ADMIN, 7, 2))), Reason::PositionConflict);
    token.confirm(&mark(ADMIN, 7, 1)).unwrap();
    token.confirm(&mark(ADMIN, 9, 2)).unwrap();
    std::fs::remove_file(token.path()).unwrap();
    token.confirm(&mark(ADMIN, 5, 1)).unwrap();
    assert_eq!(token.get(ADMIN).unwrap(), Some(mark(ADMIN, 5, 1)));
    std::fs::write(token.path(), "damaged").unwrap();
    token.confirm(&mark(ADMIN, 4, 1)).unwrap();
    assert_eq!(token.get(ADMIN).unwrap(), Some(mark(ADMIN, 4, 1)));
}

#[test]
fn the_largest_mark_file_is_within_its_bound() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("mac.key");
    create_mac_key(&key).unwrap();
    // CK_TOKEN_INFO has 16 bytes for a serial number; a control character takes 6 in JSON.
    let mac = MacKey::open(&key, &"\u{1}".repeat(16)).unwrap();
    create(dir.path(), &mac).unwrap();
    let longest = |n: usize| format!("a.b/{n:02}{}", "x".repeat(countersign_trail::origin::MAX_ORIGIN_LEN - 6));
    for n in 0..MAX_MARKS {
        begin(dir.path(), &mac, mark(&longest(n), u64::MAX, 1)).unwrap();
    }
    let result = begin(dir.path(), &mac, mark(&longest(MAX_MARKS), 1, 1));
    assert_eq!(reason(result), Reason::TooLarge);
    let bytes = std::fs::metadata(files::of_serial(dir.path(), mac.serial(), "mark")).unwrap().len();
    assert_eq!(bytes, 5_199);
    assert!(bytes <= MAX_FILE_BYTES);
}

#[test]
fn workers_at_the_same_position_agree_on_one_input() {
    const WORKERS: u8 = 8;
    let token = Token::new();
    let together = std::sync::Barrier::new(usize::from(WORKERS));
    for size in 1..=100 {
        let contend = |variant| {
            together.wait();
            token.begin(&mark(ADMIN, size, variant)).is_ok()
        };
        let winners = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..WORKERS).map(|variant| scope.spawn(move || contend(variant))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).filter(|won| *won).count()
        });
        assert_eq!(winners, 1, "at size {size}");
    }
}
