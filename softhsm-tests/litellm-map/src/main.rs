//! `litellm-map RAW.jsonl > EVENTS.jsonl`: LiteLLM's logging payloads as Countersign events.
//!
//! Exit codes: 0 mapped, 1 a file or a line at fault (nothing after it is mapped), 64 usage.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufReader, BufWriter};
use std::process::ExitCode;

use countersign_litellm_map::lines::{LinesError, map_lines};

/// EX_USAGE of sysexits.h.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(path), None) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: litellm-map RAW.jsonl > EVENTS.jsonl");
        return ExitCode::from(USAGE);
    };
    match run(&path) {
        Ok(count) => {
            eprintln!("{count} events");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("litellm-map: {}: {error}", path.display());
            ExitCode::FAILURE
        }
    }
}

fn run(path: &OsString) -> Result<u64, LinesError> {
    let input = BufReader::new(File::open(path)?);
    map_lines(input, BufWriter::new(io::stdout().lock()))
}
