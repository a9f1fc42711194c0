//! Why an engine was lost, from how it ended and what it wrote last: a cause for programs, and for
//! people one sentence and what to do. The phrases are those of llama.cpp and of the loaders below.

use child::Exit;

/// How a process ended, and when in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    /// Its exit.
    pub exit: Exit,
    /// It had been ready.
    pub served: bool,
    /// The kernel's memory killer was at work in its group while it lived.
    pub memory_killer: bool,
}

/// Classes of loss; [`as_str`](Cause::as_str) is their name on the wire and in metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// It ended without an error, though nobody here asked it to.
    Clean,
    /// It returned a code, for no reason known here.
    Exit,
    /// A signal ended it.
    Signal,
    /// It is gone, and nobody can say how: it was adopted, and the kernel has not told.
    Unknown,
    /// It does not know or accept a flag.
    BadFlag,
    /// The model file is not there.
    ModelNotFound,
    /// The model file is not a whole model that this engine knows.
    ModelCorrupt,
    /// A shared library is missing.
    MissingLibrary,
    /// The GPU driver, the card or the processor does not fit the build.
    DriverMismatch,
    /// The machine's memory was not enough, or a limit left it too little.
    OutOfMemory,
    /// The kernel's memory killer ended it.
    OomKilled,
    /// The card's memory was not enough.
    DeviceOutOfMemory,
    /// Somebody else had the port.
    PortTaken,
    /// It did not become ready in time.
    StartupTimeout,
    /// It said it was ready but could not do the first thing it was asked: a token, a vector or a score.
    CanaryFailed,
    /// It stopped answering.
    Hung,
    /// A signal stopped it, and nobody let it go on.
    Suspended,
    /// Healthy by its own words, yet it generated nothing in all its life.
    Mute,
    /// It generated, and then no more, though it was busy.
    Stalled,
    /// It was to be confined, and this machine cannot.
    NoSandbox,
    /// There is too little memory for it.
    InsufficientMemory,
    /// It could not be started at all.
    Launch,
    /// Its engine or model could not be prepared.
    Provisioning,
}

impl Cause {
    /// The name on the wire and in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Exit => "exit",
            Self::Signal => "signal",
            Self::Unknown => "unknown",
            Self::BadFlag => "bad_flag",
            Self::ModelNotFound => "model_not_found",
            Self::ModelCorrupt => "model_corrupt",
            Self::MissingLibrary => "missing_library",
            Self::DriverMismatch => "driver_mismatch",
            Self::OutOfMemory => "out_of_memory",
            Self::OomKilled => "oom_killed",
            Self::DeviceOutOfMemory => "device_out_of_memory",
            Self::PortTaken => "port_taken",
            Self::StartupTimeout => "startup_timeout",
            Self::CanaryFailed => "canary_failed",
            Self::Hung => "hung",
            Self::Suspended => "suspended",
            Self::Mute => "mute",
            Self::Stalled => "stalled",
            Self::NoSandbox => "no_sandbox",
            Self::InsufficientMemory => "insufficient_memory",
            Self::Launch => "launch",
            Self::Provisioning => "provisioning",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Clean => "somebody sent it SIGTERM or SIGINT; to end a pool's engines, drain it",
            Self::Exit | Self::Unknown => "read the engine's last lines and its log file",
            Self::Signal => {
                "SIGKILL comes from outside (the kernel's memory killer was not at work); SIGSEGV, SIGILL or \
                 SIGABRT are defects of the engine or of its build"
            }
            Self::BadFlag => "correct `flags` of the pool, then preload it",
            Self::ModelNotFound => {
                "check `model` of the pool and that the file is still there, then preload it"
            }
            Self::ModelCorrupt => {
                "fetch the model again, or use an engine that knows its architecture, then preload the pool"
            }
            Self::MissingLibrary => {
                "install the library or build the engine again on this machine, then preload the pool"
            }
            Self::DriverMismatch => {
                "update the NVIDIA driver, or build the engine again on this machine, then preload the pool"
            }
            Self::OutOfMemory => {
                "lower `ctx` or `slots`, use a smaller quantisation, free memory, or raise the limits (ulimit, \
                 LimitAS=, TasksMax=)"
            }
            Self::OomKilled => {
                "lower `ctx` or `slots`, use a smaller quantisation, free memory, or raise the limit of its group \
                 (MemoryMax=)"
            }
            Self::DeviceOutOfMemory => {
                "lower `ctx` or `slots`, offload fewer layers (--n-gpu-layers), or free memory on the card"
            }
            Self::PortTaken => "another port is tried at once",
            Self::StartupTimeout => {
                "see in the engine's log what it was doing; a slow disk needs a smaller model"
            }
            Self::CanaryFailed => {
                "try the engine by hand with the flags shown; it loads but does not do what the pool's `kind` asks"
            }
            Self::Hung => {
                "it was killed and starts again; if it repeats, look at the card and the engine's log"
            }
            Self::Suspended => {
                "find what sent it SIGSTOP (a debugger, a shell, a freezer); it was killed and starts again"
            }
            Self::Mute => {
                "try the engine by hand with the flags shown: it says that it is healthy but does not generate"
            }
            Self::Stalled => {
                "it was killed and starts again; if it repeats, look at the card (dmesg, nvidia-smi) and the engine's log"
            }
            Self::NoSandbox => {
                "correct `sandbox` of the pool (false runs the engine unconfined), then preload it"
            }
            Self::InsufficientMemory => {
                "it starts by itself when another engine gives memory back; or lower `ctx` or `slots`, use a smaller \
                 quantisation, name other `devices`, or set `allow_oversubscribe: true` of the pool"
            }
            Self::Launch => "check the path, its permissions, and the free space of the runtime directory",
            Self::Provisioning => "correct what the message names, then preload the pool",
        }
    }

    /// What a loss for this cause counts towards the breaker: an engine that never generates wastes the
    /// most, because everything else about it looks well.
    #[must_use]
    pub fn weight(self) -> u32 {
        if matches!(self, Self::Mute | Self::CanaryFailed) { 2 } else { 1 }
    }

    /// Whether trying again without a change is pointless.
    #[must_use]
    pub fn needs_a_change(self) -> bool {
        matches!(
            self,
            Self::BadFlag
                | Self::ModelNotFound
                | Self::ModelCorrupt
                | Self::MissingLibrary
                | Self::DriverMismatch
                | Self::NoSandbox
                | Self::InsufficientMemory
                | Self::Provisioning
        )
    }
}

/// Phrases and their causes; the first that occurs decides, so the specific come first.
const PHRASES: &[(&str, Cause)] = &[
    ("couldn't bind HTTP server socket", Cause::PortTaken),
    ("Address already in use", Cause::PortTaken),
    ("error: invalid argument", Cause::BadFlag),
    ("error: unknown argument", Cause::BadFlag),
    ("error: unknown value for", Cause::BadFlag),
    ("error while handling argument", Cause::BadFlag),
    ("error: the argument has been removed", Cause::BadFlag),
    ("error while loading shared libraries", Cause::MissingLibrary),
    ("' not found (required by", Cause::MissingLibrary),
    ("CUDA driver version is insufficient", Cause::DriverMismatch),
    ("no kernel image is available", Cause::DriverMismatch),
    ("device kernel image is invalid", Cause::DriverMismatch),
    ("compiled with an unsupported toolchain", Cause::DriverMismatch),
    ("unsupported display driver / cuda driver combination", Cause::DriverMismatch),
    ("forward compatibility was attempted on non supported HW", Cause::DriverMismatch),
    ("cudaMalloc failed: out of memory", Cause::DeviceOutOfMemory),
    ("CUDA error: out of memory", Cause::DeviceOutOfMemory),
    ("unable to allocate CUDA", Cause::DeviceOutOfMemory),
    ("ErrorOutOfDeviceMemory", Cause::DeviceOutOfMemory),
    ("std::bad_alloc", Cause::OutOfMemory),
    ("unable to allocate CPU", Cause::OutOfMemory),
    ("ggml_aligned_malloc: insufficient memory", Cause::OutOfMemory),
    ("failed to allocate buffer", Cause::OutOfMemory),
    ("Cannot allocate memory", Cause::OutOfMemory),
    // A thread that cannot be made: no address space for its stack, or no process left to be had.
    ("what():  Resource temporarily unavailable", Cause::OutOfMemory),
    ("No such file or directory)", Cause::ModelNotFound),
    ("invalid magic", Cause::ModelCorrupt),
    ("missing tensor", Cause::ModelCorrupt),
    ("unknown model architecture", Cause::ModelCorrupt),
    ("is not within the file bounds", Cause::ModelCorrupt),
    ("model is corrupted or incomplete", Cause::ModelCorrupt),
    ("error loading model", Cause::ModelCorrupt),
];

const SIGKILL: i32 = 9;
const SIGILL: i32 = 4;

/// The cause of an exit. Words in the log decide only about an engine that had not served yet: one
/// that served has printed much that merely looks like an error.
#[must_use]
pub fn classify(ending: Ending, log: &[String]) -> Cause {
    let plain = match ending.exit {
        Exit::Code(0) => return Cause::Clean,
        Exit::Signal(SIGKILL) if ending.memory_killer => return Cause::OomKilled,
        // An instruction that this processor does not have is met at once.
        Exit::Signal(SIGILL) if !ending.served => return Cause::DriverMismatch,
        Exit::Code(_) => Cause::Exit,
        Exit::Signal(_) => Cause::Signal,
        Exit::Unknown => Cause::Unknown,
    };
    let memory = |cause| matches!(cause, Cause::OutOfMemory | Cause::DeviceOutOfMemory);
    PHRASES
        .iter()
        .filter(|(_, cause)| !ending.served || memory(*cause))
        .find(|(phrase, _)| log.iter().any(|line| line.contains(phrase)))
        .map_or(plain, |(_, cause)| *cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(exit: Exit, memory_killer: bool, log: &[&str]) -> Cause {
        let log: Vec<String> = log.iter().map(|line| (*line).to_owned()).collect();
        classify(Ending { exit, served: true, memory_killer }, &log)
    }

    /// POOLD-CAUSE-001
    #[test]
    fn an_engine_that_served_is_not_failed_for_words_in_its_log() {
        let request = ["error: invalid argument: in a user's request"];
        assert_eq!(served(Exit::Signal(11), false, &request), Cause::Signal);
        assert_eq!(served(Exit::Signal(4), false, &[]), Cause::Signal);
        assert_eq!(served(Exit::Code(0), false, &request), Cause::Clean);
        assert_eq!(served(Exit::Signal(6), false, &["CUDA error: out of memory"]), Cause::DeviceOutOfMemory);
    }

    /// POOLD-CAUSE-002
    #[test]
    fn a_cause_that_nobody_can_know_is_not_guessed() {
        assert_eq!(served(Exit::Unknown, true, &[]), Cause::Unknown);
        assert_eq!(served(Exit::Signal(9), false, &[]), Cause::Signal);
        assert_eq!(served(Exit::Signal(9), true, &[]), Cause::OomKilled);
        assert_eq!(served(Exit::Signal(11), true, &[]), Cause::Signal);
    }
}
