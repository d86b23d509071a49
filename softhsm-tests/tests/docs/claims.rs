//! What the documentation claims of the repository's own code: tests by name, configuration by key.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::pages::{Page, book, root};

/// The names of all tests of the repository.
fn every_test() -> BTreeSet<String> {
    let mut tests = BTreeSet::new();
    let mut folders: Vec<PathBuf> = ["proto", "signer", "softhsm-tests"].map(|name| root().join(name)).to_vec();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                tests_of(&std::fs::read_to_string(path).unwrap(), &mut tests);
            }
        }
    }
    tests
}

/// A function is a test if an attribute says so since the line where the last function began; inside
/// `proptest!` and `vectors` macros the attribute stands there too.
fn tests_of(source: &str, tests: &mut BTreeSet<String>) {
    let mut marked = false;
    for line in source.lines().map(str::trim_start) {
        marked |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        let signature = line.strip_prefix("async fn ").or_else(|| line.strip_prefix("fn "));
        if let Some(signature) = signature {
            let name = signature.split(['(', '<']).next().unwrap_or_default();
            if std::mem::take(&mut marked) {
                tests.insert(name.to_owned());
            }
        }
    }
}

/// Words in back quotes that look like the name of a test: four words or more.
fn named_tests(text: &str) -> BTreeSet<String> {
    let quoted = text.split('`').skip(1).step_by(2);
    let plain = |name: &&str| name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    quoted.filter(plain).filter(|name| name.matches('_').count() >= 2).map(str::to_owned).collect()
}

#[test]
fn the_gateway_of_the_readme_is_the_compiled_example() {
    let library = std::fs::read_to_string(root().join("signer/client/src/lib.rs")).unwrap();
    let compiled: BTreeSet<&str> = library.lines().filter_map(|line| line.strip_prefix("//! ")).collect();
    let readme = Page::read(&root().join("README.md"));
    let blocks = readme.blocks("rust");
    let lines: Vec<&str> = blocks.iter().flat_map(|block| block.text.lines()).filter(|line| !line.is_empty()).collect();
    assert!(lines.len() >= 5, "{lines:?}");
    for line in lines {
        assert!(compiled.contains(line), "the example in signer/client/src/lib.rs has no line {line}");
    }
}

#[test]
fn every_test_that_is_named_exists() {
    let tests = every_test();
    let mut named = BTreeSet::new();
    for page in ["threat-model.md", "invariants.md"] {
        named.extend(named_tests(Page::read(&book().join(page)).text()));
    }
    let missing: Vec<&String> = named.difference(&tests).collect();
    assert!(missing.is_empty(), "no test has the name {missing:?}");
    assert!(named.len() > 60, "only {} tests are named", named.len());
}

#[test]
fn every_invariant_names_a_test() {
    let page = Page::read(&book().join("invariants.md"));
    let rows: Vec<&str> = page.text().lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert!(rows.len() > 20, "{} rows", rows.len());
    for row in rows {
        let named = named_tests(row);
        assert!(!named.is_empty(), "no test stands in {row}");
    }
}

/// The rows of the configuration page: `table.key` and the row's cells after it.
fn configuration_rows() -> Vec<(String, Vec<String>)> {
    let page = Page::read(&book().join("configuration.md"));
    let (mut tables, mut rows) = (vec![String::new()], Vec::new());
    for line in page.text().lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            let named =
                heading.split('`').skip(1).step_by(2).map(|name| name.trim_matches(['[', ']']).to_owned() + ".");
            tables = named.collect();
            if tables.is_empty() {
                tables.push(String::new());
            }
        }
        let mut cells = line.split('|').map(|cell| cell.trim().to_owned()).skip(1);
        let Some(key) = cells.next().filter(|key| key.starts_with('`')) else { continue };
        let cells: Vec<String> = cells.collect();
        rows.extend(tables.iter().map(|table| (format!("{table}{}", key.trim_matches('`')), cells.clone())));
    }
    rows
}

#[test]
fn the_configuration_page_has_the_keys_of_the_example() {
    let example = std::fs::read_to_string(root().join("deploy/countersignd.toml")).unwrap();
    let (mut table, mut keys) = (String::new(), BTreeSet::new());
    for line in example.lines() {
        if let Some(name) = line.strip_prefix('[') {
            table = name.trim_end_matches(']').to_owned() + ".";
        }
        // Keys that may be left out stand behind `# `.
        let setting = line.strip_prefix("# ").unwrap_or(line);
        if let Some((key, _)) = setting.split_once(" = ")
            && key.chars().all(|c| c.is_ascii_lowercase() || c == '_')
        {
            keys.insert(format!("{table}{key}"));
        }
    }
    // What the example explains in the first of the two token tables alone.
    let tokens: Vec<String> =
        keys.iter().filter_map(|key| key.strip_prefix("record_token.")).map(str::to_owned).collect();
    keys.extend(tokens.iter().map(|key| format!("admin_token.{key}")));
    let documented: BTreeSet<String> = configuration_rows().into_iter().map(|(key, _)| key).collect();
    assert_eq!(documented, keys);
}

#[test]
fn the_configuration_page_has_the_bounds_of_the_code() {
    let source = std::fs::read_to_string(root().join("signer/daemon/src/config/sections.rs")).unwrap();
    let rows = configuration_rows();
    let mut checked = 0;
    // `key: type = default, least to most;`
    for line in source.lines().map(str::trim) {
        let Some((key, values)) = line.strip_suffix(';').and_then(|line| line.split_once(" = ")) else { continue };
        let Some((default, bounds)) = values.split_once(", ").filter(|(_, bounds)| bounds.contains(" to ")) else {
            continue;
        };
        let key = key.split(':').next().unwrap_or_default();
        if !key.chars().all(|c| c.is_ascii_lowercase() || c == '_') {
            continue;
        }
        let (default, bounds) = (default.replace('_', ""), bounds.replace('_', ""));
        let documented = rows.iter().any(|(name, cells)| {
            name.rsplit('.').next() == Some(key) && cells.first() == Some(&default) && cells.get(1) == Some(&bounds)
        });
        assert!(documented, "configuration.md does not say of {key}: default {default}, allowed {bounds}");
        checked += 1;
    }
    assert!(checked > 20, "only {checked} keys with bounds were found");
}
