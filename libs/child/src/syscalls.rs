//! What a confined process may not ask of the kernel (seccomp): other processes' memory, mounts and
//! namespaces, modules, keys, tracing, the clock, and the interfaces through which kernels were broken
//! most often. Each of them fails with `EPERM`, for life and in everything that the process starts.
//!
//! Everything else is allowed, `ioctl` above all: what a card's driver asks for changes with its
//! version, so a list of what is allowed would one day refuse an engine its card.

use std::collections::BTreeMap;
use std::io;

use nix::libc;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// What is refused whatever its arguments are.
const REFUSED: &[libc::c_long] = &[
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    // Code in the kernel, and large interfaces to it that no engine uses.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_fanotify_init,
    // Keys that the kernel keeps for the user.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // What lies where, and who sees it.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    libc::SYS_unshare,
    libc::SYS_setns,
    // The machine.
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
];

/// Of `clone`'s flags those that make a namespace, as `unshare` would.
const NAMESPACES: &[libc::c_int] = &[
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// Why there is no filter.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// The kernel has none, or not the kind that is needed.
    #[error("it needs seccomp filters (CONFIG_SECCOMP_FILTER, Linux 4.14 or newer)")]
    Unsupported,
    /// The rules could not be made for this machine.
    #[error("the rules cannot be made for this machine")]
    Rules(#[source] BackendError),
}

/// Filters ready to be put on a process.
#[derive(Debug)]
pub(crate) struct Filter(Vec<BpfProgram>);

impl Filter {
    pub(crate) fn prepare() -> Result<Self, FilterError> {
        if !kernel_can_refuse() {
            return Err(FilterError::Unsupported);
        }
        programs().map(Self).map_err(FilterError::Rules)
    }

    /// Puts them on the calling thread, and takes its right to new privileges. Async-signal-safe: both
    /// are plain system calls on memory that is there.
    pub(crate) fn enter(&self) -> io::Result<()> {
        for program in &self.0 {
            // What it returns says no more than errno, and only errno gets out of a new process.
            seccompiler::apply_filter(program).map_err(|_| io::Error::last_os_error())?;
        }
        Ok(())
    }
}

fn kernel_can_refuse() -> bool {
    let action: u32 = libc::SECCOMP_RET_ERRNO;
    #[expect(unsafe_code, reason = "no wrapper knows this question")]
    // SAFETY: the kernel reads one number, which outlives the call, and changes nothing.
    let answer =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0_u32, &raw const action) };
    answer == 0
}

fn programs() -> Result<Vec<BpfProgram>, BackendError> {
    let mut refused: BTreeMap<i64, Vec<SeccompRule>> =
        REFUSED.iter().map(|number| (*number, Vec::new())).collect();
    let namespaces = NAMESPACES.iter().map(|flag| {
        let flag = u64::from(flag.cast_unsigned());
        let is_set = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(flag), flag)?;
        SeccompRule::new(vec![is_set])
    });
    refused.insert(libc::SYS_clone, namespaces.collect::<Result<_, _>>()?);
    // The flags of `clone3` lie in memory, where a filter cannot look. Without it, as on old kernels,
    // the C library uses `clone`.
    let unknown = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let mut programs = vec![filter(refused, libc::EPERM)?, filter(unknown, libc::ENOSYS)?];
    refuse_foreign_numbers(&mut programs[0]);
    Ok(programs)
}

fn filter(refused: BTreeMap<i64, Vec<SeccompRule>>, with: libc::c_int) -> Result<BpfProgram, BackendError> {
    let refusal = SeccompAction::Errno(with.cast_unsigned());
    let machine = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(refused, SeccompAction::Allow, refusal, machine)?.try_into()
}

/// On x86-64 a second set of the same calls (x32) begins at this number; nothing here is built for it.
/// No other machine has calls from there on.
const FOREIGN_FROM: u32 = 0x4000_0000;

fn refuse_foreign_numbers(program: &mut BpfProgram) {
    let step = |code: u32, jf: u8, k: u32| seccompiler::sock_filter { code: code as u16, jt: 0, jf, k };
    // The number is the first word that a filter is shown.
    let steps = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 1, FOREIGN_FROM),
        step(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned()),
    ];
    program.splice(0..0, steps);
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::process::Command;

    use super::*;
    use crate::{Exit, Launch, Sandbox, SpawnId};

    /// Makes a call by its number. Only with arguments that no call of that number takes.
    fn call(number: libc::c_long, arguments: [libc::c_long; 6]) -> Result<libc::c_long, i32> {
        let [a, b, c, d, e, f] = arguments;
        #[expect(unsafe_code, reason = "what is refused are system calls")]
        // SAFETY: where it is not refused it fails: no pointer is one, no number means anything.
        let answer = unsafe { libc::syscall(number, a, b, c, d, e, f) };
        if answer < 0 { Err(io::Error::last_os_error().raw_os_error().unwrap_or(0)) } else { Ok(answer) }
    }

    fn errno(number: libc::c_long) -> Option<i32> {
        call(number, [-1; 6]).err()
    }

    /// Reads a word of this process the way another would be read.
    fn look_into_a_process() -> Result<u64, i32> {
        let (from, mut to) = (7_u64, 0_u64);
        let local = libc::iovec { iov_base: (&raw mut to).cast(), iov_len: size_of::<u64>() };
        let remote = libc::iovec { iov_base: (&raw const from).cast_mut().cast(), iov_len: size_of::<u64>() };
        #[expect(unsafe_code, reason = "what is refused is a system call")]
        // SAFETY: both words outlive the call.
        let read =
            unsafe { libc::process_vm_readv(libc::getpid(), &raw const local, 1, &raw const remote, 1, 0) };
        if read == 8 { Ok(to) } else { Err(io::Error::last_os_error().raw_os_error().unwrap_or(0)) }
    }

    /// A new process in a user namespace of its own; it ends at once.
    fn make_a_namespace() -> Result<libc::c_long, i32> {
        let flags = libc::c_long::from(libc::CLONE_NEWUSER | libc::SIGCHLD);
        let made = call(libc::SYS_clone, [flags, 0, 0, 0, 0, 0]);
        if made == Ok(0) {
            #[expect(unsafe_code, reason = "a copy of a process with threads may only leave")]
            // SAFETY: async-signal-safe.
            unsafe {
                libc::_exit(0)
            }
        }
        made
    }

    /// What an engine on a card lives by, and the like of what is refused.
    const LEFT_ALONE: &[libc::c_long] = &[
        libc::SYS_ioctl,
        libc::SYS_mmap,
        libc::SYS_mlock,
        libc::SYS_madvise,
        libc::SYS_mbind,
        libc::SYS_set_mempolicy,
        libc::SYS_sched_setaffinity,
        libc::SYS_memfd_create,
        libc::SYS_eventfd2,
        libc::SYS_kcmp,
        libc::SYS_openat,
        libc::SYS_execve,
    ];

    /// POOLD-SANDBOX-003
    #[test]
    fn each_refused_call_fails_whatever_it_asks_and_no_other_does() {
        let refused = |number: &libc::c_long| errno(*number) == Some(libc::EPERM);
        assert!(!REFUSED.iter().all(refused), "without the filter some say something else");
        let before: Vec<Option<i32>> = LEFT_ALONE.iter().map(|number| errno(*number)).collect();
        let filter = Filter::prepare().expect("this kernel has seccomp");
        // A filter is a thread's own, and ends with it.
        let confined = std::thread::spawn(move || {
            filter.enter().expect("the filter goes on");
            let others = REFUSED.iter().filter(|number| !refused(number));
            let after: Vec<Option<i32>> = LEFT_ALONE.iter().map(|number| errno(*number)).collect();
            let x32 = cfg!(target_arch = "x86_64").then(|| errno(libc::SYS_getpid + 0x4000_0000));
            (others.collect::<Vec<_>>(), after, x32, errno(libc::SYS_clone3))
        });
        let (not_refused, after, x32, clone3) = confined.join().unwrap();
        assert_eq!(not_refused, Vec::<&libc::c_long>::new());
        assert_eq!(after, before, "of what is left alone");
        assert!(x32.is_none_or(|errno| errno == Some(libc::EPERM)), "{x32:?}");
        assert_eq!(clone3, Some(libc::ENOSYS));
    }

    const CONFINED: &str = "A_CONFINED_PROCESS";

    /// What a confined process says of itself: this program, started as an engine is.
    fn say_what_is_refused() {
        println!("look={:?}", look_into_a_process());
        println!("namespace={:?}", make_a_namespace());
        println!("clone3={:?}", errno(libc::SYS_clone3));
        println!("thread={:?}", std::thread::spawn(look_into_a_process).join().unwrap());
        let below = Command::new("/bin/sh").args(["-c", "grep Seccomp: /proc/self/status"]).output().unwrap();
        println!("below={}", String::from_utf8_lossy(&below.stdout).trim());
    }

    /// POOLD-SANDBOX-003
    #[tokio::test]
    async fn a_confined_process_and_all_that_it_starts_are_refused_what_leads_out() {
        if std::env::var_os(CONFINED).is_some() {
            return say_what_is_refused();
        }
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let file = OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let name = "syscalls::tests::a_confined_process_and_all_that_it_starts_are_refused_what_leads_out";
        let child = Launch::new(std::env::current_exe().unwrap(), SpawnId::generate(), file)
            .args([name, "--exact", "--nocapture"])
            .env(CONFINED, "1")
            .sandbox(Sandbox { read: vec!["/".into()], ..Sandbox::default() })
            .spawn()
            .unwrap();
        let exit = child.exited().await.unwrap();
        let said = std::fs::read_to_string(log).unwrap();
        assert_eq!(exit, Exit::Code(0), "{said}");
        let refused = format!("Err({})", libc::EPERM);
        let lines = [
            format!("look={refused}"),
            format!("namespace={refused}"),
            format!("clone3=Some({})", libc::ENOSYS),
            format!("thread={refused}"),
            "below=Seccomp:\t2".to_owned(),
        ];
        for line in lines {
            assert!(said.lines().any(|said| said.ends_with(&line)), "no {line:?} in {said}");
        }
    }
}
