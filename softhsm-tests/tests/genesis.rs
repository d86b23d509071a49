//! The first ceremony: what seal and init refuse, an init that is killed and resumed or abandoned, and
//! signatures by stock OpenSSH.
#![cfg(test)]

mod support;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use countersign_stage::stage::ADMINISTRATORS;
use countersign_stage::{Options, Stage};
use serde_json::{Value, json};
use support::{done, planned, printed, refused, says};

/// Keys of the stage's two trails (a batch one, a record one with two), the admin trail, and evidence.
const KEYS: usize = 5;

fn init(stage: &Stage, more: &[&str]) -> Command {
    let mut command = stage.countersignd(&["init", "--plan"]);
    command.arg(stage.folder.join("plan.json")).arg("--out").arg(stage.folder.join("genesis.json")).args(more);
    command
}

fn genesis(stage: &Stage) -> PathBuf {
    stage.folder.join("genesis.json")
}

/// `countersignd seal` with these signatures, as MEMBER and file.
fn seal(stage: &Stage, signatures: &[(&str, PathBuf)]) -> Command {
    let mut command = stage.countersignd(&["seal", "--genesis"]);
    command.arg(genesis(stage));
    for (member, file) in signatures {
        command.arg("--signature").arg(format!("{member}={}", file.display()));
    }
    command
}

/// A signature over `document` by stock `ssh-keygen -Y sign`, moved aside so that the next person's does
/// not meet it.
fn stock_signature(stage: &Stage, person: &str, document: &str, namespace: &str) -> PathBuf {
    let document = stage.folder.join(document);
    let mut sign = Command::new("ssh-keygen");
    sign.args(["-q", "-Y", "sign", "-n", namespace, "-f"]).arg(stage.folder.join("people").join(person));
    done(sign.arg(&document).stderr(Stdio::null()));
    let made = PathBuf::from(format!("{}.sig", document.display()));
    let kept = stage.folder.join(format!("{person}.{namespace}.sig"));
    fs::rename(made, &kept).unwrap();
    kept
}

fn everyone(stage: &Stage) -> Vec<(&'static str, PathBuf)> {
    ADMINISTRATORS
        .map(|person| (person, stock_signature(stage, person, "genesis.json", "genesis@countersign")))
        .to_vec()
}

/// Seals with everybody's stock signature, and runs the daemon once.
fn seal_and_run(stage: &mut Stage) {
    let signatures = everyone(stage);
    stage.fingerprint = done(&mut seal(stage, &signatures)).trim().to_owned();
    stage.write_configuration().unwrap();
    stage.start().unwrap().stop().unwrap();
    says(&done(&mut stage.countersignd(&["fsck"])), &[]);
}

#[test]
fn seal_takes_every_administrator_once_and_only_the_genesis_that_was_made() {
    let (_folder, mut stage) = planned(Options { workers: 1, ..Options::default() });
    done(&mut init(&stage, &[]));
    let all = everyone(&stage);
    let with = |at: usize, other: (&'static str, PathBuf)| {
        let mut changed = all.clone();
        changed[at] = other;
        changed
    };
    refused(&mut seal(&stage, &all[..3]), &["signatures are missing of: dave", "every administrator signs"]);
    refused(&mut seal(&stage, &all[1..2]), &["alice, carol, dave"]);
    // Another person's signature under this one's name, and a stranger's.
    refused(&mut seal(&stage, &with(0, ("alice", all[1].1.clone()))), &["signature of alice"]);
    let key = stage.folder.join("people/mallory");
    done(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(key));
    let stranger = stock_signature(&stage, "mallory", "genesis.json", "genesis@countersign");
    refused(&mut seal(&stage, &with(2, ("carol", stranger.clone()))), &["signature of carol"]);
    let mut more = all.clone();
    more.push(("mallory", stranger.clone()));
    refused(&mut seal(&stage, &more), &["mallory is no administrator of the plan"]);
    more[4] = ("gateway-1", stranger);
    refused(&mut seal(&stage, &more), &["gateway-1 is no administrator of the plan"]);
    // Twice the same, and one in the place of another.
    more[4] = all[0].clone();
    refused(&mut seal(&stage, &more), &["alice signed twice"]);
    refused(&mut seal(&stage, &with(3, all[0].clone())), &["alice signed twice"]);
    // For another purpose, or over another document.
    let other = stock_signature(&stage, "bob", "genesis.json", "approve@countersign");
    refused(&mut seal(&stage, &with(1, ("bob", other))), &["signature of bob", "genesis@countersign"]);
    let other = stock_signature(&stage, "bob", "plan.json", "genesis@countersign");
    refused(&mut seal(&stage, &with(1, ("bob", other))), &["signature of bob"]);
    fs::write(stage.folder.join("none.sig"), "not a signature").unwrap();
    refused(&mut seal(&stage, &with(1, ("bob", stage.folder.join("none.sig")))), &["signature of bob"]);
    // For no purpose of ours, as without -n.
    let other = stock_signature(&stage, "bob", "genesis.json", "file");
    let said = ["signature of bob", "its namespace is \"file\"", "signed with -n genesis@countersign"];
    refused(&mut seal(&stage, &with(1, ("bob", other))), &said);
    // A changed document, signed by everyone.
    let made = fs::read(genesis(&stage)).unwrap();
    let text = String::from_utf8(made.clone()).unwrap();
    fs::write(genesis(&stage), text.replacen("\"created\":\"20", "\"created\":\"19", 1)).unwrap();
    refused(&mut seal(&stage, &everyone(&stage)), &["not the one that init made here"]);
    fs::write(genesis(&stage), made).unwrap();
    // None of it did anything, and an unsealed appliance does not run.
    let mut daemon = stage.spawn().unwrap();
    assert_eq!(daemon.wait_exit(Duration::from_secs(60)).unwrap().code(), Some(1));
    seal_and_run(&mut stage);
    refused(&mut seal(&stage, &everyone(&stage)), &["sealed already"]);
}

#[test]
fn a_second_genesis_is_refused() {
    let (_folder, mut stage) = planned(Options { workers: 1, ..Options::default() });
    done(&mut init(&stage, &[]));
    let unsealed = ["a second genesis on a used folder is refused", "not sealed yet", "`seal`", "`init --abandon`"];
    refused(&mut init(&stage, &[]), &unsealed);
    seal_and_run(&mut stage);
    refused(&mut init(&stage, &["--resume"]), &["sealed"]);
    refused(&mut init(&stage, &[]), &["a second genesis on a used folder is refused"]);
    refused(&mut init(&stage, &["--abandon"]), &["sealed", "not destroyed by one person"]);
    abandon_elsewhere_is_refused(&stage);
    // What a crash just before the end of init leaves does not let anyone begin anew afterwards.
    let plan = countersign_trail::hash::Hash::of(&fs::read(stage.folder.join("plan.json")).unwrap());
    let left = format!("{{\"plan\":\"{plan}\",\"created\":\"2026-01-01T00:00:00.000000Z\",\"tokens\":[],\"keys\":[]}}");
    fs::write(stage.folder.join("data/init.json"), left).unwrap();
    refused(&mut init(&stage, &["--resume"]), &["sealed"]);
    fs::remove_file(stage.folder.join("data/init.json")).unwrap();
    // Another folder, the same tokens.
    fs::rename(stage.folder.join("data"), stage.folder.join("data.used")).unwrap();
    fs::rename(stage.folder.join("heads"), stage.folder.join("heads.used")).unwrap();
    refused(&mut init(&stage, &["--force"]), &["token holds", "a second genesis on a used token is refused"]);
    refused(&mut init(&stage, &["--resume"]), &["a second genesis on a used token is refused"]);
    // The first one is unharmed.
    fs::remove_dir_all(stage.folder.join("data")).unwrap();
    fs::remove_dir_all(stage.folder.join("heads")).unwrap();
    fs::rename(stage.folder.join("data.used"), stage.folder.join("data")).unwrap();
    fs::rename(stage.folder.join("heads.used"), stage.folder.join("heads")).unwrap();
    stage.start().unwrap().stop().unwrap();
}

#[test]
fn a_genesis_document_that_is_lost_is_written_again() {
    let (_folder, mut stage) = planned(Options { workers: 1, ..Options::default() });
    // A place that cannot be written is found out before anything is made, and so is a file that stands there.
    let nowhere = stage.folder.join("none/genesis.json");
    let mut command = stage.countersignd(&["init", "--plan"]);
    command.arg(stage.folder.join("plan.json")).arg("--out").arg(&nowhere);
    refused(&mut command, &["none/genesis.json", "No such file"]);
    fs::write(genesis(&stage), "somebody's").unwrap();
    refused(&mut init(&stage, &[]), &["genesis.json exists", "--force"]);
    assert_eq!(private_keys(&stage), 0);
    assert!(!stage.folder.join("data/init.json").exists());
    done(&mut init(&stage, &["--force"]));
    let made = fs::read(genesis(&stage)).unwrap();
    assert!(!stage.folder.join("data/init.json").exists() && !stage.folder.join("genesis.json.new").exists());
    // Lost, changed, and there as it was; the HSM is not asked.
    fs::remove_file(genesis(&stage)).unwrap();
    done(init(&stage, &["--resume"]).env("SOFTHSM2_CONF", "/dev/null"));
    assert!(fs::read(genesis(&stage)).unwrap() == made);
    done(&mut init(&stage, &["--resume"]));
    fs::write(genesis(&stage), "changed").unwrap();
    refused(&mut init(&stage, &["--resume"]), &["genesis.json exists and is another document", "--force"]);
    done(&mut init(&stage, &["--resume", "--force"]));
    assert!(fs::read(genesis(&stage)).unwrap() == made);
    let fingerprint = countersign_trail::hash::Hash::of(&made).to_string();
    let said = done(&mut init(&stage, &["--resume"]));
    says(&said, &["genesis.json", &fingerprint, "every administrator signs it"]);
    let object: Value = serde_json::from_str(&done(&mut init(&stage, &["--resume", "--json"]))).unwrap();
    assert_eq!(object, json!({ "document": genesis(&stage), "fingerprint": fingerprint }));
    let mut command = stage.countersignd(&["init", "--resume", "--json", "--plan"]);
    let output = command.arg(stage.folder.join("plan.json")).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", printed(&output));
    // To standard output: the document alone, the rest to people.
    let mut command = stage.countersignd(&["init", "--resume", "--plan"]);
    let output = command.arg(stage.folder.join("plan.json")).output().unwrap();
    assert_eq!(output.stdout, made);
    says(&String::from_utf8(output.stderr).unwrap(), &[&fingerprint, "every administrator signs it"]);
    seal_and_run(&mut stage);
}

#[test]
fn a_token_that_is_not_the_plans_is_named_before_it_makes_a_key() {
    let (_folder, stage) = planned(Options { workers: 1, ..Options::default() });
    let planned = stage.serial("admin").unwrap();
    let file = stage.folder.join("countersignd.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace(&planned, "0123456789abcdef")).unwrap();
    let wants = format!("the plan wants \"countersign-admin\" with serial {planned}");
    refused(&mut init(&stage, &[]), &["[admin_token]", "with serial 0123456789abcdef", &wants]);
    // Without a serial number in the configuration, and other tokens of the same labels.
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("serial = ")).collect();
    fs::write(&file, lines.join("\n")).unwrap();
    fs::remove_dir_all(stage.folder.join("hsm/tokens")).unwrap();
    let provision = concat!(env!("CARGO_MANIFEST_DIR"), "/../hsm-config/softhsm2/provision.sh");
    done(Command::new("sh").arg(provision).arg(stage.folder.join("hsm")));
    let found = stage.serial("admin").unwrap();
    assert_ne!(found, planned);
    let said = format!("the admin token has serial {found}, the plan wants {planned}");
    refused(&mut init(&stage, &[]), &[&said]);
    assert_eq!(private_keys(&stage), 0);
}

/// The same command by the daemon that can be told where to die.
fn dying(command: &Command, stage: &Stage, point: &str) -> Command {
    let program = stage.binaries.path("failpoints/countersignd");
    assert!(program.exists(), "run `make test`, which builds {}", program.display());
    let mut dying = Command::new(program);
    dying.args(command.get_args()).env("COUNTERSIGN_FAIL_AT", point);
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            dying.env(name, value);
        }
    }
    dying
}

#[test]
fn a_seal_that_is_killed_is_run_again() {
    // The admin record in a durable intent, signed, verified; and sealed, but not told.
    for point in ["intent:1", "sign:1", "verify:1", "commit:2"] {
        let (_folder, mut stage) = planned(Options { workers: 1, ..Options::default() });
        done(&mut init(&stage, &[]));
        let signatures = everyone(&stage);
        let status = dying(&seal(&stage, &signatures), &stage, point).stderr(Stdio::null()).status().unwrap();
        assert_eq!(status.signal(), Some(9), "{point}: {status}");
        if point == "commit:2" {
            refused(&mut seal(&stage, &signatures), &["sealed already; its fingerprint is"]);
            stage.fingerprint = countersign_trail::hash::Hash::of(&fs::read(genesis(&stage)).unwrap()).to_string();
        } else {
            // Signatures are asked for again: who has the folder alone does not open the appliance.
            refused(&mut seal(&stage, &signatures[..3]), &["signatures are missing of: dave"]);
            stage.fingerprint = done(&mut seal(&stage, &signatures)).trim().to_owned();
        }
        stage.write_configuration().unwrap();
        stage.start().unwrap().stop().unwrap();
        says(&done(&mut stage.countersignd(&["fsck"])), &[]);
    }
}

/// Runs `command` and kills it with SIGKILL after `pause`; whether it was killed before its end.
fn killed(mut command: Command, pause: Duration) -> bool {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(pause);
    let over = child.try_wait().unwrap();
    child.kill().unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(over.is_none_or(|status| status.success()), "{over:?}: {}", printed(&output));
    over.is_none()
}

/// As an operator does after a kill: one that came between the note that a PIN is tried for the first
/// time and the login's outcome leaves that PIN latched.
fn clear_pins(stage: &Stage) {
    for token in ["record", "admin"] {
        done(&mut stage.countersignd(&["pin-clear", "--token", token]));
    }
}

/// How long one whole `init` takes here.
fn usual_time() -> Duration {
    let (_folder, stage) = planned(Options { workers: 1, ..Options::default() });
    let begun = Instant::now();
    done(&mut init(&stage, &[]));
    begun.elapsed()
}

#[test]
fn an_init_that_is_killed_is_resumed() {
    let whole = usual_time();
    // Moments that differ in every run, over all of init.
    let spread = u32::from(std::process::id() as u8 % 7);
    for kills in 1..=3 {
        let (_folder, mut stage) = planned(Options { workers: 1, ..Options::default() });
        let mut way: &[&str] = &[];
        for kill in 1..=kills {
            let pause = whole * (kill * 10 + spread) / (kills * 10 + 10);
            let cut = killed(init(&stage, way), pause);
            if !cut {
                break;
            }
            // Killed before it had made its folder and said so there: nothing to resume.
            if stage.folder.join("data/init.json").exists() {
                way = &["--resume"];
                clear_pins(&stage);
                refused(&mut init(&stage, &[]), &["--resume", "--abandon"]);
            } else if genesis(&stage).exists() {
                // Killed when all was done, and before it could say so.
                break;
            }
        }
        if stage.folder.join("data/init.json").exists() || !genesis(&stage).exists() {
            done(&mut init(&stage, way));
        }
        let document = countersign_trail::document::Genesis::parse(&fs::read(genesis(&stage)).unwrap()).unwrap();
        assert_eq!(document.keys.len(), KEYS);
        seal_and_run(&mut stage);
        // The tokens hold these keys and nothing that an attempt left behind.
        assert_eq!(private_keys(&stage), KEYS);
    }
}

/// Private keys in both tokens, by their object files: those with CKA_CLASS (0), a number (2), of
/// CKO_PRIVATE_KEY (3), and with CKA_VALUE (0x11), a byte string (3) that is not empty. A generation
/// that is killed may leave a file that SoftHSM had begun, without label or value.
fn private_keys(stage: &Stage) -> usize {
    const PRIVATE: [u8; 24] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3];
    const VALUE: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0x11, 0, 0, 0, 0, 0, 0, 0, 3];
    let valued = |bytes: &[u8]| {
        let at = bytes.windows(16).position(|window| window == VALUE);
        at.and_then(|at| bytes.get(at + 16..at + 24)).is_some_and(|length| length != [0; 8])
    };
    let is_key = |bytes: Vec<u8>| bytes.windows(24).any(|window| window == PRIVATE) && valued(&bytes);
    let tokens = fs::read_dir(stage.folder.join("hsm/tokens")).unwrap();
    let objects = tokens.flat_map(|token| fs::read_dir(token.unwrap().path()).unwrap());
    let paths = objects.map(|object| object.unwrap().path());
    let objects = paths.filter(|path| path.extension().is_some_and(|extension| extension == "object"));
    objects.filter(|path| fs::read(path).is_ok_and(is_key)).count()
}

/// Starts `init` and kills it once the tokens hold `count` private keys.
fn kill_at(stage: &Stage, count: usize) {
    let mut child = init(stage, &[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    while private_keys(stage) < count {
        assert!(child.try_wait().unwrap().is_none() && begun.elapsed() < Duration::from_secs(60));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_key_that_was_made_and_not_yet_noted_is_made_again() {
    let (_folder, mut stage) = planned(Options { workers: 1, ..Options::default() });
    kill_at(&stage, 1);
    // As if the crash had come between the first key and its note.
    clear_pins(&stage);
    let progress = stage.folder.join("data/init.json");
    let mut noted: Value = serde_json::from_slice(&fs::read(&progress).unwrap()).unwrap();
    noted["keys"] = json!([]);
    fs::write(&progress, noted.to_string()).unwrap();
    done(&mut init(&stage, &["--resume"]));
    assert_eq!(private_keys(&stage), KEYS);
    seal_and_run(&mut stage);
}

/// A sealed appliance keeps its keys where its store is not found: the data folder is empty, or its store
/// is moved away or cut to nothing.
fn abandon_elsewhere_is_refused(stage: &Stage) {
    let said = ["the genesis is sealed", "not destroyed by one person", "Check data_dir"];
    let (data, away) = (stage.folder.join("data"), stage.folder.join("away"));
    fs::rename(&data, &away).unwrap();
    fs::create_dir(&data).unwrap();
    refused(&mut init(stage, &["--abandon"]), &said);
    fs::write(data.join("store.db"), "").unwrap();
    refused(&mut init(stage, &["--abandon"]), &said);
    // Without the mark nobody can tell.
    let mark = stage.folder.join("hsm/pin-state").join(format!("{}.mark", stage.serial("admin").unwrap()));
    fs::rename(&mark, stage.folder.join("mark")).unwrap();
    refused(&mut init(stage, &["--abandon"]), &["MARK_STATE", "missing"]);
    fs::rename(stage.folder.join("mark"), &mark).unwrap();
    assert_eq!(private_keys(stage), KEYS);
    fs::remove_dir_all(&data).unwrap();
    fs::rename(&away, &data).unwrap();
}

#[test]
fn an_init_is_abandoned() {
    let (_folder, mut stage) = planned(Options { workers: 1, ..Options::default() });
    done(&mut init(&stage, &[]));
    assert_eq!(private_keys(&stage), KEYS);
    let report = done(&mut init(&stage, &["--abandon"]));
    let destroyed: Vec<&str> = report.lines().filter(|line| line.contains("absence read back")).collect();
    assert_eq!(destroyed.len(), KEYS, "{report}");
    says(&report, &["admin token", "record token", "removed ", "store.db"]);
    assert_eq!(private_keys(&stage), 0);
    assert_eq!(fs::read_dir(stage.folder.join("heads")).unwrap().count(), 0, "second heads are left");
    refused(&mut init(&stage, &["--abandon"]), &["there is nothing to abandon"]);
    // One that was killed half-way.
    fs::remove_file(genesis(&stage)).unwrap();
    kill_at(&stage, 2);
    clear_pins(&stage);
    let report: Value = serde_json::from_str(&done(&mut init(&stage, &["--abandon", "--json"]))).unwrap();
    assert!(!report["destroyed"].as_array().unwrap().is_empty() && report["removed"].is_array(), "{report}");
    assert_eq!(private_keys(&stage), 0, "{report}");
    // And nothing is left that hinders the next one.
    let output = init(&stage, &[]).output().unwrap();
    assert!(output.status.success(), "{}", printed(&output));
    seal_and_run(&mut stage);
}
