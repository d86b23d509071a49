//! What the fuzz targets share: seeds out of the test vectors, other spellings of JSON, and small
//! changes as a script.
//!
//! Each target is a program by itself (`fuzz_targets/`), for one family of parsers. It asserts more
//! than that nothing panics: what is accepted is written again byte for byte where the format has
//! one spelling, and a second implementation, where there is one, reads the same.

use std::path::{Path, PathBuf};

use countersign_trail::hash::Hash;
use serde_json::Value;

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Writes seeds into the corpus folder, the first folder among the arguments; does nothing without
/// one. To be called before libFuzzer reads that folder, which is in `init`.
pub fn seed<S: AsRef<[u8]>>(seeds: impl IntoIterator<Item = S>) {
    let mut folders = std::env::args_os().skip(1).map(PathBuf::from).filter(|argument| argument.is_dir());
    let Some(folder) = folders.next() else { return };
    for seed in seeds {
        let name = Hash::of(seed.as_ref()).to_string();
        let path = folder.join(format!("seed-{}", &name[..16]));
        std::fs::write(&path, seed.as_ref()).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

/// Seeds that `accepts` must take, so that fuzzing begins behind the first checks of a parser.
pub fn genuine<S: AsRef<[u8]>>(seeds: impl IntoIterator<Item = S>, accepts: impl Fn(&[u8]) -> bool) {
    let check = |seed: &S| assert!(accepts(seed.as_ref()), "refused: {}", String::from_utf8_lossy(seed.as_ref()));
    seed(seeds.into_iter().inspect(check));
}

/// A file of test vectors, `signer/trail/tests/vectors/<name>.json`.
pub fn vectors(name: &str) -> Value {
    let path = root().join("signer/trail/tests/vectors").join(format!("{name}.json"));
    let text = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The member `member` of every object in the list `list`, all of them texts.
pub fn texts(vectors: &Value, list: &str, member: &str) -> Vec<String> {
    let items = vectors[list].as_array().unwrap_or_else(|| panic!("no list {list}"));
    items.iter().map(|item| text(&item[member]).to_owned()).collect()
}

/// A text of the vectors.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

/// Bytes that stand in hexadecimal in the vectors.
pub fn unhex(value: &Value) -> Vec<u8> {
    let digits = text(value).as_bytes();
    let digit = |byte: &u8| char::from(*byte).to_digit(16).unwrap_or_else(|| panic!("{value} is no hexadecimal"));
    digits.chunks(2).map(|pair| pair.iter().fold(0, |sum, byte| sum * 16 + digit(byte)) as u8).collect()
}

/// Members of our formats that may be absent, for which `null` is another spelling.
const OPTIONAL: [&str; 9] =
    ["predecessor", "record_algorithm", "trail", "signature", "tlog_proof", "media_type", "withheld", "body", "links"];

/// Other canonical JSON texts that a parser with a derived shape may take for this one: an object as
/// the list of its values, an absent member as null. Empty for what is no JSON.
pub fn other_spellings(json: &[u8]) -> Vec<Vec<u8>> {
    let mut spellings = lists(json);
    let Ok(value) = serde_json::from_slice::<Value>(json) else { return spellings };
    for pointer in objects(&value) {
        for name in OPTIONAL {
            let mut with_null = value.clone();
            if let Some(Value::Object(members)) = with_null.pointer_mut(&pointer)
                && !members.contains_key(name)
            {
                members.insert(name.to_owned(), Value::Null);
                spellings.push(with_null.to_string().into_bytes());
            }
        }
    }
    spellings
}

/// The JSON text with each of its objects in turn as the list of its values, by the members' names.
pub fn lists(json: &[u8]) -> Vec<Vec<u8>> {
    let Ok(value) = serde_json::from_slice::<Value>(json) else { return Vec::new() };
    let list = |pointer: &String| {
        let mut other = value.clone();
        let object = other.pointer_mut(pointer)?;
        *object = object.as_object()?.values().cloned().collect();
        Some(other.to_string().into_bytes())
    };
    objects(&value).iter().filter_map(list).collect()
}

/// The JSON pointers of every object within a value, the outermost first.
fn objects(value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    find_objects(value, String::new(), &mut found);
    found
}

fn find_objects(value: &Value, pointer: String, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            found.push(pointer.clone());
            for (name, member) in members {
                find_objects(member, format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1")), found);
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                find_objects(item, format!("{pointer}/{at}"), found);
            }
        }
        _ => {}
    }
}

/// One small change of one of several byte strings.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    /// What is done: see [`Change::apply`].
    pub kind: u8,
    /// Which byte string, to be taken modulo their number.
    pub which: usize,
    /// Where, to be taken modulo its length.
    pub at: usize,
    /// The new byte.
    pub value: u8,
}

impl Change {
    /// Reads a script: six bytes a change, at most `max` of them.
    pub fn script(bytes: &[u8], max: usize) -> Vec<Change> {
        let (changes, _) = bytes.as_chunks::<6>();
        let change = |&[kind, a, b, c, d, value]: &[u8; 6]| Change {
            kind,
            which: usize::from(u16::from_be_bytes([a, b])),
            at: usize::from(u16::from_be_bytes([c, d])),
            value,
        };
        changes.iter().take(max).map(change).collect()
    }

    /// Replaces, removes, inserts or flips a byte, or cuts the end off.
    pub fn apply(&self, bytes: &mut Vec<u8>) {
        let at = self.at % bytes.len().max(1);
        match self.kind % 5 {
            0 if !bytes.is_empty() => bytes[at] = self.value,
            1 if !bytes.is_empty() => drop(bytes.remove(at)),
            2 if !bytes.is_empty() => bytes[at] ^= 1 << (self.value % 8),
            3 => bytes.truncate(at),
            // A new one may stand behind the last.
            _ => bytes.insert(self.at % (bytes.len() + 1), self.value),
        }
    }
}
