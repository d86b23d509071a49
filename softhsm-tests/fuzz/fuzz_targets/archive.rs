//! The strict zip profile, beside the zip crate.
//!
//! The first byte of an input says whether the rest is an archive, or names and contents of one.
#![no_main]

use std::io::{Cursor, Read as _};

use countersign_fuzz::genuine;
use countersign_trail::archive::{Archive, ArchiveError, ArchiveWriter};
use libfuzzer_sys::fuzz_target;

const BYTES: u8 = 0;
const FILES: u8 = 1;

fn pack(files: &[(&str, &[u8])]) -> Result<Vec<u8>, ArchiveError> {
    let mut writer = ArchiveWriter::new();
    let mut bytes = Vec::new();
    for (name, content) in files {
        let (header, content) = writer.push(name, content)?;
        bytes.extend(header);
        bytes.extend_from_slice(content);
    }
    bytes.extend(writer.finish());
    Ok(bytes)
}

fn seeds() {
    let archives = [
        pack(&[]),
        pack(&[("a", b"")]),
        pack(&[("keys.json", b"{}"), ("trails/a.b~c/tile/entries/000.p/1", b"\0\x02{}"), ("z", &[7; 300])]),
    ];
    let archives = archives.map(|archive| [&[BYTES][..], &archive.unwrap()].concat());
    genuine(archives, |bytes| Archive::parse(&bytes[1..]).is_ok());
    let files: [&[u8]; 2] = [b"a/b\0content\0a/c\0\0z\0x", b"a\0\0a/b\0"];
    countersign_fuzz::seed(files.map(|files| [&[FILES][..], files].concat()));
}

fuzz_target!(init: seeds(), |bytes: &[u8]| {
    match bytes.split_first() {
        Some((&BYTES, archive)) => check(archive),
        Some((&FILES, files)) => {
            let mut fields = files.split(|byte| *byte == 0);
            let mut files: Vec<(&str, &[u8])> = Vec::new();
            while let (Some(name), Some(content)) = (fields.next(), fields.next()) {
                let Ok(name) = std::str::from_utf8(name) else { return };
                files.push((name, content));
            }
            let Ok(packed) = pack(&files) else { return };
            let archive = Archive::parse(&packed).expect("what was written can be read");
            assert!(archive.iter().eq(files.iter().copied()));
            assert!(files.iter().all(|(name, content)| archive.get(name) == Some(*content)));
            check(&packed);
        }
        _ => {}
    }
});

fn check(bytes: &[u8]) {
    let Ok(archive) = Archive::parse(bytes) else { return };
    let files: Vec<(&str, &[u8])> = archive.iter().collect();
    assert_eq!(pack(&files).as_deref(), Ok(bytes));
    let mut theirs = zip::ZipArchive::new(Cursor::new(bytes)).expect("the zip crate takes what we take");
    assert_eq!(theirs.len(), files.len());
    for (at, (name, content)) in files.iter().enumerate() {
        let mut file = theirs.by_index(at).unwrap();
        let mut found = Vec::new();
        file.read_to_end(&mut found).unwrap();
        assert_eq!((file.name().unwrap().as_ref(), found.as_slice()), (*name, *content));
    }
}
