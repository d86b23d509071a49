//! From the ceremony file to the plan.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use countersign_trail::base64;
use countersign_trail::document::{Member, Plan, Role, TokenPlan, TrailPlan};
use countersign_trail::hash::Hash;
use countersign_trail::id::MemberId;
use countersign_trail::time::Timestamp;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::Read;
use super::file::{CeremonyFile, MemberSection, TokenSection};
use super::show::{self, Subject};
use crate::cli::PlanArgs;
use crate::exit::{Failure, Outcome, failed, usage};
use crate::files;
use crate::output::Output;

/// The longest PEM file of client certification authorities: 16 certificates of 16 KiB.
const MAX_PEM_LEN: usize = 1 << 18;

/// `countersign ceremony plan`.
pub(crate) fn run(args: &PlanArgs, output: Output) -> Outcome {
    let file = CeremonyFile::read(&args.file)?;
    let folder = args.file.parent().unwrap_or(Path::new("."));
    let plan = build(&file, folder, args)?;
    let bytes = plan.to_bytes().map_err(|error| failed(error.to_string()))?;
    let hash = Hash::of(&bytes);
    files::write(&args.out, &bytes, args.force)?;
    let read = Read { bytes, hash, document: plan };
    output.show(&show::plan_view(&read), |view| {
        let next = format!(
            "\nWritten to {}. Review it with every administrator, then on the host:\n  countersignd --config FILE init --plan {} --out genesis.json\n",
            args.out.display(),
            args.out.display()
        );
        show::plan_text(view) + &next
    })
}

/// Makes the plan that a ceremony file asks for, with a new nonce and the present time.
fn build(file: &CeremonyFile, folder: &Path, args: &PlanArgs) -> Outcome<Plan> {
    let mut trails: Vec<TrailPlan> = file
        .trails
        .iter()
        .map(|trail| TrailPlan {
            checkpoint_algorithm: trail.checkpoint_algorithm,
            mode: trail.mode,
            origin: trail.origin.clone(),
            record_algorithm: trail.record_algorithm,
        })
        .collect();
    trails.sort_by(|a, b| a.origin.cmp(&b.origin));
    let mut members = file.members.iter().map(|section| member(section, folder)).collect::<Outcome<Vec<Member>>>()?;
    members.sort_by(|a, b| a.id.cmp(&b.id));
    let plan = Plan {
        admin_algorithm: file.admin_algorithm,
        admin_token: token("admin", &file.tokens.admin, args.admin_serial.as_deref())?,
        admin_trail: file.admin_trail.clone(),
        approvals: file.approvals,
        client_roots: client_roots(file, folder)?,
        created: now()?,
        document: "countersign.plan".to_owned(),
        evidence_algorithm: file.evidence_algorithm,
        instance: file.instance.clone(),
        members,
        nonce: nonce()?,
        predecessor: file.predecessor,
        record_token: token("record", &file.tokens.record, args.record_serial.as_deref())?,
        trails,
        v: 1,
    };
    advise(&plan)?;
    plan.check().map_err(|error| {
        usage(error.to_string()).todo(format!("Correct it in {} and write the plan again.", args.file.display()))
    })?;
    Ok(plan)
}

fn member(section: &MemberSection, folder: &Path) -> Outcome<Member> {
    let mut grants = section.grants.clone();
    grants.sort();
    grants.dedup();
    Ok(Member {
        grants,
        id: section.id.clone(),
        name: section.name.clone(),
        role: section.role,
        spiffe_ids: section.spiffe_ids.clone(),
        ssh_keys: section.keys(folder)?,
    })
}

fn token(role: &str, section: &TokenSection, serial: Option<&str>) -> Outcome<TokenPlan> {
    let serial = serial.map(str::to_owned).or_else(|| section.serial.clone()).ok_or_else(|| {
        usage(format!("the {role} token {:?} has no serial", section.label))
            .todo(format!("Write serial under [tokens.{role}], or give --{role}-serial; the module shows it, with SoftHSM: softhsm2-util --show-slots."))
    })?;
    Ok(TokenPlan { label: section.label.clone(), serial })
}

fn client_roots(file: &CeremonyFile, folder: &Path) -> Outcome<Vec<String>> {
    let mut roots = Vec::new();
    for name in &file.client_roots {
        let path = folder.join(name);
        let broken = |problem: &dyn std::fmt::Display| {
            usage(format!("client_roots: {}: {problem}", path.display()))
                .todo("Give a PEM file with the certificate of the certification authority, BEGIN CERTIFICATE and all.")
        };
        let pem = files::read(&path, MAX_PEM_LEN)?;
        let before = roots.len();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let der = certificate.map_err(|error| broken(&error))?;
            let subject = Subject::of(&der).map_err(|problem| broken(&problem))?;
            if !subject.is_authority {
                return Err(broken(&format!("{} is not a certification authority (basicConstraints)", subject.name)));
            }
            let root = base64::std_encode(&der);
            if roots.contains(&root) {
                return Err(broken(&format!("{} stands twice in client_roots", subject.name)));
            }
            roots.push(root);
        }
        if roots.len() == before {
            return Err(broken(&"no certificate in it"));
        }
    }
    Ok(roots)
}

/// Finds what people most often get wrong, and says what to do; [`Plan::check`] has the last word.
fn advise(plan: &Plan) -> Outcome {
    let wrong = |message: String, todo: &str| -> Failure { usage(message).todo(todo) };
    let administrators = plan.administrators().count();
    let wanted = (plan.approvals as usize).saturating_add(2);
    if administrators < wanted {
        return Err(wrong(
            format!(
                "{administrators} administrators are too few for {} approvals: wants at least {wanted}",
                plan.approvals
            ),
            "Add administrators with SSH keys of their own. One proposes, the others approve, and one may be the person whose keys change.",
        ));
    }
    twice(plan.members.iter().map(|member| (&member.id, member.id.to_string())), "member id")?;
    let spiffe = plan.members.iter().flat_map(|m| m.spiffe_ids.iter().map(|id| (&m.id, id.clone())));
    twice(spiffe, "SPIFFE ID")?;
    let keys = plan.members.iter().flat_map(|m| m.ssh_keys.iter().map(|key| (&m.id, key.fingerprint())));
    twice(keys, "SSH key")?;
    for pair in plan.trails.windows(2) {
        if let [a, b] = pair
            && a.origin == b.origin
        {
            return Err(wrong(
                format!("trail {} stands twice", a.origin),
                "Remove one of the two [[trails]] sections.",
            ));
        }
    }
    for member in &plan.members {
        if let Some(grant) = member.grants.iter().find(|grant| plan.trails.iter().all(|t| t.origin != **grant)) {
            return Err(wrong(
                format!("member {} has a grant for {grant}, which is no trail of this plan", member.id),
                "Add the trail under [[trails]], or remove the grant.",
            ));
        }
        if member.role == Role::Administrator && member.ssh_keys.is_empty() {
            return Err(wrong(
                format!("administrator {} has no SSH key", member.id),
                "Give the person's own public key in ssh_keys or ssh_key_files.",
            ));
        }
    }
    Ok(())
}

/// Refuses a name that two members have, or one of them twice.
fn twice<'a>(names: impl Iterator<Item = (&'a MemberId, String)>, what: &str) -> Outcome {
    let mut seen: BTreeMap<String, &MemberId> = BTreeMap::new();
    for (member, name) in names {
        if let Some(first) = seen.get(&name) {
            let todo =
                "Everyone has credentials of their own: an identity stands in the roster once. Remove one of the two.";
            return Err(usage(format!("the {what} {name} stands twice: with member {first} and with member {member}"))
                .todo(todo));
        }
        seen.insert(name, member);
    }
    Ok(())
}

fn now() -> Outcome<Timestamp> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let micros = since.ok().and_then(|since| i64::try_from(since.as_micros()).ok());
    micros
        .and_then(|micros| Timestamp::from_micros(micros).ok())
        .ok_or_else(|| failed("the clock reads a time outside the years 1970 to 9999").todo("Set the clock."))
}

fn nonce() -> Outcome<Hash> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| failed(format!("no random bytes from the system: {error}")))?;
    Ok(Hash::from_bytes(bytes))
}
