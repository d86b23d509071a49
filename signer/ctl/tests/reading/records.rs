//! `record`, `proof` and `export`: nothing is shown that was not checked.

use countersign_proto::v1;
use countersign_trail::tree::leaf_hash;

use crate::common::ceremony::{DECISIONS, METRICS};
use crate::stage::{Stage, names_ending};

const BOTH: [&str; 2] = [DECISIONS, METRICS];

#[test]
fn records_are_shown_with_what_was_checked() {
    let stage = Stage::new(5);
    let facts = &["Part facts", "=first", "Part request: withheld"];
    stage
        .countersign(&["record", DECISIONS, "2"])
        .shows(&["Record", "signature and inclusion, under the checkpoint of size 6"]);
    stage.countersign(&["record", METRICS, "2"]).shows(&["Checked    inclusion, under the checkpoint of size 6"]);
    stage.countersign(&["record", METRICS, "--event-id", "e-2"]).shows(&["inclusion"]);
    for trail in BOTH {
        stage.countersign(&["record", trail, "2"]).shows(facts);
        stage.countersign(&["record", trail, "0"]).shows(&["countersign.trail", "\n\nBody\n{\n  \"admin_seq\": "]);
        stage.countersign(&["proof", trail, "2"]).shows(&["c2sp.org/tlog-proof@v1\nindex 2\n"]);
        stage.countersign(&["record", trail, "9"]).refused(1, &["no such record"]);
    }
}

#[test]
fn a_list_that_was_cut_says_so() {
    let stage = Stage::new(5);
    // Records 1 to 5.
    let window = ["record", METRICS, "--from", "2026-01-01T00:03:21Z"];
    let list = |more: &[&str]| stage.countersign(&[&window[..], more].concat());
    let json = |more: &[&str]| {
        let run = list(&[more, &["--json"]].concat());
        assert_eq!(run.stderr, "");
        serde_json::from_str::<serde_json::Value>(&run.stdout).unwrap()
    };
    let all = json(&[]);
    let seqs: Vec<&str> =
        all["records"].as_array().unwrap().iter().map(|r| r["record"]["seq"].as_str().unwrap()).collect();
    assert_eq!((seqs, &all["more"]), (vec!["1", "2", "3", "4", "5"], &false.into()));
    for limit in ["5", "6", "10000"] {
        let run = list(&["--limit", limit]);
        run.shows(&["e-5"]);
        assert_eq!(run.stderr, "");
    }
    for limit in [1, 2, 4] {
        let run = list(&["--limit", &limit.to_string()]);
        assert_eq!(run.code, 0, "{run:?}");
        let last = all["records"][limit - 1]["record"]["time"].as_str().unwrap();
        let records = if limit == 1 { "record" } else { "records" };
        let said = format!("{limit} {records} shown, there are more: --limit N (at most 10000), or --from {last}\n");
        assert_eq!(run.stderr, said);
        let cut = json(&["--limit", &limit.to_string()]);
        assert_eq!((cut["records"].as_array().unwrap().len(), &cut["more"]), (limit, &true.into()));
    }
    // One match of such a query is a list too.
    let run = stage.countersign(&["record", METRICS, "--request-id", "r-3", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!((&json["records"][0]["record"]["seq"], &json["more"]), (&"3".into(), &false.into()));
}

#[test]
fn a_query_without_a_match_is_an_empty_list() {
    let stage = Stage::new(2);
    for query in [["--from", "2030-01-01"], ["--request-id", "r-9"]] {
        let args = [&["record", METRICS], &query[..]].concat();
        let run = stage.countersign(&args);
        assert_eq!((run.code, run.stdout.lines().count()), (0, 1), "{run:?}");
        let run = stage.countersign(&[&args[..], &["--json"]].concat());
        let json: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
        assert_eq!(json, serde_json::json!({ "records": [], "more": false }));
        stage.countersign(&[&args[..], &["--bytes", "bytes"]].concat()).refused(1, &["no such record"]);
    }
    stage.countersign(&["record", METRICS, "--event-id", "e-9"]).refused(1, &["no such record"]);
    let backwards = ["record", METRICS, "--from", "2026-02-01", "--to", "2026-01-31T23:59:59Z"];
    stage
        .countersign(&backwards)
        .refused(64, &["--from 2026-02-01T00:00:00.000000Z is after --to 2026-01-31T23:59:59"]);
}

#[test]
fn files_are_replaced_only_where_that_is_asked_for() {
    let stage = Stage::new(3);
    let commands: [(&[&str], &str); 6] = [
        (&["head", METRICS, "--out", "kept"], "kept"),
        (&["proof", METRICS, "2", "--out", "kept", "--record", "free"], "kept"),
        (&["proof", METRICS, "2", "--out", "free", "--record", "kept"], "kept"),
        (&["record", DECISIONS, "2", "--signed-bytes", "kept", "--signature", "free"], "kept"),
        (&["record", DECISIONS, "2", "--signature", "free", "--bytes", "kept"], "kept"),
        (&["keys", "--out", "keys"], "keys/vkeys.txt"),
    ];
    std::fs::create_dir(stage.path("keys")).unwrap();
    for (command, kept) in commands {
        std::fs::write(stage.path(kept), b"mine").unwrap();
        stage.countersign(command).refused(1, &[&format!("{kept} exists"), "--force"]);
        assert_eq!(std::fs::read(stage.path(kept)).unwrap(), b"mine");
        assert!(!stage.path("free").exists() && names_ending(&stage.path("keys"), ".pem").is_empty(), "{command:?}");
        stage.countersign(&[command, &["--force"]].concat()).shows(&[]);
        assert_ne!(std::fs::read(stage.path(kept)).unwrap(), b"mine");
        let _ = std::fs::remove_file(stage.path("free"));
    }
    // What is whole only at its end has no place in a pipe.
    for export in [["--csv", "-"], ["--out", "-"]] {
        let args = [&["export", "--trail", METRICS], &export[..]].concat();
        stage.countersign(&args).refused(64, &["cannot go to standard output"]);
        assert!(!stage.path("-").exists());
    }
}

/// The daemon gives record 2 of both trails out changed; every command that reads it says so.
fn believed_by_none(change: impl Fn(&mut v1::StoredRecord), proof_too: bool) {
    for trail in BOTH {
        let stage = Stage::new(5);
        stage.daemon.change(trail, |trail| change(&mut trail.records[2]));
        let named = &["record 2 of", "is not believed"];
        stage.countersign(&["record", trail, "2", "--bytes", "bytes"]).refused(40, named);
        if proof_too {
            stage.countersign(&["proof", trail, "2", "--out", "proof"]).refused(40, named);
        }
        // The table is written whole or not at all.
        let table = stage.countersign(&["export", "--csv", "table.csv", "--trail", trail]);
        assert_eq!(table.code, 40, "{table:?}");
        for name in ["bytes", "proof", "table.csv"] {
            assert!(!stage.path(name).exists(), "{name} was written");
        }
        assert!(names_ending(&stage.path(""), ".part").is_empty());
    }
}

#[test]
fn other_bytes_are_not_believed() {
    let replace = |record: &mut v1::StoredRecord, from: &str, to: &str| {
        let text = String::from_utf8(record.record.to_vec()).unwrap();
        assert!(text.contains(from));
        record.record = text.replace(from, to).into_bytes().into();
    };
    // With its old leaf hash, and with the one that fits.
    believed_by_none(|record| replace(record, "allow", "block"), true);
    believed_by_none(
        |record| {
            replace(record, "allow", "block");
            record.leaf_hash = leaf_hash(&record.record).as_bytes().to_vec().into();
        },
        true,
    );
    believed_by_none(|record| replace(record, "{\"category", "{ \"category"), true);
}

#[test]
fn another_record_is_not_believed() {
    for trail in BOTH {
        let stage = Stage::new(5);
        stage.daemon.change(trail, |trail| {
            trail.records[2] = trail.records[3].clone();
            trail.records[2].seq = 2;
        });
        stage.countersign(&["record", trail, "2"]).refused(40, &["it says that it is record 3"]);
    }
}

#[test]
fn other_parts_are_not_believed() {
    believed_by_none(|record| record.parts[0].data = b"{}".to_vec().into(), false);
    believed_by_none(|record| record.parts[0].salt = vec![8; 32].into(), false);
    believed_by_none(|record| record.parts[0].salt = vec![8; 31].into(), false);
    believed_by_none(|record| record.parts[0].media_type = "text/plain".to_owned(), false);
    believed_by_none(|record| record.parts[0].name = "review".to_owned(), false);
}

#[test]
fn a_missing_signature_is_not_believed() {
    let stage = Stage::new(3);
    stage.daemon.change(DECISIONS, |trail| trail.records[2].signature = Vec::new().into());
    stage.countersign(&["record", DECISIONS, "2"]).refused(40, &["record 2 of"]);
}

#[test]
fn a_proof_that_leads_elsewhere_is_not_believed() {
    for trail in BOTH {
        let stage = Stage::new(5);
        stage.daemon.change(trail, |trail| trail.leaves.swap(2, 3));
        stage.countersign(&["record", trail, "2"]).refused(40, &["record 2 of"]);
        stage
            .countersign(&["export", "--csv", "table.csv", "--trail", trail])
            .refused(40, &["its signed head of size 6"]);
        assert!(!stage.path("table.csv").exists());
    }
}

#[test]
fn a_table_has_every_record_and_no_formula() {
    let stage = Stage::new(5);
    for trail in BOTH {
        let run = stage.countersign(&["export", "--csv", "table.csv", "--trail", trail, "--force"]);
        run.shows(&["6 of", "all of them under its signed head"]);
        let mut reader = csv::Reader::from_path(stage.path("table.csv")).unwrap();
        let headers = reader.headers().unwrap().clone();
        let at = |name: &str| headers.iter().position(|header| header == name).unwrap();
        let (seq, agent) = (at("seq"), at("agent_name"));
        let rows: Vec<csv::StringRecord> = reader.records().map(|row| row.unwrap()).collect();
        assert_eq!(rows.iter().map(|row| row[seq].to_owned()).collect::<Vec<_>>(), ["0", "1", "2", "3", "4", "5"]);
        assert!(rows[1..].iter().all(|row| &row[agent] == "'=first"), "{rows:?}");
    }
    stage
        .countersign(&["export", "--csv", "table.csv", "--trail", METRICS])
        .refused(1, &["table.csv exists", "--force"]);
}

#[test]
fn a_table_without_some_record_is_not_written() {
    for lost in [0, 3, 5] {
        let stage = Stage::new(5);
        stage.daemon.change(METRICS, |trail| {
            trail.records.remove(lost);
        });
        stage
            .countersign(&["export", "--csv", "table.csv", "--trail", METRICS])
            .refused(40, &[&format!("record {lost} is missing")]);
        assert!(!stage.path("table.csv").exists());
    }
}

#[test]
fn an_export_that_breaks_off_leaves_nothing() {
    let stage = Stage::new(1);
    stage.countersign(&["export", "--out", "evidence.zip"]).refused(5, &["the store went away"]);
    assert!(!stage.path("evidence.zip").exists());
    assert!(names_ending(&stage.path(""), ".part").is_empty());
}

#[test]
fn an_export_says_what_it_withholds_and_how_it_is_verified() {
    let stage = Stage::new(1);
    stage.daemon.state().whole_export = true;
    let verify = format!("countersign-verify evidence.zip --genesis {}", stage.daemon.state().ceremony.fingerprint);
    let export = ["export", "--out", "evidence.zip", "--force"];
    let run = stage.countersign(&export);
    run.shows(&["Withheld        nothing", &verify]);
    let withhold = [&export[..], &["--withhold", "request", "--withhold", "response"]].concat();
    stage.countersign(&withhold).shows(&["Withheld        request, response"]);
    assert_eq!(stage.daemon.state().withheld, ["request", "response"]);
    let run = stage.countersign(&[&withhold[..], &["--json"]].concat());
    let json: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(json["withheld"], serde_json::json!(["request", "response"]));
    assert_eq!(json["genesis"], stage.daemon.state().ceremony.fingerprint.to_string());
    assert_eq!(json["verify"], verify);
    // A name that no part has would withhold nothing.
    stage.daemon.state().withheld.clear();
    let typo = [&export[..], &["--withhold", "requests"]].concat();
    stage.countersign(&typo).refused(64, &["requests", "facts, subject, review, request, response"]);
}
