//! Plan and genesis, decoded for the people who review and sign them.

use std::path::Path;

use countersign_trail::base64;
use countersign_trail::document::{Genesis, MAX_DOCUMENT_LEN, Plan, REQUIRED_ATTRIBUTES, Role, TokenPlan};
use countersign_trail::hash::Hash;
use serde::Serialize;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::BasicConstraints;

use super::{Read, check_against, read_genesis, read_plan};
use crate::cli::{FingerprintArgs, ShowArgs};
use crate::exit::{Exit, Failure, Outcome};
use crate::files;
use crate::output::{Output, fields, table};

/// `countersign ceremony show`.
pub(crate) fn run(args: &ShowArgs, output: Output) -> Outcome {
    match kind_of(&args.file)?.as_str() {
        "countersign.plan" => output.show(&plan_view(&read_plan(&args.file)?), plan_text),
        "countersign.genesis" => {
            let genesis = read_genesis(&args.file)?;
            let checked = match &args.plan {
                Some(plan) => check_against(&genesis, &read_plan(plan)?).map(|()| true)?,
                None => false,
            };
            output.show(&genesis_view(&genesis, checked), genesis_text)
        }
        other => {
            Err(Failure::new(Exit::Malformed, format!("{}: document {other:?} is not known", args.file.display()))
                .todo("Give a ceremony plan or a genesis document."))
        }
    }
}

/// `countersign ceremony fingerprint`.
pub(crate) fn fingerprint(args: &FingerprintArgs, output: Output) -> Outcome {
    #[derive(Serialize)]
    struct View {
        fingerprint: Hash,
        instance: String,
    }
    let genesis = read_genesis(&args.file)?;
    if let Some(plan) = &args.plan {
        check_against(&genesis, &read_plan(plan)?)?;
    }
    let view = View { fingerprint: genesis.hash, instance: genesis.document.instance.to_string() };
    output.show(&view, |view| format!("{}\n", view.fingerprint))
}

/// The `document` member of a file, which says what it is.
fn kind_of(path: &Path) -> Outcome<String> {
    #[derive(serde::Deserialize)]
    struct Kind {
        document: String,
    }
    let bytes = files::read(path, MAX_DOCUMENT_LEN)?;
    let kind = serde_json::from_slice::<Kind>(&bytes).map_err(|error| {
        Failure::new(Exit::Malformed, format!("{}: not a ceremony document: {error}", path.display()))
            .todo("Give a ceremony plan or a genesis document.")
    })?;
    Ok(kind.document)
}

/// What a certificate says of itself.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Subject {
    /// The subject's distinguished name.
    pub(crate) name: String,
    /// First moment of validity.
    pub(crate) not_before: String,
    /// Last moment of validity.
    pub(crate) not_after: String,
    /// Whether basicConstraints let it certify others.
    pub(crate) is_authority: bool,
    /// SHA-256 of the DER, as `openssl x509 -fingerprint -sha256` shows it without colons.
    pub(crate) sha256: Hash,
}

impl Subject {
    /// Decodes a certificate.
    pub(crate) fn of(der: &[u8]) -> Result<Subject, String> {
        let certificate = Certificate::from_der(der).map_err(|error| format!("not a certificate: {error}"))?;
        let body = certificate.tbs_certificate();
        let constraints =
            body.get_extension::<BasicConstraints>().map_err(|error| format!("basicConstraints: {error}"))?;
        Ok(Subject {
            name: body.subject().to_string(),
            not_before: body.validity().not_before.to_string(),
            not_after: body.validity().not_after.to_string(),
            is_authority: constraints.is_some_and(|(_, constraints)| constraints.ca),
            sha256: Hash::of(der),
        })
    }
}

/// A plan as it is shown.
#[derive(Serialize)]
pub(crate) struct PlanView<'a> {
    sha256: Hash,
    plan: &'a Plan,
    client_roots: Vec<Root>,
    ssh_keys: Vec<KeyView>,
}

/// A client certification authority of a plan.
#[derive(Serialize)]
#[serde(untagged)]
enum Root {
    Decoded(Subject),
    Undecodable { problem: String },
}

/// An administrator's SSH key, as `ssh-keygen -l` shows it.
#[derive(Serialize)]
struct KeyView {
    member: String,
    fingerprint: String,
    algorithm: &'static str,
}

/// What of a plan is shown.
pub(crate) fn plan_view(read: &Read<Plan>) -> PlanView<'_> {
    let plan = &read.document;
    let decode = |root: &String| {
        let der = base64::std_decode(root).map_err(|error| error.to_string());
        der.and_then(|der| Subject::of(&der)).map_or_else(|problem| Root::Undecodable { problem }, Root::Decoded)
    };
    let ssh_keys = plan.members.iter().flat_map(|member| {
        member.ssh_keys.iter().map(|key| KeyView {
            member: member.id.to_string(),
            fingerprint: key.fingerprint(),
            algorithm: key.algorithm(),
        })
    });
    PlanView {
        sha256: read.hash,
        plan,
        client_roots: plan.client_roots.iter().map(decode).collect(),
        ssh_keys: ssh_keys.collect(),
    }
}

/// A plan for people.
pub(crate) fn plan_text(view: &PlanView<'_>) -> String {
    let plan = view.plan;
    let token = |token: &TokenPlan| format!("{} (serial {})", token.label, token.serial);
    let administrators = plan.administrators().count();
    let mut rows = vec![
        ("Ceremony plan of", plan.instance.to_string()),
        ("SHA-256", view.sha256.to_string()),
        ("Written", plan.created.to_string()),
        ("Nonce", plan.nonce.to_string()),
        (
            "Admin trail",
            format!("{} ({} in token {})", plan.admin_trail, plan.admin_algorithm, token(&plan.admin_token)),
        ),
        ("Evidence key", format!("{} in token {}", plan.evidence_algorithm, token(&plan.record_token))),
        (
            "Quorum",
            format!("a change wants its proposer and {} approvals, of {administrators} administrators", plan.approvals),
        ),
    ];
    if let Some(predecessor) = &plan.predecessor {
        rows.push(("Follows genesis", predecessor.to_string()));
    }
    let mut text = fields(&rows);
    text.push_str(&format!("\nTrails, their keys in token {}\n", token(&plan.record_token)));
    let trails: Vec<Vec<String>> = plan
        .trails
        .iter()
        .map(|trail| {
            let record_key = trail.record_algorithm.map_or("-".to_owned(), |algorithm| algorithm.to_string());
            vec![
                trail.origin.to_string(),
                trail.mode.word().to_owned(),
                record_key,
                trail.checkpoint_algorithm.to_string(),
            ]
        })
        .collect();
    text.push_str(&table(&["TRAIL", "MODE", "RECORD KEY", "CHECKPOINT KEY"], &trails));
    text.push_str("\nMembers\n");
    text.push_str(&table(&["MEMBER", "ROLE", "NAME", "HAS"], &member_rows(plan)));
    text.push_str("\nCertification authorities of client certificates\n");
    let roots: Vec<Vec<String>> = view
        .client_roots
        .iter()
        .map(|root| match root {
            Root::Decoded(root) => {
                vec![root.name.clone(), root.not_before.clone(), root.not_after.clone(), root.sha256.to_string()]
            }
            Root::Undecodable { problem } => vec![format!("cannot be decoded: {problem}")],
        })
        .collect();
    text.push_str(&table(&["SUBJECT", "FROM", "UNTIL", "SHA-256"], &roots));
    text
}

/// One row a member, and one for each further credential.
fn member_rows(plan: &Plan) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for member in &plan.members {
        let mut has = member.spiffe_ids.clone();
        has.extend(member.ssh_keys.iter().map(|key| format!("SSH key {} ({})", key.fingerprint(), key.algorithm())));
        has.extend(member.grants.iter().map(|grant| format!("may write {grant}")));
        let mut head = vec![member.id.to_string(), role_word(member.role).to_owned(), member.name.clone()];
        for line in has {
            head.push(line);
            rows.push(std::mem::replace(&mut head, vec![String::new(); 3]));
        }
    }
    rows
}

fn role_word(role: Role) -> &'static str {
    match role {
        Role::Administrator => "administrator",
        Role::Auditor => "auditor",
        Role::Gateway => "gateway",
        Role::Operator => "operator",
    }
}

/// A genesis as it is shown.
#[derive(Serialize)]
pub(crate) struct GenesisView<'a> {
    fingerprint: Hash,
    checked_against_plan: bool,
    genesis: &'a Genesis,
}

/// What of a genesis is shown.
pub(crate) fn genesis_view(read: &Read<Genesis>, checked_against_plan: bool) -> GenesisView<'_> {
    GenesisView { fingerprint: read.hash, checked_against_plan, genesis: &read.document }
}

/// A genesis for people.
pub(crate) fn genesis_text(view: &GenesisView<'_>) -> String {
    let genesis = view.genesis;
    let checked =
        if view.checked_against_plan { "checked: exactly what it asks for" } else { "not checked: give --plan FILE" };
    let mut text = fields(&[
        ("Genesis of", genesis.instance.to_string()),
        ("Fingerprint", view.fingerprint.to_string()),
        ("Keys made", genesis.created.to_string()),
        ("Plan", genesis.plan.to_string()),
        ("Against the plan", checked.to_owned()),
    ]);
    text.push_str("\nTokens\n");
    let tokens: Vec<Vec<String>> = genesis
        .tokens
        .iter()
        .map(|token| {
            let product = format!("{} {}", token.manufacturer.trim(), token.model.trim());
            vec![
                token.role.word().to_owned(),
                token.label.clone(),
                token.serial.clone(),
                product,
                token.firmware.clone(),
                token.module.to_string(),
            ]
        })
        .collect();
    text.push_str(&table(&["TOKEN", "LABEL", "SERIAL", "PRODUCT", "FIRMWARE", "MODULE SHA-256"], &tokens));
    text.push_str("\nKeys, each proven by a probe signature and by the attributes that the token reads back:\n");
    let attributes: Vec<String> = REQUIRED_ATTRIBUTES.iter().map(|(name, value)| format!("{name}={value}")).collect();
    text.push_str(&format!("{}\n", attributes.join(" ")));
    let keys: Vec<Vec<String>> = genesis
        .keys
        .iter()
        .map(|key| {
            let trail = key.trail.as_ref().map_or("(instance)".to_owned(), ToString::to_string);
            vec![
                trail,
                key.purpose.to_string(),
                key.algorithm.to_string(),
                key.token.word().to_owned(),
                key.kid.to_string(),
            ]
        })
        .collect();
    text.push_str(&table(&["TRAIL", "PURPOSE", "ALGORITHM", "TOKEN", "KID"], &keys));
    text.push_str("\nFirst records\n");
    let records: Vec<Vec<String>> =
        genesis.records.iter().map(|record| vec![record.trail.to_string(), record.leaf_hash.to_string()]).collect();
    text.push_str(&table(&["TRAIL", "LEAF HASH OF RECORD 0"], &records));
    text
}
