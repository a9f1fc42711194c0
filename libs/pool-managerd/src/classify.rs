//! Why an engine was lost, from how it ended and what it wrote last: a cause for programs, and for
//! people one sentence and what to do. The phrases are those of llama.cpp and of the loaders below.

use child::Exit;

/// Classes of loss; [`as_str`](Cause::as_str) is their name on the wire and in metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// It returned a code, for no reason known here.
    Exit,
    /// A signal ended it.
    Signal,
    /// It is gone; it was adopted, so nobody can say how.
    Unknown,
    /// It does not know or accept a flag.
    BadFlag,
    /// The model file is not there.
    ModelNotFound,
    /// The model file is not a whole model that this engine knows.
    ModelCorrupt,
    /// A shared library is missing.
    MissingLibrary,
    /// The GPU driver or the card does not fit the build.
    DriverMismatch,
    /// The machine's memory was not enough.
    OutOfMemory,
    /// The card's memory was not enough.
    DeviceOutOfMemory,
    /// Somebody else had the port.
    PortTaken,
    /// It did not become ready in time.
    StartupTimeout,
    /// It said it was ready but could not complete one token.
    CanaryFailed,
    /// It stopped answering.
    Hung,
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
            Self::Exit => "exit",
            Self::Signal => "signal",
            Self::Unknown => "unknown",
            Self::BadFlag => "bad_flag",
            Self::ModelNotFound => "model_not_found",
            Self::ModelCorrupt => "model_corrupt",
            Self::MissingLibrary => "missing_library",
            Self::DriverMismatch => "driver_mismatch",
            Self::OutOfMemory => "out_of_memory",
            Self::DeviceOutOfMemory => "device_out_of_memory",
            Self::PortTaken => "port_taken",
            Self::StartupTimeout => "startup_timeout",
            Self::CanaryFailed => "canary_failed",
            Self::Hung => "hung",
            Self::Launch => "launch",
            Self::Provisioning => "provisioning",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Exit | Self::Unknown => "read the engine's last lines and its log file",
            Self::Signal => {
                "SIGKILL from outside is usually the kernel's out-of-memory killer (see dmesg); \
                 SIGSEGV, SIGILL or SIGABRT are defects of the engine or of its build"
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
            Self::DriverMismatch => "update the NVIDIA driver, or build the engine again for this card",
            Self::OutOfMemory => "lower `ctx` or `slots`, use a smaller quantisation, or free memory",
            Self::DeviceOutOfMemory => {
                "lower `ctx` or `slots`, offload fewer layers (--n-gpu-layers), or free memory on the card"
            }
            Self::PortTaken => "another port is tried at once",
            Self::StartupTimeout => {
                "see in the engine's log what it was doing; a slow disk needs a smaller model"
            }
            Self::CanaryFailed => {
                "try the engine by hand with the flags shown; it loads but does not generate"
            }
            Self::Hung => {
                "it was killed and starts again; if it repeats, look at the card and the engine's log"
            }
            Self::Launch => "check the path, its permissions, and the free space of the runtime directory",
            Self::Provisioning => "correct what the message names, then preload the pool",
        }
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
    ("CUDA driver version is insufficient", Cause::DriverMismatch),
    ("no kernel image is available", Cause::DriverMismatch),
    ("cudaMalloc failed: out of memory", Cause::DeviceOutOfMemory),
    ("CUDA error: out of memory", Cause::DeviceOutOfMemory),
    ("unable to allocate CUDA", Cause::DeviceOutOfMemory),
    ("ErrorOutOfDeviceMemory", Cause::DeviceOutOfMemory),
    ("std::bad_alloc", Cause::OutOfMemory),
    ("unable to allocate CPU", Cause::OutOfMemory),
    ("ggml_aligned_malloc: insufficient memory", Cause::OutOfMemory),
    ("failed to allocate buffer", Cause::OutOfMemory),
    ("No such file or directory)", Cause::ModelNotFound),
    ("invalid magic", Cause::ModelCorrupt),
    ("missing tensor", Cause::ModelCorrupt),
    ("unknown model architecture", Cause::ModelCorrupt),
    ("is not within the file bounds", Cause::ModelCorrupt),
    ("model is corrupted or incomplete", Cause::ModelCorrupt),
    ("error loading model", Cause::ModelCorrupt),
];

/// The cause of an exit. Words in the log decide only about an engine that had not served yet: one
/// that served has printed much that merely looks like an error.
#[must_use]
pub fn classify(exit: Exit, served: bool, log: &[String]) -> Cause {
    let plain = match exit {
        Exit::Code(_) => Cause::Exit,
        Exit::Signal(_) => Cause::Signal,
        Exit::Unknown => Cause::Unknown,
    };
    let memory = |cause| matches!(cause, Cause::OutOfMemory | Cause::DeviceOutOfMemory);
    PHRASES
        .iter()
        .filter(|(_, cause)| !served || memory(*cause))
        .filter(|_| exit != Exit::Code(0))
        .find(|(phrase, _)| log.iter().any(|line| line.contains(phrase)))
        .map_or(plain, |(_, cause)| *cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Real last lines of llama-server 0.3.36.
    #[test]
    fn real_messages_of_the_engine_are_understood() {
        let cases = [
            ("error: invalid argument: --bogus", Cause::BadFlag),
            ("error while handling argument \"--parallel\": stoi", Cause::BadFlag),
            (
                "0.00.007.149 E gguf_init_from_file: failed to open GGUF file '/nope.gguf' (No such file or directory)",
                Cause::ModelNotFound,
            ),
            (
                "0.00.007.538 E gguf_init_from_reader: invalid magic characters: 'a=kg', expected 'GGUF'",
                Cause::ModelCorrupt,
            ),
            (
                "E srv         start: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 18999",
                Cause::PortTaken,
            ),
            (
                "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 9000.00 MiB on device 0: cudaMalloc failed: out of memory",
                Cause::DeviceOutOfMemory,
            ),
            (
                "llama-server: error while loading shared libraries: libgomp.so.1: cannot open shared object file: No such file or directory",
                Cause::MissingLibrary,
            ),
            ("something else", Cause::Exit),
        ];
        for (line, cause) in cases {
            let log = ["init".to_owned(), line.to_owned(), "exiting due to model loading error".to_owned()];
            assert_eq!(classify(Exit::Code(1), false, &log), cause, "{line}");
        }
    }

    #[test]
    fn an_engine_that_served_is_not_failed_for_words_in_its_log() {
        let log = ["error: invalid argument: in a user's request".to_owned()];
        assert_eq!(classify(Exit::Signal(11), true, &log), Cause::Signal);
        assert_eq!(classify(Exit::Code(0), false, &log), Cause::Exit);
        let log = ["CUDA error: out of memory".to_owned()];
        assert_eq!(classify(Exit::Signal(6), true, &log), Cause::DeviceOutOfMemory);
    }

    #[test]
    fn an_adopted_engine_has_no_guessed_cause() {
        assert_eq!(classify(Exit::Unknown, true, &[]), Cause::Unknown);
    }
}
