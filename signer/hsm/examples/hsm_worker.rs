//! The worker process alone, for tests that have no daemon.

fn main() -> std::process::ExitCode {
    countersign_hsm::worker_main()
}
