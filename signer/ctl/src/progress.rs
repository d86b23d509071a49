//! Progress on standard error: a bar on a terminal, lines where `--progress` asks for it elsewhere.

use std::cell::Cell;
use std::io::{IsTerminal as _, stderr};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

/// Time between two lines where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(1);

/// How far a command is.
pub(crate) enum Progress {
    /// On a terminal.
    Bar(ProgressBar),
    /// Elsewhere, asked for.
    Lines(Lines),
    /// Elsewhere.
    Off,
}

/// Progress as lines.
pub(crate) struct Lines {
    what: &'static str,
    bytes: bool,
    total: Option<u64>,
    position: Cell<u64>,
    last: Cell<Instant>,
}

impl Progress {
    /// Counts records towards `total`.
    pub(crate) fn records(wanted: bool, what: &'static str, total: u64) -> Progress {
        Progress::new(wanted, what, Some(total), "{msg} {wide_bar} {pos}/{len} {per_sec} {eta}", false)
    }

    /// Counts records, towards a total where it is known.
    pub(crate) fn maybe_records(wanted: bool, what: &'static str, total: Option<u64>) -> Progress {
        match total {
            Some(total) => Progress::records(wanted, what, total),
            None => Progress::new(wanted, what, None, "{msg} {spinner} {pos} {per_sec}", false),
        }
    }

    /// Counts bytes, their total unknown.
    pub(crate) fn bytes(wanted: bool, what: &'static str) -> Progress {
        Progress::new(wanted, what, None, "{msg} {spinner} {bytes} {bytes_per_sec}", true)
    }

    fn new(wanted: bool, what: &'static str, total: Option<u64>, template: &str, bytes: bool) -> Progress {
        if stderr().is_terminal() {
            let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new).with_message(what);
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            return Progress::Bar(bar);
        }
        if !wanted {
            return Progress::Off;
        }
        let lines = Lines { what, bytes, total, position: Cell::new(0), last: Cell::new(Instant::now()) };
        Progress::Lines(lines)
    }

    /// Says how far it is.
    pub(crate) fn at(&self, position: u64) {
        match self {
            Progress::Bar(bar) => bar.set_position(position),
            Progress::Lines(lines) => {
                lines.position.set(position);
                if lines.last.get().elapsed() >= LINE_INTERVAL {
                    lines.print();
                }
            }
            Progress::Off => {}
        }
    }

    /// Leaves the last state.
    pub(crate) fn done(&self) {
        match self {
            Progress::Bar(bar) => bar.abandon(),
            Progress::Lines(lines) => lines.print(),
            Progress::Off => {}
        }
    }
}

impl Lines {
    fn print(&self) {
        self.last.set(Instant::now());
        let Lines { what, total, .. } = self;
        let position = self.position.get();
        match total {
            Some(total) => eprintln!("{what}: {position} of {total}"),
            None if self.bytes => eprintln!("{what}: {}", HumanBytes(position)),
            None => eprintln!("{what}: {position}"),
        }
    }
}
