//! `countersignd --check-config`: what the file names is there and can be used.

use std::path::{Path, PathBuf};

use countersign_hsm::PinSource;

use crate::config::Config;
use crate::tls;

/// Where systemd puts credentials; set in the service alone.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// Everything that this host could not use: TLS files are read as at a start; of the tokens' files it is
/// seen that they are there. A PIN is never opened, and a credential is looked for only where this
/// process was given a folder of them.
pub fn problems(config: &Config) -> Vec<String> {
    let mut problems: Vec<String> = tls::problems(&config.tls).iter().map(ToString::to_string).collect();
    for (table, token) in [("record_token", &config.record_token), ("admin_token", &config.admin_token)] {
        problems.extend(missing(table, "module", &token.module));
        match token.pin_source() {
            PinSource::File(path) => problems.extend(missing(table, "pin_file", &path)),
            PinSource::Credential(name) => {
                let folder = std::env::var_os(CREDENTIALS).map(PathBuf::from);
                let path = folder.map(|folder| folder.join(name));
                problems.extend(path.and_then(|path| missing(table, "pin_credential", &path)));
            }
        }
    }
    problems
}

fn missing(table: &str, key: &str, path: &Path) -> Option<String> {
    let problem = match std::fs::metadata(path) {
        Ok(found) if found.is_file() => return None,
        Ok(_) => "is no regular file".to_owned(),
        Err(error) => error.to_string(),
    };
    Some(format!("{table}.{key}: {}: {problem}", path.display()))
}
