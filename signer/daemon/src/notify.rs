//! Tells the service manager how far the daemon is (sd_notify(3)). Does nothing without one.

use sd_notify::NotifyState;

/// Longest status line, in bytes.
const MAX_STATUS_BYTES: usize = 200;

/// The daemon serves.
pub fn ready() {
    send(&[NotifyState::Ready]);
}

/// The daemon drains and will end.
pub fn stopping() {
    send(&[NotifyState::Stopping]);
}

/// One line for `systemctl status`; no content.
pub fn status(text: &str) {
    send(&[NotifyState::Status(&line(text))]);
}

/// One line: the protocol separates its variables by newlines.
fn line(text: &str) -> String {
    let text = &text[..text.floor_char_boundary(MAX_STATUS_BYTES)];
    text.replace(char::is_control, " ")
}

fn send(state: &[NotifyState<'_>]) {
    // A service manager that does not listen is no reason to stop signing.
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "cannot notify the service manager");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_one_short_line() {
        assert_eq!(line("sealing\nREADY=1\u{7f}"), "sealing READY=1 ");
        assert_eq!(line(&"ä".repeat(MAX_STATUS_BYTES)).len(), MAX_STATUS_BYTES);
    }
}
