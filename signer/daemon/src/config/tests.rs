use std::collections::BTreeMap;
use std::time::Duration;

use countersign_hsm::PinSource;

use super::*;

const EXAMPLE: &str = include_str!("../../../../deploy/countersignd.toml");

/// Every required key and nothing else.
const MINIMAL: &str = r#"
data_dir = "data"
head_dir = "/head"

[record_token]
module = "/lib/p11.so"
label = "r"
pin_file = "r.pin"
mac_key_file = "r.mac"
state_dir = "state"

[admin_token]
module = "/lib/p11.so"
label = "a"
pin_credential = "admin-pin"
mac_key_file = "a.mac"
state_dir = "state"

[tls]
certificate = "server.pem"
key = "server.key"
"#;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("/etc/countersign"))
}

fn refused(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

/// The example with its commented keys switched on.
fn every_key() -> String {
    let mut text = String::new();
    for line in EXAMPLE.lines() {
        let key = line.strip_prefix("# ").filter(|rest| rest.split_once(" = ").is_some_and(|(key, _)| is_key(key)));
        text.push_str(key.unwrap_or(line));
        text.push('\n');
    }
    text
}

fn is_key(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
}

/// The keys of each struct, as serde's own refusal of an unknown key lists them.
fn keys_of(table: &str) -> Vec<String> {
    let text = match table {
        "" => "zzz = 1".to_owned(),
        "record_token" | "admin_token" | "tls" => {
            MINIMAL.replace(&format!("[{table}]"), &format!("[{table}]\nzzz = 1"))
        }
        _ => format!("{MINIMAL}\n[{table}]\nzzz = 1"),
    };
    let message = refused(&text);
    let (_, list) = message.split_once("expected ").unwrap_or_else(|| panic!("{message}"));
    list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn the_example_parses_and_shows_the_defaults() {
    let example = parse(EXAMPLE).unwrap();
    let minimal = parse(MINIMAL).unwrap();
    assert_eq!(example.listen, minimal.listen);
    assert_eq!(example.limits, minimal.limits);
    assert_eq!(example.batch, minimal.batch);
    assert_eq!(example.checkpoint, minimal.checkpoint);
    assert_eq!(example.heartbeat, minimal.heartbeat);
    assert_eq!(example.clock, minimal.clock);
    assert_eq!(example.log, minimal.log);
    assert_eq!(example.tls.reload_seconds, minimal.tls.reload_seconds);
    assert_eq!(example.tls.enforce_crl_expiry, minimal.tls.enforce_crl_expiry);
    for (of_example, of_minimal) in
        [(&example.record_token, &minimal.record_token), (&example.admin_token, &minimal.admin_token)]
    {
        assert_eq!(
            (of_example.workers, of_example.sessions, of_example.call_deadline_ms),
            (of_minimal.workers, of_minimal.sessions, of_minimal.call_deadline_ms),
        );
    }
}

#[test]
fn the_example_has_every_key() {
    let document: toml::Table = toml::from_str(&every_key()).unwrap();
    let mut checked = BTreeMap::new();
    for key in keys_of("") {
        let value = document.get(&key).unwrap_or_else(|| panic!("{key} is missing"));
        // The two tokens have the same struct; the first shows every key.
        let Some(table) = value.as_table().filter(|_| key != "admin_token") else { continue };
        let keys = keys_of(&key);
        for inner in &keys {
            assert!(table.contains_key(inner), "{key}.{inner} is missing");
        }
        checked.insert(key, keys.len());
    }
    assert_eq!(checked["limits"], Limits::KEYS.len());
    assert_eq!(checked["tls"], 5);
    assert_eq!(checked["record_token"], 13);
    assert_eq!(checked.len(), 9);
}

#[test]
fn unknown_keys_are_refused_with_their_place() {
    assert!(
        refused(&format!("{MINIMAL}\n[limits]\n  rate = 1"))
            .starts_with("line 24, column 3: limits.rate: unknown field `rate`, expected one of `message_bytes`"),
        "{}",
        refused(&format!("{MINIMAL}\n[limits]\n  rate = 1"))
    );
    let top = refused(&format!("datadir = 1\n{MINIMAL}"));
    assert!(top.starts_with("line 1, column 1: datadir: unknown field `datadir`"), "{top}");
    assert!(refused(&format!("{MINIMAL}\n[limit]\nx = 1")).contains("unknown field `limit`"));
}

#[test]
fn wrong_and_missing_values_are_refused_by_name() {
    let wrong = refused(&MINIMAL.replace("\"r\"", "7"));
    assert!(wrong.starts_with("line 7, column 9: record_token.label: invalid type"), "{wrong}");
    let missing = refused(&MINIMAL.replace("key = \"server.key\"", ""));
    assert!(missing.contains("tls: missing field `key`"), "{missing}");
    let syntax = refused("data_dir = ");
    assert!(syntax.starts_with("line 1, column "), "{syntax}");
    let twice = refused(&format!("{MINIMAL}\nkey = \"again\""));
    assert!(twice.contains("duplicate key"), "{twice}");
    let genesis = refused(&format!("genesis = \"ABC\"\n{MINIMAL}"));
    assert!(genesis.contains("genesis: a SHA-256 value is written with 64"), "{genesis}");
}

#[test]
fn what_is_expected_is_said_in_words() {
    for (text, said) in [
        ("limits = 5", "limits: invalid type: integer `5`, expected a table"),
        (
            "[limits]\nmessage_bytes = \"8M\"",
            "invalid type: string \"8M\", expected a whole number that is not negative",
        ),
        ("[limits]\nmessage_bytes = -1", "invalid value: integer `-1`, expected a whole number that is not negative"),
    ] {
        let text = if text.starts_with('[') { format!("{MINIMAL}\n{text}") } else { format!("{text}\n{MINIMAL}") };
        assert!(refused(&text).contains(said), "{}", refused(&text));
    }
    let workers = refused(&MINIMAL.replace("label = \"r\"", "label = \"r\"\nworkers = 70000"));
    assert!(workers.ends_with("expected a whole number from 0 to 65535"), "{workers}");
}

#[test]
fn a_list_is_no_table() {
    let addresses = r#"listen = ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3", true]"#;
    assert_eq!(
        refused(&format!("{addresses}\n{MINIMAL}")),
        "line 1, column 1: listen: is a list, where a value or a table belongs"
    );
    let text = format!("{MINIMAL}\n[[limits]]\nmessage_bytes = 65536\n");
    assert!(refused(&text).contains("limits: is a list"), "{}", refused(&text));
    parse(&MINIMAL.replace("[tls]", "[tls]\ncrls = [\"a.crl\"]")).unwrap();
}

/// Every bounded key, at its bounds and one beyond them.
#[test]
fn every_bound_is_checked_by_name() {
    let tables = [
        ("limits", Limits::KEYS),
        ("batch", Batch::KEYS),
        ("checkpoint", Checkpoint::KEYS),
        ("heartbeat", Heartbeat::KEYS),
        ("clock", Clock::KEYS),
    ];
    for (table, keys) in tables {
        for (key, default, min, max) in keys {
            assert!(min <= default && default <= max, "{table}.{key}");
            let with = |value: u64| format!("{MINIMAL}\n[{table}]\n{key} = {value}");
            for value in [min - 1, max + 1] {
                let message = refused(&with(value));
                let type_bound = message.contains("invalid value");
                let want =
                    format!("line 24, column 1: {table}.{key}: {value} is not allowed; allowed are {min} to {max}");
                assert!(type_bound || message == want, "{message}\n{want}");
            }
            for value in [*min, *max] {
                // Only the relations between keys may refuse a value inside its own bounds.
                if let Err(error) = parse(&with(value)) {
                    assert!(error.to_string().contains("is less than one"), "{error}");
                }
            }
        }
    }
}

#[test]
fn tokens_are_checked() {
    for (from, to, key) in [
        ("label = \"r\"", "label = \"\"", "record_token.label"),
        ("label = \"r\"", "label = \"r\"\nworkers = 17", "record_token.workers"),
        ("label = \"r\"", "label = \"r\"\nsessions = 0", "record_token.sessions"),
        ("label = \"r\"", "label = \"r\"\ncall_deadline_ms = 1", "record_token.call_deadline_ms"),
        ("label = \"r\"", "label = \"r\"\nserial = \"01234567890123456\"", "record_token.serial"),
        ("pin_file = \"r.pin\"", "", "record_token.pin_file"),
        ("pin_file = \"r.pin\"", "pin_file = \"r.pin\"\npin_credential = \"p\"", "record_token.pin_file"),
        ("pin_credential = \"admin-pin\"", "pin_credential = \"../p\"", "admin_token.pin_credential"),
        ("pin_file = \"r.pin\"", "pin_credential = \"admin-pin\"", "admin_token: has the PIN of record_token"),
        ("head_dir = \"/head\"", "head_dir = \"data\"", "head_dir: is data_dir"),
        ("[tls]", "[log]\nfilter = \"a=loud\"\n[tls]", "line 20, column 1: log.filter: error parsing level"),
        ("[tls]", "[log]\nfilter = \"inof\"\n[tls]", "line 20, column 1: log.filter: \"inof\" is no level"),
    ] {
        assert!(MINIMAL.contains(from));
        let message = refused(&MINIMAL.replace(from, to));
        assert!(message.contains(key), "{message}");
    }
}

#[test]
fn addresses_are_not_used_twice() {
    let listen = |text: &str| parse(&format!("{MINIMAL}\n[listen]\n{text}"));
    assert!(
        listen("public = \"127.0.0.1:9464\"").unwrap_err().to_string().contains("listen: names 127.0.0.1:9464 twice")
    );
    listen("grpc = \"127.0.0.1:0\"\noperations = \"127.0.0.1:0\"\npublic = \"[::1]:0\"").unwrap();
}

#[test]
fn paths_are_taken_from_the_folder_of_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("countersignd.toml");
    std::fs::write(&path, MINIMAL).unwrap();
    let (config, hash) = Config::load(&path).unwrap();
    assert_eq!(hash, Hash::of(MINIMAL.as_bytes()));
    assert_eq!(config.data_dir, dir.path().join("data"));
    assert_eq!(config.head_dir, Path::new("/head"));
    let token = config.record_token.to_hsm();
    assert_eq!(token.pin, PinSource::File(dir.path().join("r.pin")));
    assert_eq!(token.mac_key_file, dir.path().join("r.mac"));
    assert_eq!(token.call_deadline, Duration::from_secs(5));
    assert_eq!(config.admin_token.to_hsm().pin, PinSource::Credential("admin-pin".to_owned()));

    let message = Config::load(&dir.path().join("none.toml")).unwrap_err().to_string();
    assert!(message.contains("none.toml: No such file"), "{message}");
    std::fs::write(&path, "x = 1").unwrap();
    let message = Config::load(&path).unwrap_err().to_string();
    assert!(message.starts_with(&format!("{}: line 1, column 1: x: unknown", path.display())), "{message}");
    std::fs::write(&path, vec![b'#'; MAX_FILE_BYTES as usize + 1]).unwrap();
    assert!(matches!(Config::load(&path), Err(ConfigError::TooLarge { .. })));
}

#[test]
fn a_user_of_the_workers_comes_with_a_group_and_a_pin_file() {
    let with = |label: &str, lines: &str| {
        MINIMAL.replace(&format!("label = \"{label}\"\n"), &format!("label = \"{label}\"\n{lines}\n"))
    };
    let token = parse(&with("r", "user = 7\ngroup = 8")).unwrap().record_token;
    assert_eq!(token.to_hsm().user.map(|user| (user.uid, user.gid)), Some((7, 8)));
    for lines in ["user = 7", "group = 8", "user = 0\ngroup = 8", "user = 7\ngroup = 0"] {
        assert!(refused(&with("r", lines)).contains("record_token.user"), "{}", refused(&with("r", lines)));
    }
    // The service manager gives a credential to the daemon's user alone.
    let refusal = refused(&with("a", "user = 7\ngroup = 8"));
    assert!(refusal.contains("admin_token.pin_credential") && refusal.contains("pin_file"), "{refusal}");
}
