//! Points at which a test build can be told to die, as a power cut would end it, or to lie.
//!
//! Without the feature `failpoints` a point is nothing. With it, `COUNTERSIGN_FAIL_AT=NAME:N` ends
//! the process with SIGKILL when the point NAME is passed for the Nth time, and `COUNTERSIGN_LIE=1`
//! has it commit to other contents than it was sent: what the client library must catch.

/// Passes the point `name`.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub fn point(_name: &str) {}

/// Passes the point `name`.
#[cfg(feature = "failpoints")]
pub fn point(name: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static WANTED: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static PASSED: AtomicU64 = AtomicU64::new(0);

    let wanted = WANTED.get_or_init(|| {
        let text = std::env::var("COUNTERSIGN_FAIL_AT").ok()?;
        let (name, count) = text.split_once(':')?;
        Some((name.to_owned(), count.parse().ok()?))
    });
    if let Some((wanted, count)) = wanted
        && wanted == name
        && PASSED.fetch_add(1, Ordering::SeqCst) + 1 == *count
    {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

/// The contents that are committed to: what was sent.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub fn contents(bytes: &bytes::Bytes) -> bytes::Bytes {
    bytes.clone()
}

/// The contents that are committed to: what was sent, or something else.
#[cfg(feature = "failpoints")]
pub fn contents(bytes: &bytes::Bytes) -> bytes::Bytes {
    if std::env::var_os("COUNTERSIGN_LIE").is_none() {
        return bytes.clone();
    }
    let text = String::from_utf8_lossy(bytes).replace("allow", "block").replace('1', "2");
    bytes::Bytes::from(text.into_bytes())
}
