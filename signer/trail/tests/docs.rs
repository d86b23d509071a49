//! The chapters on formats quote the test vectors: what they show is what the code does.
#![cfg(test)]

use countersign_trail::control::Body;
use countersign_trail::evidence::{PartLine, parse_parts};
use countersign_trail::sshsig::Act;
use serde_json::Value;

macro_rules! chapter {
    ($name:literal) => {
        include_str!(concat!("../../../docs/src/formats/", $name, ".md"))
    };
}

macro_rules! vectors {
    ($name:literal) => {
        serde_json::from_str::<Value>(include_str!(concat!("vectors/", $name, ".json"))).unwrap()
    };
}

/// Asserts that `chapter` shows the text at `pointer` of `vectors`.
fn quotes(chapter: &str, vectors: &Value, pointer: &str) {
    let text = vectors.pointer(pointer).and_then(Value::as_str);
    let text = text.unwrap_or_else(|| panic!("no text at {pointer}"));
    assert!(chapter.contains(text), "{pointer} is not shown: {text}");
}

#[test]
fn records_are_quoted() {
    let (chapter, vectors) = (chapter!("records"), vectors!("record"));
    quotes(chapter, &vectors, "/records/1/record");
    quotes(chapter, &vectors, "/records/1/leaf_hash");
    quotes(chapter, &vectors, "/records/2/record");
    for name in Body::TYPES {
        assert!(chapter.contains(&format!("| `{name}` |")), "{name}");
    }
}

#[test]
fn parts_are_quoted() {
    let vectors = vectors!("parts");
    quotes(chapter!("parts"), &vectors, "/parts/1/commitment");
    // The lines that the chapter on evidence shows are lines, and the first is that very part.
    let lines: Vec<&str> = chapter!("evidence").lines().filter(|line| line.starts_with('{')).collect();
    assert_eq!(lines.len(), 2);
    let parts = parse_parts(format!("{}\n{}\n", lines[0], lines[1]).as_bytes()).unwrap();
    assert_eq!(parts[0].commitment().unwrap().to_string(), vectors["parts"][1]["commitment"]);
    assert!(matches!(parts[1], PartLine::Withheld { .. }));
}

#[test]
fn trees_and_proofs_are_quoted() {
    let vectors = vectors!("tree");
    let roots = vectors["roots"].as_array().unwrap();
    for root in roots {
        let (size, hash) = (root["size"].as_u64().unwrap(), root["root"].as_str());
        if [0, 1, 2, 7, 11].contains(&size) {
            let row = format!("| {size} | `{}` |", hash.unwrap());
            assert!(chapter!("trees").contains(&row), "{row}");
        }
    }
    let chapter = chapter!("proofs");
    let example = |proof: &&Value| proof["size"] == 11;
    let proofs = vectors["multiproof"].as_array().unwrap();
    let proof = proofs.iter().find(example).unwrap();
    assert_eq!(proof["wanted"], serde_json::json!([2, 3, 9]));
    let list = proof["proof"].as_array().unwrap();
    let list: Vec<&str> = list.iter().map(|hash| hash.as_str().unwrap()).collect();
    assert!(chapter.contains(&format!("```text\n{}\n```", list.join("\n"))));
    let paths = vectors["inclusion"].as_array().unwrap();
    let six = |path: &&Value| path["size"] == 7 && path["index"] == 6;
    for hash in paths.iter().find(six).unwrap()["path"].as_array().unwrap() {
        assert!(chapter.contains(hash.as_str().unwrap()));
    }
    quotes(chapter, &vectors!("tlog_proof"), "/proofs/2/proof");
}

#[test]
fn checkpoints_are_quoted() {
    let (chapter, vectors) = (chapter!("checkpoints"), vectors!("checkpoint"));
    quotes(chapter, &vectors, "/signed/0/vkey");
    quotes(chapter, &vectors, "/signed/0/checkpoint");
}

#[test]
fn signatures_are_quoted() {
    let chapter = chapter!("signatures");
    quotes(chapter, &vectors!("dsse"), "/keys/0/kid");
    quotes(chapter, &vectors!("dsse"), "/keys/1/kid");
    quotes(chapter, &vectors!("dsse"), "/envelopes/0/envelope");
    quotes(chapter, &vectors!("signing"), "/probes/0/payload");
    for act in Act::ALL {
        assert!(chapter.contains(&format!("`{act}`")), "{act}");
    }
}

#[test]
fn documents_are_quoted() {
    let (chapter, vectors) = (chapter!("documents"), vectors!("documents"));
    quotes(chapter, &vectors, "/admin_records/0");
    quotes(chapter, &vectors, "/first_records/0/leaf_hash");
    quotes(chapter, &vectors, "/fingerprint");
    quotes(chapter, &vectors, "/signatures/0/armor");
}
