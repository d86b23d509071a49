//! The rules of the `control` file: which call meets which fault.
//!
//! One rule a line, `FUNCTION WHICH ACTION`; blank lines and lines that begin with `#` are skipped:
//! ```text
//! C_Sign 3 return 0x30
//! C_Sign every return 0x101
//! C_Sign 5- latency 50ms
//! C_Sign 4-6 garbage
//! C_Login 1- return 0xA4
//! C_Sign 7 hang
//! C_Sign 9 abort
//! ```
//! The module reads the file anew at every call, so a rule holds from the moment the file was replaced. A file that
//! is not of this form makes it abort: a test never runs with a rule that was silently ignored. No file, no rules.

use std::fmt;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{Error, Function};

/// File name in the shared folder.
pub const CONTROL_FILE: &str = "control";
/// Largest control file, in bytes.
pub const MAX_CONTROL_BYTES: u64 = 64 * 1024;
/// Longest injected latency. Longer than any deadline; what should never return is a [`Action::Hang`].
pub const MAX_LATENCY: Duration = Duration::from_secs(600);

/// Which calls of a function a rule is for, by call number: 1 is the first call by any process sharing the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// `every`: all calls.
    Every,
    /// `N`: this call alone.
    Only(u64),
    /// `N-`: this call and all later ones.
    From(u64),
    /// `N-M`: both ends included.
    Range(u64, u64),
}

impl Which {
    /// Whether the call with this number is meant.
    #[must_use]
    pub const fn contains(self, n: u64) -> bool {
        match self {
            Self::Every => true,
            Self::Only(only) => n == only,
            Self::From(first) => n >= first,
            Self::Range(first, last) => n >= first && n <= last,
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let number = |digits: &str| match digits.parse::<u64>() {
            Ok(n) if n > 0 && digits.bytes().all(|b| b.is_ascii_digit()) => Ok(n),
            _ => Err(format!("`{text}` is not `every`, `N`, `N-` or `N-M` with N from 1")),
        };
        match text.split_once('-') {
            _ if text == "every" => Ok(Self::Every),
            None => number(text).map(Self::Only),
            Some((first, "")) => number(first).map(Self::From),
            Some((first, last)) => match (number(first)?, number(last)?) {
                (first, last) if first <= last => Ok(Self::Range(first, last)),
                _ => Err(format!("the range `{text}` is empty")),
            },
        }
    }
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Every => write!(f, "every"),
            Self::Only(n) => write!(f, "{n}"),
            Self::From(first) => write!(f, "{first}-"),
            Self::Range(first, last) => write!(f, "{first}-{last}"),
        }
    }
}

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// `return 0xRV`: answers this CK_RV. The caller gets no output; a signing operation is ended in the real module
    /// as an error would end it, except by 0x150 (CKR_BUFFER_TOO_SMALL), which leaves it active.
    Return(u64),
    /// `latency Nms` or `latency Ns`: waits so long first. Adds up with other rules for the same call.
    Latency(Duration),
    /// `hang`: never returns, nor reaches the real module; only killing the process ends it.
    Hang,
    /// `abort`: ends the process by SIGABRT, before the real module is called.
    Abort,
    /// `garbage`: passes through, then flips one bit in the middle of the signature.
    Garbage,
}

impl Action {
    fn parse(words: &[&str]) -> Result<Self, String> {
        match words {
            ["return", value] => {
                let digits = value.strip_prefix("0x").filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
                let rv = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
                rv.map(Self::Return).ok_or(format!("`{value}` is not a return value such as 0x30"))
            }
            ["latency", value] => {
                parse_latency(value).map(Self::Latency).ok_or(format!("`{value}` is not a time such as 50ms or 2s"))
            }
            ["hang"] => Ok(Self::Hang),
            ["abort"] => Ok(Self::Abort),
            ["garbage"] => Ok(Self::Garbage),
            _ => {
                Err(format!("`{}` is not `return 0xRV`, `latency Nms`, `hang`, `abort` or `garbage`", words.join(" ")))
            }
        }
    }
}

fn parse_latency(text: &str) -> Option<Duration> {
    let (digits, unit): (_, fn(u64) -> Duration) = match text.strip_suffix("ms") {
        Some(digits) => (digits, Duration::from_millis),
        None => (text.strip_suffix('s')?, Duration::from_secs),
    };
    let latency = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?.map(unit)?;
    (latency <= MAX_LATENCY).then_some(latency)
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Return(rv) => write!(f, "return {rv:#x}"),
            Self::Latency(latency) => write!(f, "latency {}ms", latency.as_millis()),
            Self::Hang => write!(f, "hang"),
            Self::Abort => write!(f, "abort"),
            Self::Garbage => write!(f, "garbage"),
        }
    }
}

/// One line of the control file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// The function.
    pub function: Function,
    /// Which of its calls.
    pub which: Which,
    /// What happens to them.
    pub action: Action,
}

impl Rule {
    /// A rule.
    #[must_use]
    pub const fn new(function: Function, which: Which, action: Action) -> Self {
        Self { function, which, action }
    }

    fn parse(line: &str) -> Result<Self, String> {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [function, which, action @ ..] = words.as_slice() else {
            return Err("is not `FUNCTION WHICH ACTION`".to_owned());
        };
        let function = Function::from_name(function)
            .ok_or_else(|| format!("`{function}` is no function of PKCS#11 2.40 that can be made to fail"))?;
        let rule = Self { function, which: Which::parse(which)?, action: Action::parse(action)? };
        if rule.action == Action::Garbage && !function.gives_signature() {
            return Err(format!("{} returns no signature that could be garbage", function.name()));
        }
        Ok(rule)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.function.name(), self.which, self.action)
    }
}

/// Reads the rules in force.
///
/// # Errors
/// The file cannot be read, exceeds [`MAX_CONTROL_BYTES`] or holds a malformed line. A missing file is no rules.
pub fn read_control(dir: &Path) -> Result<Vec<Rule>, Error> {
    let path = dir.join(CONTROL_FILE);
    let file = match std::fs::File::open(&path) {
        Err(missing) if missing.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened.map_err(|source| Error::io(&path, source))?,
    };
    let mut text = String::new();
    let length =
        file.take(MAX_CONTROL_BYTES + 1).read_to_string(&mut text).map_err(|source| Error::io(&path, source))?;
    if length as u64 > MAX_CONTROL_BYTES {
        return Err(Error::file(&path, format!("exceeds {MAX_CONTROL_BYTES} bytes")));
    }
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(number, line)| Rule::parse(line).map_err(|reason| Error::line(&path, number, reason)))
        .collect()
}

/// Replaces the rules in force, by an atomic rename: a call sees the old rules or the new ones, never a mixture.
///
/// # Errors
/// The file cannot be written, or the module would refuse it.
pub fn write_control(dir: &Path, rules: &[Rule]) -> Result<(), Error> {
    let path = dir.join(CONTROL_FILE);
    let mut text = String::new();
    for (index, rule) in rules.iter().enumerate() {
        let line = rule.to_string();
        Rule::parse(&line).map_err(|reason| Error::line(&path, index + 1, reason))?;
        text.push_str(&line);
        text.push('\n');
    }
    if text.len() as u64 > MAX_CONTROL_BYTES {
        return Err(Error::file(&path, format!("would exceed {MAX_CONTROL_BYTES} bytes")));
    }
    let fresh: PathBuf = dir.join(format!("{CONTROL_FILE}.{}", std::process::id()));
    std::fs::write(&fresh, text).map_err(|source| Error::io(&fresh, source))?;
    std::fs::rename(&fresh, &path).map_err(|source| Error::io(&path, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(line: &str) -> String {
        Rule::parse(line).expect_err(line)
    }

    #[test]
    fn a_rule_is_read_as_it_is_written() {
        for line in [
            "C_Sign 3 return 0x30",
            "C_Sign every return 0x101",
            "C_Sign 5- latency 50ms",
            "C_Sign 4-6 garbage",
            "C_SignFinal 1-1 garbage",
            "C_Login 1- return 0xa4",
            "C_Sign 7 hang",
            "C_Initialize 18446744073709551615 abort",
        ] {
            assert_eq!(Rule::parse(line).map(|rule| rule.to_string()).as_deref(), Ok(line));
        }
        let rule = Rule::parse("  C_Sign\t2   latency 2s ").unwrap();
        assert_eq!(rule, Rule::new(Function::C_Sign, Which::Only(2), Action::Latency(Duration::from_secs(2))));
    }

    #[test]
    fn which_includes_both_ends() {
        let calls = |which: Which| (1..=9).filter(|n| which.contains(*n)).collect::<Vec<u64>>();
        assert_eq!(calls(Which::Only(3)), [3]);
        assert_eq!(calls(Which::From(7)), [7, 8, 9]);
        assert_eq!(calls(Which::Range(3, 5)), [3, 4, 5]);
        assert_eq!(calls(Which::Every).len(), 9);
    }

    #[test]
    fn anything_else_is_refused_with_the_word_that_is_wrong() {
        for (line, word) in [
            ("C_Sign", "FUNCTION WHICH ACTION"),
            ("C_Sing 1 hang", "`C_Sing`"),
            ("C_GetFunctionList 1 hang", "`C_GetFunctionList`"),
            ("C_Sign 0 hang", "`0`"),
            ("C_Sign +1 hang", "`+1`"),
            ("C_Sign -3 hang", "`-3`"),
            ("C_Sign 5-4 hang", "`5-4`"),
            ("C_Sign 3-- hang", "`3--`"),
            ("C_Sign 18446744073709551616 hang", "`18446744073709551616`"),
            ("C_Sign 1", "``"),
            ("C_Sign 1 hang now", "`hang now`"),
            ("C_Sign 1 return 30", "`30`"),
            ("C_Sign 1 return 0x", "`0x`"),
            ("C_Sign 1 return 0x+3", "`0x+3`"),
            ("C_Sign 1 return 0x10000000000000000", "`0x10000000000000000`"),
            ("C_Sign 1 latency 50", "`50`"),
            ("C_Sign 1 latency 601s", "`601s`"),
            ("C_Sign 1 latency -1ms", "`-1ms`"),
            ("C_Login 1 garbage", "C_Login"),
        ] {
            let reason = refusal(line);
            assert!(reason.contains(word), "{line:?} is refused with {reason:?}");
        }
    }

    #[test]
    fn the_file_is_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read_control(dir.path()).unwrap(), []);
        let rules = [
            Rule::new(Function::C_Sign, Which::From(2), Action::Garbage),
            Rule::new(Function::C_Login, Which::Every, Action::Return(0xA4)),
        ];
        write_control(dir.path(), &rules).unwrap();
        assert_eq!(read_control(dir.path()).unwrap(), rules);
        let refused = [Rule::new(Function::C_Sign, Which::Only(0), Action::Hang)];
        assert!(matches!(write_control(dir.path(), &refused), Err(Error::Line { line: 1, .. })));
        assert_eq!(read_control(dir.path()).unwrap(), rules, "a refused file leaves the old one");
        write_control(dir.path(), &[]).unwrap();
        assert_eq!(read_control(dir.path()).unwrap(), []);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_huge_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(CONTROL_FILE), vec![b'\n'; MAX_CONTROL_BYTES as usize + 1]).unwrap();
        assert!(matches!(read_control(dir.path()), Err(Error::File { .. })));
    }
}
