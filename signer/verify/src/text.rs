//! The report for people: one line, then what is proven, then every check.

use std::fmt::Write as _;

use crate::report::{Report, Verdict};

/// The whole report as text: the summary, the verdict of each trail, the first broken record, a
/// table of checks, and what was not checked. Ends in a line feed.
pub fn render(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write(report, &mut out);
    out
}

fn write(report: &Report, out: &mut String) -> std::fmt::Result {
    writeln!(out, "{}", report.summary)?;
    if let Some(instance) = &report.instance {
        let pinned = if report.pinned.is_some() { "pinned" } else { "NOT pinned" };
        let genesis = report.genesis.map(|genesis| genesis.to_string()).unwrap_or_default();
        writeln!(out, "\ninstance  {instance}\ngenesis   {genesis} ({pinned})")?;
    }
    if !report.trails.is_empty() {
        writeln!(out)?;
    }
    for trail in &report.trails {
        let kind = if trail.admin { "admin" } else { trail.mode };
        writeln!(out, "{} ({kind}): {}", trail.origin, trail.verdict)?;
        if trail.parts_withheld > 0 {
            writeln!(out, "    {} parts given, {} withheld", trail.parts_given, trail.parts_withheld)?;
        }
    }
    if let Some(broken) = &report.first_broken {
        writeln!(out, "\nfirst broken record: {} of {} (check {})", broken.seq, broken.trail, broken.check)?;
        let hash = |hash: &Option<_>| {
            hash.map_or("not known".to_owned(), |hash: countersign_trail::hash::Hash| hash.to_string())
        };
        writeln!(out, "    expected  {}", hash(&broken.expected))?;
        writeln!(out, "    actual    {}", hash(&broken.actual))?;
        writeln!(out, "    reason    {}", broken.reason)?;
    }
    writeln!(out)?;
    let width = |text: fn(&crate::Check) -> usize| report.checks.iter().map(text).max().unwrap_or(0);
    let name_width = width(|check| check.name.len());
    let trail_width = width(|check| check.trail.as_ref().map_or(1, |trail| trail.as_str().len()));
    writeln!(out, "{:<11}  {:<name_width$}  {:<trail_width$}  detail", "verdict", "check", "trail")?;
    for check in &report.checks {
        let trail = check.trail.as_ref().map_or("-", |trail| trail.as_str());
        let verdict = check.verdict.word();
        writeln!(out, "{verdict:<11}  {:<name_width$}  {trail:<trail_width$}  {}", check.name, check.detail)?;
    }
    let open = report.checks.iter().filter(|check| check.verdict == Verdict::NotChecked).count();
    match open {
        0 => writeln!(out, "\nnot checked: nothing"),
        open => writeln!(out, "\nnot checked: {open} of {} checks, see the table", report.checks.len()),
    }
}
