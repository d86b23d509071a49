//! What is printed: text for people, or JSON.

use std::io::{self, Write};

use serde::Serialize;

/// In which form a command prints its result.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    /// JSON instead of text for people.
    pub(crate) json: bool,
}

impl Output {
    /// Prints `value` as JSON, or what `text` makes of it.
    pub(crate) fn show<T: Serialize>(self, value: &T, text: impl FnOnce(&T) -> String) -> anyhow::Result<()> {
        let text = if self.json { serde_json::to_string_pretty(value)? + "\n" } else { text(value) };
        raw(text.as_bytes())
    }
}

/// Prints bytes as they are. A reader that went away is no failure.
pub(crate) fn raw(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

/// An error and its causes, without those that it names itself.
pub(crate) fn with_causes(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text += &format!(": {cause}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    #[test]
    fn a_cause_is_said_once() {
        let error = |text: &'static str| Err::<(), _>(anyhow!("No such file")).context(text).unwrap_err();
        assert_eq!(with_causes(&error("plan.json")), "plan.json: No such file");
        assert_eq!(with_causes(&error("plan.json: No such file")), "plan.json: No such file");
    }
}
