//! A bundle's files, to be changed and packed again, and what each of its bytes is part of.

use countersign_trail::archive::{Archive, ArchiveWriter};
use countersign_trail::evidence::{FileName, TrailFile};
use countersign_trail::origin::Origin;
use countersign_trail::tiles::{encode_bundle, parse_bundle};

/// Bytes of a local header without the name (APPNOTE 4.3.7).
const LOCAL_LEN: usize = 30;

/// What a byte of a bundle is part of.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Place {
    /// Of the archive's own structure.
    Archive,
    /// Of a record, its length included.
    Record(Origin, u64),
    /// Of any other file's content.
    File,
}

/// The place of every byte.
pub(crate) fn places(bundle: &[u8]) -> Vec<Place> {
    let mut places = Vec::with_capacity(bundle.len());
    while bundle[places.len()..].starts_with(b"PK\x03\x04") {
        let header = &bundle[places.len()..];
        let size = u32::from_le_bytes(header[18..22].try_into().unwrap()) as usize;
        let content_at = LOCAL_LEN + usize::from(u16::from_le_bytes(header[26..28].try_into().unwrap()));
        let name = std::str::from_utf8(&header[LOCAL_LEN..content_at]).unwrap();
        places.resize(places.len() + content_at, Place::Archive);
        let content = &header[content_at..content_at + size];
        match name.parse::<FileName>().unwrap() {
            FileName::Trail(origin, TrailFile::Entries(path)) => {
                for (seq, record) in (path.first()..).zip(parse_bundle(content, path.width()).unwrap()) {
                    places.resize(places.len() + 2 + record.len(), Place::Record(origin.clone(), seq));
                }
            }
            _ => places.resize(places.len() + size, Place::File),
        }
    }
    places.resize(bundle.len(), Place::Archive);
    places
}

/// Names and contents in the archive's order.
#[derive(Clone)]
pub(crate) struct Files(pub(crate) Vec<(String, Vec<u8>)>);

impl Files {
    /// Of a bundle's bytes.
    pub(crate) fn of(bundle: &[u8]) -> Files {
        let archive = Archive::parse(bundle).unwrap();
        Files(archive.iter().map(|(name, content)| (name.to_owned(), content.to_vec())).collect())
    }

    /// The archive over these files; the manifest is as it is.
    pub(crate) fn pack(&self) -> Vec<u8> {
        let mut writer = ArchiveWriter::new();
        let mut bytes = Vec::new();
        for (name, content) in &self.0 {
            let (header, content) = writer.push(name, content).unwrap();
            bytes.extend(header);
            bytes.extend(content);
        }
        bytes.extend(writer.finish());
        bytes
    }

    /// The records of a trail's only tile.
    pub(crate) fn records(&self, trail: &str) -> Vec<Vec<u8>> {
        let (at, width) = self.tile(trail);
        parse_bundle(&self.0[at].1, width).unwrap().into_iter().map(<[u8]>::to_vec).collect()
    }

    /// Puts other records into a trail's only tile; nothing else changes.
    pub(crate) fn set_records(&mut self, trail: &str, records: &[Vec<u8>]) {
        let (at, _) = self.tile(trail);
        let start = entries(trail);
        self.0[at] = (format!("{start}{}", records.len()), encode_bundle(records).unwrap());
    }

    /// Place and width of a trail's partial tile.
    fn tile(&self, trail: &str) -> (usize, u16) {
        let start = entries(trail);
        let at = self.0.iter().position(|(name, _)| name.starts_with(&start)).unwrap();
        (at, self.0[at].0[start.len()..].parse().unwrap())
    }
}

/// The name of a trail's first partial tile of records, without its width.
fn entries(trail: &str) -> String {
    format!("trails/{}/tile/entries/000.p/", trail.replace('/', "~"))
}
