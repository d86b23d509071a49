//! The host of the operations page: a system of its own over this one, on which the page's commands run as
//! root and as they are written, and of which nothing is left.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use countersign_stage::stage::ADMINISTRATORS;
use countersign_stage::{Binaries, Options, Stage};
use tempfile::TempDir;

use super::pages::{Page, book, root};

/// What stands for `systemctl` and `systemd-run`.
const SERVICE_MANAGER: &str = include_str!("service_manager.py");
/// A writable layer over the whole system, processes and network of its own; then the script in $1, as
/// $2 sees the folder of the files in hand.
const ENTER: &str = r#"set -eu
mount --make-rprivate /
mount -t tmpfs -o mode=0755 layers "$2"
mkdir "$2/upper" "$2/work" "$2/root"
mount -t overlay layers -o "lowerdir=/,upperdir=$2/upper,workdir=$2/work" "$2/root"
mount -t proc proc "$2/root/proc"
mount --rbind /dev "$2/root/dev"
mkdir -p "$2/root$3"
mount --bind "$3" "$2/root$3"
exec chroot "$2/root" sh -eux "$1"
"#;
/// The new network has its loopback interface down; ip(8) is not there on every system.
const LOOPBACK_UP: &str = "import fcntl, socket, struct
with socket.socket() as s: fcntl.ioctl(s, 0x8914, struct.pack('16sh22x', b'lo', 1))";

/// The files that an administrator has in hand, in one folder.
pub(crate) struct Host {
    stage: Stage,
    folder: TempDir,
}

impl Host {
    /// With plan, PINs, certificates, unit and the example configuration, before any ceremony.
    pub(crate) fn set() -> Host {
        let folder = tempfile::tempdir().unwrap();
        let hand = folder.path().join("hand");
        let stage = Stage::prepare(&hand, Binaries::beside_this().unwrap(), Options::default(), &mut |_| ()).unwrap();
        stage.binaries.in_folder(&stage.folder).unwrap();
        fs::create_dir(folder.path().join("layers")).unwrap();
        let copy = |from: &Path, to: &str| {
            fs::copy(from, stage.folder.join(to)).unwrap();
        };
        for name in ["countersignd.toml", "countersignd.service"] {
            copy(&root().join("deploy").join(name), name);
        }
        for (from, to) in [
            ("tls/server.pem", "server.pem"),
            ("tls/server.key", "server.key"),
            ("hsm/pins/record.pin", "record.pin"),
            ("hsm/pins/admin.pin", "admin.pin"),
        ] {
            copy(&stage.folder.join(from), to);
        }
        let manager = stage.folder.join("manager");
        fs::create_dir(&manager).unwrap();
        for name in ["systemctl", "systemd-run"] {
            fs::write(manager.join(name), format!("#!/usr/bin/env python3\n{SERVICE_MANAGER}")).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            fs::set_permissions(manager.join(name), mode).unwrap();
        }
        Host { stage, folder }
    }

    /// Whether this system lets us make one over it.
    pub(crate) fn possible() -> bool {
        let mut enter = Command::new("unshare");
        enter.args(["--mount", "--net", "--pid", "--fork", "true"]).stderr(Stdio::null());
        rustix::process::geteuid().is_root() && enter.status().is_ok_and(|status| status.success())
    }

    /// Runs a script there, in the folder of the files in hand.
    pub(crate) fn run(&self, script: &str) -> Output {
        let hand = self.stage.folder.display();
        let path = std::env::var("PATH").unwrap();
        let text = format!(
            "cd {hand}\nexport PATH={hand}/manager:{path}:/usr/local/bin SOFTHSM2_CONF={hand}/hsm/softhsm2.conf\n\
             python3 -c \"{LOOPBACK_UP}\"\n{script}"
        );
        let file = self.stage.folder.join("script.sh");
        fs::write(&file, text).unwrap();
        let mut enter = Command::new("unshare");
        enter.args(["--mount", "--net", "--pid", "--fork", "--kill-child", "sh", "-c", ENTER, "sh"]);
        enter.arg(&file).arg(self.folder.path().join("layers")).arg(&self.stage.folder);
        enter.stdin(Stdio::null()).output().unwrap()
    }
}

/// The blocks of the operations page, with what happens between them: the ceremony, starts and stops, and
/// at the end a look whether it serves.
pub(crate) fn operations_script() -> String {
    let page = Page::read(&book().join("operations.md"));
    let mut script = String::new();
    let mut met = 0;
    for block in page.blocks("sh,run") {
        for (marked, before) in [
            ("systemd-run", tokens_to_the_daemon()),
            ("systemctl enable", the_seal()),
            ("backup --to", "systemctl start countersignd\ninstall -d -o countersign /backup\n".to_owned()),
            (" fsck\n", "systemctl stop countersignd\n".to_owned()),
        ] {
            if block.text.contains(marked) {
                met += 1;
                script += &before;
            }
        }
        script += &block.text;
    }
    assert_eq!(met, 4, "the page has other commands than this test expects:\n{script}");
    script += &Page::read(&book().join("configuration.md")).blocks("sh,run")[0].text;
    script
        + "systemctl start countersignd\nsystemctl reload countersignd\n./countersign trails\nsystemctl stop countersignd\n"
}

/// Tokens in files are the daemon's to write; a real HSM needs nothing of the kind.
fn tokens_to_the_daemon() -> String {
    "chmod 0711 . .. hsm\nchmod 0644 hsm/softhsm2.conf\nchown -R countersign hsm/tokens\n".to_owned()
}

/// The people's signatures and the seal, as the ceremony's page has them, and the profile of an auditor.
fn the_seal() -> String {
    let mut text = "cp /var/lib/countersign/genesis.json .\n".to_owned();
    let mut signatures = String::new();
    for person in ADMINISTRATORS {
        text += &format!("./countersign ceremony sign genesis.json --plan plan.json --key people/{person} --yes\n");
        signatures += &format!(" --signature {person}={person}.sig");
        text += &format!("install -o countersign genesis.json.{person}.sig /var/lib/countersign/{person}.sig\n");
    }
    text + "systemd-run --pipe --wait --uid=countersign --gid=countersign -p UMask=0077 \
            -p WorkingDirectory=/var/lib/countersign \
            -p LoadCredential=record-pin:/etc/countersign/record.pin \
            -p LoadCredential=admin-pin:/etc/countersign/admin.pin \
            countersignd --config /etc/countersign/countersignd.toml seal --genesis genesis.json"
        + &signatures
        + " > genesis.fingerprint\n\
           sed -i \"1i genesis = \\\"$(cat genesis.fingerprint)\\\"\" /etc/countersign/countersignd.toml\n\
           printf 'endpoint = \"https://localhost:9463\"\\nca = \"tls/ca.pem\"\\ncertificate = \"tls/auditor-1.pem\"\\n' > auditor.toml\n\
           printf 'key = \"tls/auditor-1.key\"\\ngenesis = \"%s\"\\n' \"$(cat genesis.fingerprint)\" >> auditor.toml\n\
           export COUNTERSIGN_PROFILE=auditor.toml\n"
}
