//! A bundle's files, to be changed and packed again.

use countersign_trail::archive::{Archive, ArchiveWriter};
use countersign_trail::checkpoint::SignedCheckpoint;
use countersign_trail::dsse::{self, Envelope, Signature};
use countersign_trail::evidence::{Digest, MANIFEST_FILE, Statement, Subject, TrailHead, tile_rows};
use countersign_trail::hash::Hash;
use countersign_trail::keys::Kid;
use countersign_trail::tiles::{encode_bundle, encode_hashes, parse_bundle};
use countersign_trail::tree::leaf_hash;

use super::SoftKey;

/// Names and contents in the archive's order.
#[derive(Clone)]
pub(crate) struct Files(pub(crate) Vec<(String, Vec<u8>)>);

impl Files {
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

    pub(crate) fn get(&self, name: &str) -> &[u8] {
        match self.0.iter().find(|(found, _)| found == name) {
            Some((_, content)) => content,
            None => panic!("no file {name}"),
        }
    }

    pub(crate) fn get_mut(&mut self, name: &str) -> &mut Vec<u8> {
        match self.0.iter_mut().find(|(found, _)| found == name) {
            Some((_, content)) => content,
            None => panic!("no file {name}"),
        }
    }

    pub(crate) fn remove(&mut self, name: &str) {
        let before = self.0.len();
        self.0.retain(|(found, _)| found != name);
        assert_eq!(self.0.len() + 1, before, "no file {name}");
    }

    pub(crate) fn rename(&mut self, from: &str, to: &str) {
        self.0.iter_mut().find(|(found, _)| found == from).unwrap().0 = to.to_owned();
    }

    pub(crate) fn statement(&self) -> Statement {
        Statement::parse(Envelope::parse(self.get(MANIFEST_FILE)).unwrap().payload()).unwrap()
    }

    /// The archive with a manifest over the files as they now are, signed by `key` and naming
    /// `kid` as its key.
    pub(crate) fn pack_signed(&self, key: &SoftKey, kid: Kid) -> Vec<u8> {
        let mut files = self.clone();
        let mut statement = files.statement();
        files.remove(MANIFEST_FILE);
        let subject = |(name, content): &(String, Vec<u8>)| Subject {
            digest: Digest { sha256: Hash::of(content) },
            name: name.clone(),
        };
        statement.subject = files.0.iter().map(subject).collect();
        statement.predicate.kid = kid;
        let checkpoints = files.0.iter().filter(|(name, _)| name.ends_with("/checkpoint"));
        let head = |(_, content): &(String, Vec<u8>)| {
            let signed = SignedCheckpoint::parse(content).ok()?;
            let checkpoint = signed.checkpoint();
            Some(TrailHead { origin: checkpoint.origin.clone(), root: checkpoint.root, size: checkpoint.size })
        };
        statement.predicate.trails = checkpoints.filter_map(head).collect();
        let payload = statement.to_bytes().unwrap();
        let sig = key.sign(&dsse::pae(dsse::STATEMENT, &payload));
        let envelope = Envelope::new(dsse::STATEMENT, payload, vec![Signature { keyid: kid, sig }]).unwrap();
        files.0.push((MANIFEST_FILE.to_owned(), envelope.to_json()));
        files.pack()
    }

    /// The records of a trail's only tile.
    pub(crate) fn records(&self, trail: &str) -> Vec<Vec<u8>> {
        let (name, width) = self.tile(trail, "tile/entries/000");
        let entries = parse_bundle(self.get(&name), width).unwrap();
        entries.into_iter().map(<[u8]>::to_vec).collect()
    }

    /// Puts other records into a trail's only tile; the hash tile stays as it is.
    pub(crate) fn set_records(&mut self, trail: &str, records: &[Vec<u8>]) {
        let (name, _) = self.tile(trail, "tile/entries/000");
        *self.get_mut(&name) = encode_bundle(records).unwrap();
        self.rename(&name, &format!("{}tile/entries/000.p/{}", folder(trail), records.len()));
    }

    /// Makes the trail's hash tile from its records.
    pub(crate) fn remake_hashes(&mut self, trail: &str) {
        let records = self.records(trail);
        let (name, _) = self.tile(trail, "tile/0/000");
        let rows = tile_rows(records.iter().map(|record| leaf_hash(record)).collect());
        *self.get_mut(&name) = encode_hashes(&rows[0]).unwrap();
        self.rename(&name, &format!("{}tile/0/000.p/{}", folder(trail), records.len()));
    }

    /// The full name and width of a trail's partial tile.
    fn tile(&self, trail: &str, start: &str) -> (String, u16) {
        let start = format!("{}{start}.p/", folder(trail));
        let name = self.0.iter().map(|(name, _)| name).find(|name| name.starts_with(&start)).unwrap();
        (name.clone(), name[start.len()..].parse().unwrap())
    }
}

/// The folder of a trail, with the slash behind it.
pub(crate) fn folder(trail: &str) -> String {
    format!("trails/{}/", trail.replace('/', "~"))
}
