//! Where the daemon is and who we are: a profile file, each value of which an option overrides.

use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser as _};
use countersign_client::Connection;
use countersign_trail::hash::Hash;
use serde::Deserialize;

use crate::exit::{Outcome, usage};
use crate::files;

/// The longest profile, in bytes.
const MAX_PROFILE_LEN: usize = 1 << 16;
/// The longest PEM file, in bytes: a chain or a bundle of authorities.
const MAX_PEM_LEN: usize = 1 << 20;

/// The connection's options, the same for every command that talks to a daemon.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct ConnectArgs {
    /// Profile (TOML) with endpoint, server_name, ca, certificate, key, genesis; paths in it are
    /// relative to its folder.
    // An empty variable is one that is not set.
    #[arg(long, value_name = "FILE", env = "COUNTERSIGN_PROFILE", value_parser = OsStringValueParser::new().map(PathBuf::from))]
    pub(crate) profile: Option<PathBuf>,
    /// The daemon: https://HOST:PORT.
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// The name that the daemon's certificate must have [default: HOST].
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
    /// Certificates of the authorities that may have signed the daemon's certificate (PEM).
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Our certificate and its intermediates (PEM); its one URI name is our SPIFFE ID.
    #[arg(long, value_name = "FILE")]
    certificate: Option<PathBuf>,
    /// Our private key (PEM).
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Genesis fingerprint, or a file that holds it: only keys that it authorises are believed.
    #[arg(long, value_name = "FINGERPRINT")]
    genesis: Option<String>,
}

/// A profile file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProfileFile {
    endpoint: Option<String>,
    server_name: Option<String>,
    ca: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    genesis: Option<String>,
}

/// Everything that a call needs.
#[derive(Debug)]
pub(crate) struct Profile {
    /// Where the daemon is and who we are.
    pub(crate) connection: Connection,
    genesis: Option<Hash>,
}

impl ConnectArgs {
    /// Reads the profile and the files that it names.
    pub(crate) fn load(&self) -> Outcome<Profile> {
        let file = self.file()?;
        let endpoint = self.endpoint.clone().or(file.endpoint).ok_or_else(|| missing("endpoint"))?;
        let pem = |option: &Option<PathBuf>, from_file: Option<PathBuf>, name: &str| {
            let path = option.clone().or(from_file).ok_or_else(|| missing(name))?;
            files::read(&path, MAX_PEM_LEN)
        };
        let ca = pem(&self.ca, file.ca, "ca")?;
        let certificate = pem(&self.certificate, file.certificate, "certificate")?;
        let key = pem(&self.key, file.key, "key")?;
        let mut connection = Connection::new(&endpoint, ca, certificate, key);
        connection.server_name = self.server_name.clone().or(file.server_name);
        let genesis = self.genesis.clone().or(file.genesis);
        let genesis = genesis.map(|text| fingerprint(&text)).transpose()?;
        Ok(Profile { connection, genesis })
    }

    /// The profile file, its paths made relative to where we are.
    fn file(&self) -> Outcome<ProfileFile> {
        let Some(path) = self.profile.as_ref().filter(|path| !path.as_os_str().is_empty()) else {
            return Ok(ProfileFile::default());
        };
        let text = files::read_text(path, MAX_PROFILE_LEN)?;
        let mut file: ProfileFile = toml::from_str(&text).map_err(|error| {
            usage(format!("{}: {}", path.display(), error.to_string().trim_end()))
                .todo("A profile has endpoint, server_name, ca, certificate, key and genesis.")
        })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        for value in [&mut file.ca, &mut file.certificate, &mut file.key].into_iter().flatten() {
            *value = folder.join(&value);
        }
        // A path cannot be 64 hexadecimal digits by accident that matters: the digits win.
        file.genesis = file.genesis.map(|text| match text.parse::<Hash>() {
            Ok(_) => text,
            Err(_) => folder.join(text).to_string_lossy().into_owned(),
        });
        Ok(file)
    }
}

impl Profile {
    /// The pinned genesis fingerprint.
    pub(crate) fn genesis(&self) -> Outcome<Hash> {
        self.genesis.ok_or_else(|| {
            usage("no genesis fingerprint is pinned, so no answer could be checked").todo(
                "Give --genesis FINGERPRINT or set genesis in the profile; the people of the ceremony publish it.",
            )
        })
    }

    /// The pinned genesis fingerprint, where there is one.
    pub(crate) fn pinned(&self) -> Option<Hash> {
        self.genesis
    }
}

fn missing(name: &str) -> crate::exit::Failure {
    let option = name.replace('_', "-");
    usage(format!("{name} is not set"))
        .todo(format!("Give --{option}, or a profile with {name} by --profile FILE or COUNTERSIGN_PROFILE."))
}

/// A fingerprint, or the one in the file of that name.
fn fingerprint(text: &str) -> Outcome<Hash> {
    if let Ok(hash) = text.parse() {
        return Ok(hash);
    }
    if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(usage(format!("genesis {text:?}: write the 64 digits of a fingerprint in lower case")));
    }
    let wrong = |problem: String| {
        usage(format!("genesis {text:?} is neither a fingerprint nor a file that holds one: {problem}"))
            .todo("A fingerprint is 64 lower-case hexadecimal digits: countersign ceremony fingerprint genesis.json.")
    };
    let read = files::read_text(Path::new(text), 256).map_err(|failure| wrong(failure.to_string()))?;
    read.trim().parse().map_err(|error: countersign_trail::hash::HashError| wrong(error.to_string()))
}
