//! Programs that were written a moment ago.
//!
//! The kernel executes nothing that somebody holds open for writing (`ETXTBSY`). Whoever has written a
//! program and closed it may still not be the last one: a child that another thread forked meanwhile has
//! a copy of the descriptor until it executes a program of its own.

use std::io;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// How long a program that is being written is waited for; a fork is over long before.
const PATIENCE: Duration = Duration::from_secs(2);
const AGAIN_AFTER: Duration = Duration::from_millis(5);

/// Starts a command, for up to two seconds again as long as its program is held open for writing. Blocks
/// meanwhile.
///
/// # Errors
/// As [`Command::spawn`]; [`io::ErrorKind::ExecutableFileBusy`] where it is still being written.
pub fn spawn_when_written(command: &mut Command) -> io::Result<Child> {
    let begun = Instant::now();
    loop {
        match command.spawn() {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && begun.elapsed() < PATIENCE => {
                std::thread::sleep(AGAIN_AFTER);
            }
            spawned => return spawned,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// POOLD-LAUNCH-005
    #[test]
    fn a_program_that_is_held_open_for_writing_runs_once_it_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("written");
        std::fs::copy("/bin/true", &program).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let writing = File::options().append(true).open(&program).unwrap();
        let busy = Command::new(&program).spawn().unwrap_err();
        assert_eq!(busy.kind(), io::ErrorKind::ExecutableFileBusy, "or this shows nothing");
        let (asked, closed) = std::sync::mpsc::channel();
        let writer = std::thread::spawn(move || {
            closed.recv().unwrap();
            // Nothing tells when the first try has failed; where none has, this shows less and fails nothing.
            std::thread::sleep(4 * AGAIN_AFTER);
            drop(writing);
        });
        asked.send(()).unwrap();
        let status = spawn_when_written(&mut Command::new(&program)).unwrap().wait().unwrap();
        writer.join().unwrap();
        assert!(status.success(), "{status}");
    }

    /// POOLD-LAUNCH-005
    #[test]
    fn one_that_stays_open_is_given_up_and_one_that_is_not_there_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("written");
        std::fs::copy("/bin/true", &program).unwrap();
        let _writing = File::options().append(true).open(&program).unwrap();
        let begun = Instant::now();
        let busy = spawn_when_written(&mut Command::new(&program)).unwrap_err();
        assert_eq!(busy.kind(), io::ErrorKind::ExecutableFileBusy);
        assert!(begun.elapsed() >= PATIENCE);
        let begun = Instant::now();
        let missing = spawn_when_written(&mut Command::new(dir.path().join("none"))).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    }
}
