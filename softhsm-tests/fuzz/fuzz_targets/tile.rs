//! Tiles: their names and bytes, and the names of a bundle's files.
#![no_main]

use countersign_fuzz::{genuine, seed, texts, unhex, vectors};
use countersign_trail::evidence::FileName;
use countersign_trail::tiles::{TilePath, encode_bundle, encode_hashes, parse_bundle, parse_hashes};
use libfuzzer_sys::fuzz_target;

fn seeds() {
    let vectors = vectors("tiles");
    let paths = texts(&vectors, "paths", "path");
    let is_path = |bytes: &[u8]| std::str::from_utf8(bytes).is_ok_and(|text| text.parse::<TilePath>().is_ok());
    let is_name = |bytes: &[u8]| std::str::from_utf8(bytes).is_ok_and(|text| text.parse::<FileName>().is_ok());
    genuine(&paths, is_path);
    seed(vectors["refused_paths"].as_array().unwrap().iter().map(|path| path.as_str().unwrap()));
    genuine(paths.iter().map(|path| format!("trails/acme.example~decisions/{path}")), is_name);
    let zeros = "0".repeat(64);
    let others = ["keys.json", "manifest.dsse.json", "trails/a.b~c/parts/x001/234.p/5", "trails/a.b~c/signatures/000"];
    genuine(others, is_name);
    genuine([format!("documents/{zeros}"), format!("keys/{}.pem", &zeros.replace('0', "A")[..43])], is_name);
    // Behind the width, which is the first two bytes of an input.
    let with_width = |width: usize, hex| [&(width as u16).to_be_bytes()[..], &unhex(hex)].concat();
    seed([with_width(33, &vectors["tile"]["bytes"])]);
    let entries = vectors["bundle"]["entries"].as_array().unwrap().len();
    seed([with_width(entries, &vectors["bundle"]["bytes"])]);
}

fuzz_target!(init: seeds(), |bytes: &[u8]| {
    if let Some((width, rest)) = bytes.split_first_chunk::<2>() {
        let width = u16::from_be_bytes(*width);
        if let Ok(entries) = parse_bundle(rest, width) {
            assert_eq!(entries.len(), usize::from(width));
            assert_eq!(encode_bundle(&entries).as_deref(), Ok(rest));
        }
        if let Ok(hashes) = parse_hashes(rest, width) {
            assert_eq!(encode_hashes(&hashes).as_deref(), Ok(rest));
        }
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(path) = text.parse::<TilePath>() {
        assert_eq!(path.to_string(), text);
        assert_eq!(TilePath::new(path.kind(), path.index(), path.width()), Ok(path));
        assert_eq!(path.is_partial(), text.contains(".p/"));
    }
    if let Ok(name) = text.parse::<FileName>() {
        assert_eq!(name.to_string(), text);
    }
});
