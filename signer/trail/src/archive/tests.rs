use super::*;
use proptest::prelude::*;
use std::io::Read as _;

fn write(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = ArchiveWriter::new();
    let mut bytes = Vec::new();
    for (name, content) in entries {
        let (header, content) = writer.push(name, content).unwrap();
        bytes.extend(header);
        bytes.extend(content);
    }
    bytes.extend(writer.finish());
    bytes
}

const SMALL: [(&str, &[u8]); 4] = [
    ("manifest.dsse.json", b"{}"),
    ("trails/acme.example/x/tile/0/x001/234.p/5", b"\x00\x01\xff PK\x03\x04"),
    ("empty", b""),
    ("a", b"PK\x05\x06"),
];

#[test]
fn round_trip() {
    let bytes = write(&SMALL);
    let archive = Archive::parse(&bytes).unwrap();
    assert_eq!(archive.iter().collect::<Vec<_>>(), SMALL);
    assert_eq!(archive.len(), 4);
    for (name, content) in SMALL {
        assert_eq!(archive.get(name), Some(content));
    }
    assert_eq!(archive.get("b"), None);
    let empty = write(&[]);
    assert_eq!(empty.len(), END_LEN);
    assert!(Archive::parse(&empty).unwrap().is_empty());
}

#[test]
fn another_reader_agrees() {
    let bytes = write(&SMALL);
    let mut foreign = zip::ZipArchive::new(std::io::Cursor::new(&bytes)).unwrap();
    assert_eq!(foreign.len(), SMALL.len());
    for (i, (name, content)) in SMALL.into_iter().enumerate() {
        let mut file = foreign.by_index(i).unwrap();
        assert_eq!(file.name().unwrap(), name);
        assert_eq!(file.compression(), zip::CompressionMethod::Stored);
        assert_eq!(file.unix_mode(), Some(0o100_644));
        assert_eq!(file.last_modified().unwrap(), zip::DateTime::default());
        let mut read = Vec::new();
        file.read_to_end(&mut read).unwrap();
        assert_eq!(read, content);
    }
}

/// CRC-32 finds every single-bit error in a content, and every other byte is compared.
#[test]
fn every_flipped_bit_is_refused() {
    let bytes = write(&SMALL);
    for bit in 0..bytes.len() * 8 {
        let mut other = bytes.clone();
        other[bit / 8] ^= 1 << (bit % 8);
        assert!(Archive::parse(&other).is_err(), "bit {bit}");
    }
}

#[test]
fn every_truncation_and_addition_is_refused() {
    let bytes = write(&SMALL);
    for len in 0..bytes.len() {
        assert!(Archive::parse(&bytes[..len]).is_err(), "length {len}");
    }
    for extra in 1..30 {
        let longer = [&bytes[..], &vec![0; extra]].concat();
        assert_eq!(Archive::parse(&longer).unwrap_err(), ArchiveError::Trailing(extra));
        let shifted = [&vec![0; extra], &bytes[..]].concat();
        assert!(Archive::parse(&shifted).is_err());
    }
    let twice = [&bytes[..], &bytes[..]].concat();
    assert_eq!(Archive::parse(&twice).unwrap_err(), ArchiveError::Trailing(bytes.len()));
}

#[test]
fn errors_name_the_place() {
    let bytes = write(&SMALL);
    let content_at = LOCAL_LEN + SMALL[0].0.len();
    let mut damaged = bytes.clone();
    damaged[content_at] ^= 1;
    assert_eq!(Archive::parse(&damaged).unwrap_err(), ArchiveError::Damaged(SMALL[0].0.to_owned()));
    let mut flagged = bytes.clone();
    flagged[6] = 8;
    assert_eq!(Archive::parse(&flagged).unwrap_err(), ArchiveError::Header(0));
    // A local header of another entry where the directory should be.
    let mut other = bytes.clone();
    let comment_len_at = bytes.len() - 2;
    other[comment_len_at] = 1;
    assert_eq!(Archive::parse(&other).unwrap_err(), ArchiveError::CentralDirectory(comment_len_at));
    assert_eq!(Archive::parse(&bytes[..40]).unwrap_err(), ArchiveError::CutOff(40, 0));
    assert_eq!(Archive::parse(b"").unwrap_err(), ArchiveError::CutOff(0, 0));
}

/// An archive of another writer holds the same files, but not in this profile.
#[test]
fn another_writers_archive_is_refused() {
    let mut foreign = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let time = zip::DateTime::from_date_and_time(2026, 1, 2, 3, 4, 6).unwrap();
    let options = zip::write::SimpleFileOptions::default()
        .compression_method(zip::CompressionMethod::Stored)
        .last_modified_time(time);
    foreign.start_file("a", options).unwrap();
    std::io::Write::write_all(&mut foreign, b"content").unwrap();
    let bytes = foreign.finish().unwrap().into_inner();
    assert!(matches!(Archive::parse(&bytes).unwrap_err(), ArchiveError::Header(0)));
}

#[test]
fn names() {
    let longest = "a".repeat(NAME_MAX);
    for good in ["a", "a/b", "...", ".a", "a..b", "A-Z", "0~=", &longest] {
        assert!(ArchiveWriter::new().push(good, b"").is_ok(), "{good}");
    }
    let long = "a".repeat(NAME_MAX + 1);
    for bad in [
        "", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/.", "./a", "a\\b", "a b", "a\0", "ä", "a:b", "a*",
        "a\n", &long,
    ] {
        assert_eq!(ArchiveWriter::new().push(bad, b"").unwrap_err(), ArchiveError::Name, "{bad}");
    }
}

#[test]
fn names_that_meet_are_refused() {
    let mut writer = ArchiveWriter::new();
    writer.push("a/b/c", b"").unwrap();
    writer.push("a/b-", b"").unwrap();
    let mut refused = |name: &str| writer.push(name, b"").unwrap_err();
    assert_eq!(refused("a/b/c"), ArchiveError::Duplicate("a/b/c".to_owned()));
    assert_eq!(refused("a"), ArchiveError::FileAndFolder("a".to_owned()));
    assert_eq!(refused("a/b"), ArchiveError::FileAndFolder("a/b".to_owned()));
    assert_eq!(refused("a/b/c/d"), ArchiveError::FileAndFolder("a/b/c".to_owned()));
    assert!(writer.push("a/bb", b"").is_ok());
}

/// A reader must refuse what a writer cannot make: the same two entries by hand.
#[test]
fn duplicate_names_are_refused_when_read() {
    let one = write(&[("a", b"1")]);
    let local = LOCAL_LEN + 2;
    let mut bytes = [&one[..local], &one[..local], &one[local..local + CENTRAL_LEN + 1]].concat();
    let mut second = one[local..local + CENTRAL_LEN + 1].to_vec();
    second[42..46].copy_from_slice(&(local as u32).to_le_bytes());
    bytes.extend(second);
    let mut end = one[one.len() - END_LEN..].to_vec();
    end[8] = 2;
    end[10] = 2;
    end[12..16].copy_from_slice(&(2 * (CENTRAL_LEN as u32 + 1)).to_le_bytes());
    end[16..20].copy_from_slice(&(2 * local as u32).to_le_bytes());
    bytes.extend(end);
    assert_eq!(Archive::parse(&bytes).unwrap_err(), ArchiveError::Duplicate("a".to_owned()));
}

#[test]
fn bounds() {
    let mut writer = ArchiveWriter::new();
    for i in 0..ENTRIES_MAX {
        writer.push(&format!("{i}"), b"").unwrap();
    }
    assert_eq!(writer.push("last", b"").unwrap_err(), ArchiveError::TooManyEntries);
    // One name more or less decides; nothing of that size is allocated.
    let spare = (LOCAL_LEN + CENTRAL_LEN + 2 + END_LEN) as u32;
    let full = ArchiveWriter { offset: u32::MAX - spare, ..ArchiveWriter::new() };
    let mut fits = ArchiveWriter { offset: full.offset - 1, ..ArchiveWriter::new() };
    let mut full = full;
    assert_eq!(full.push("a", b"").unwrap_err(), ArchiveError::TooLarge);
    assert!(full.names.is_empty() && full.central.is_empty());
    fits.push("a", b"").unwrap();
    let size = u64::from(fits.offset) + fits.finish().len() as u64;
    assert_eq!(size, ARCHIVE_MAX);
}

proptest! {
    #[test]
    fn any_content_round_trips(contents in proptest::collection::vec(
        proptest::collection::vec(any::<u8>(), 0..100), 0..10,
    )) {
        let names: Vec<String> = (0..contents.len()).map(|i| format!("f/{i}")).collect();
        let entries: Vec<(&str, &[u8])> =
            names.iter().zip(&contents).map(|(n, c)| (n.as_str(), c.as_slice())).collect();
        let bytes = write(&entries);
        prop_assert_eq!(Archive::parse(&bytes).unwrap().iter().collect::<Vec<_>>(), entries);
    }

    /// Whatever is accepted is what the writer makes of it.
    #[test]
    fn changed_bytes_never_give_a_second_spelling(
        changes in proptest::collection::vec((0_usize..1_000, any::<u8>()), 1..6),
    ) {
        let mut bytes = write(&SMALL);
        for (at, value) in changes {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        if let Ok(archive) = Archive::parse(&bytes) {
            prop_assert_eq!(write(&archive.iter().collect::<Vec<_>>()), bytes);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Archive::parse(&bytes);
        bytes.splice(0..0, LOCAL_SIGNATURE);
        let _ = Archive::parse(&bytes);
    }
}
