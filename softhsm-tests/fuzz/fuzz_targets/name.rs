//! The small texts: names, times, numbers, hashes, base64, words; beside regular expressions and
//! other implementations.
#![no_main]

use std::sync::OnceLock;

use countersign_fuzz::seed;
use countersign_trail::base64;
use countersign_trail::document::is_spiffe_id;
use countersign_trail::hash::Hash;
use countersign_trail::id::{EventId, InstanceId, MemberId, PartName, TypeName};
use countersign_trail::origin::{MAX_ORIGIN_LEN, Origin};
use countersign_trail::part::is_media_type;
use countersign_trail::record::{Category, Decision, EventResult, decimal};
use countersign_trail::signing::Purpose;
use countersign_trail::sshsig::Act;
use countersign_trail::time::Timestamp;
use libfuzzer_sys::fuzz_target;
use regex_lite::Regex;

/// What each parser takes, as the documentation of the formats writes it.
struct Grammars {
    origin: Regex,
    dashed: Regex,
    dotted: Regex,
    event_id: Regex,
    part: Regex,
    media_type: Regex,
    spiffe_id: Regex,
    hash: Regex,
    time: Regex,
}

fn grammars() -> &'static Grammars {
    static GRAMMARS: OnceLock<Grammars> = OnceLock::new();
    GRAMMARS.get_or_init(|| {
        let whole = |grammar: &str| Regex::new(&format!(r"\A(?:{grammar})\z")).unwrap();
        Grammars {
            origin: whole(r"[a-z][a-z0-9-]*(\.[a-z0-9-]+)+(/[a-z0-9._-]+)+"),
            dashed: whole("[a-z][a-z0-9-]{0,63}"),
            dotted: whole("[a-z][a-z0-9._-]{0,63}"),
            event_id: whole(r"[\x21-\x7e]{1,64}"),
            part: whole("[a-z]{1,32}"),
            media_type: whole(r"[\x21-\x7e]{1,128}"),
            spiffe_id: whole(r"spiffe://[a-z0-9._-]{1,255}(/[a-zA-Z0-9._-]+)+"),
            hash: whole("[0-9a-f]{64}"),
            time: whole(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)\.(\d{6})Z"),
        }
    })
}

fn seeds() {
    seed(["acme.example/gateway/decisions", "gw-1", "llm.tool_call", "0198-a!~", "facts", "text/plain;charset=utf-8"]);
    seed(["spiffe://acme.example/gateway/1", "spiffe://a/..", "genesis@countersign", "admin-checkpoint", "redaction"]);
    seed(["0", "18446744073709551615", "18446744073709551616", "007", "2024-02-29T23:59:59.999999Z"]);
    seed(["1970-01-01T00:00:00.000000Z", "9999-12-31T23:59:59.999999Z", "2100-02-29T00:00:00.000000Z"]);
    seed([Hash::OF_EMPTY.to_string()]);
    seed(["Zg==", "Zm8=", "Zm9v", "Zh==", "-_8", "+/8="]);
}

fuzz_target!(init: seeds(), |text: &str| {
    let grammars = grammars();
    let origin = Origin::parse(text);
    assert_eq!(origin.is_ok(), text.len() <= MAX_ORIGIN_LEN && grammars.origin.is_match(text));
    if let Ok(origin) = origin {
        assert_eq!((origin.as_str(), origin.path_segment().replace('~', "/").as_str()), (text, text));
    }
    assert_eq!(MemberId::parse(text).is_ok(), grammars.dashed.is_match(text));
    assert_eq!(InstanceId::parse(text).is_ok(), grammars.dashed.is_match(text));
    assert_eq!(TypeName::parse(text).is_ok(), grammars.dotted.is_match(text));
    assert_eq!(EventId::parse(text).is_ok(), grammars.event_id.is_match(text));
    assert_eq!(PartName::parse(text).is_ok(), grammars.part.is_match(text));
    assert_eq!(is_media_type(text), grammars.media_type.is_match(text));
    let segments = text.split('/').skip(3).all(|segment| !matches!(segment, "." | ".."));
    assert_eq!(is_spiffe_id(text), text.len() <= 2048 && segments && grammars.spiffe_id.is_match(text));
    let hash = text.parse::<Hash>();
    assert_eq!(hash.is_ok(), grammars.hash.is_match(text));
    assert!(hash.is_err() || hash.unwrap().to_string() == text);
    let number = text.parse::<u64>().ok().filter(|number| number.to_string() == text);
    assert_eq!(decimal::parse(text), number);
    if let Ok(bytes) = base64::std_decode(text) {
        assert_eq!(base64::std_encode(&bytes), text);
    }
    if let Ok(bytes) = base64::url_decode(text) {
        assert_eq!(base64::url_encode(&bytes), text);
    }
    time(text, &grammars.time);
    words(text);
});

/// Beside the calendar of the `der` crate, and the one that maps LiteLLM's payloads.
fn time(text: &str, grammar: &Regex) {
    use x509_cert::der::DateTime;
    let fields = grammar.captures(text).map(|fields| {
        let number = |at: usize| fields[at].parse::<u32>().unwrap();
        (number(1) as u16, [2, 3, 4, 5, 6].map(|at| number(at) as u8), number(7))
    });
    let theirs = fields.and_then(|(year, [month, day, hour, minute, second], micros)| {
        let date = DateTime::new(year, month, day, hour, minute, second).ok()?;
        i64::try_from(date.unix_duration().as_micros()).ok()?.checked_add(i64::from(micros))
    });
    let ours = text.parse::<Timestamp>().ok();
    assert_eq!(ours.map(Timestamp::as_micros), theirs, "{text}");
    if let Some(ours) = ours {
        assert_eq!(ours.to_string(), text);
        assert_eq!(Timestamp::from_micros(ours.as_micros()), Ok(ours));
        assert_eq!(countersign_litellm_map::id::rfc3339(ours.as_micros() as u64), text);
    }
}

fn words(text: &str) {
    let found = [
        Category::from_word(text).map(Category::word),
        Decision::from_word(text).map(Decision::word),
        EventResult::from_word(text).map(EventResult::word),
        Purpose::from_word(text).map(Purpose::word),
        Act::from_namespace(text).map(Act::namespace),
    ];
    assert!(found.into_iter().flatten().all(|word| word == text));
}
