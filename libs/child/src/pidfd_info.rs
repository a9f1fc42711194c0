//! How a process ended, told by its pidfd to somebody who is not its parent (`PIDFD_GET_INFO` with
//! `PIDFD_INFO_EXIT`, Linux 6.15 and newer). The kernel says it once the parent has reaped it; on
//! older kernels, and until then, nobody can know.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::libc;

use crate::Exit;

/// `struct pidfd_info` in its first published size; the kernel fills what fits.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup_id: u64,
    /// pid, tgid, ppid and the eight user and group ids.
    ids: [u32; 11],
    exit_code: i32,
}

/// `_IOWR(0xFF, 11, struct pidfd_info)` for the size above.
const PIDFD_GET_INFO: libc::Ioctl = 0xC040_FF0B;
const PIDFD_INFO_EXIT: u64 = 1 << 3;

/// The exit of the process behind a pidfd; `None` while it lives, before it was reaped, or where
/// the kernel cannot tell.
pub(crate) fn exit_of(pidfd: &OwnedFd) -> Option<Exit> {
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
    #[expect(unsafe_code, reason = "no safe wrapper for this ioctl")]
    // SAFETY: the descriptor is open for the call, and the kernel writes at most the size that is
    // part of the request's number, which is the size of `info`.
    let answered = unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO, &raw mut info) };
    (answered == 0 && info.mask & PIDFD_INFO_EXIT != 0).then(|| from_wait_status(info.exit_code))
}

/// As wait(2) encodes it.
fn from_wait_status(status: i32) -> Exit {
    if libc::WIFEXITED(status) {
        Exit::Code(libc::WEXITSTATUS(status))
    } else if libc::WIFSIGNALED(status) {
        Exit::Signal(libc::WTERMSIG(status))
    } else {
        Exit::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_carries_the_size_of_its_structure() {
        assert_eq!(size_of::<PidfdInfo>(), 64);
        assert_eq!((PIDFD_GET_INFO >> 16) & 0x3FFF, 64);
    }

    #[test]
    fn a_wait_status_is_a_code_or_a_signal() {
        assert_eq!(from_wait_status(7 << 8), Exit::Code(7));
        assert_eq!(from_wait_status(9), Exit::Signal(9));
        assert_eq!(from_wait_status(0x80 | 6), Exit::Signal(6), "with a core dump");
    }
}
