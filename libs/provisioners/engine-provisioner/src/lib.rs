//! Prepares an engine: preflight, fetch, build, stage the model, and return a
//! [`wire::PreparedEngine`] *value*.
//!
//! It never starts an engine (a new binary is asked for its version and its flags, and ends), probes one, or writes PID or handoff files: that is pool-managerd's
//! work, and a test over these sources holds it. Short-lived helpers (pip, git, CMake, the compiler)
//! run through one module, `helper`, from a closed list. Everything blocks; call it off the async
//! threads. What was built before is found again in milliseconds, without running any of them.
#![forbid(unsafe_code)]

mod argv;
mod build;
mod bundle;
mod check;
mod cuda;
mod engine;
mod error;
mod flags;
mod gpu;
mod healing;
mod helper;
mod host;
mod issue;
mod key;
mod libraries;
mod manifest;
mod memory;
mod observer;
mod packages;
mod plan;
mod preflight;
mod provisioner;
mod recipe;
mod sbom;
mod signals;
mod source;
mod store;
mod survey;
mod tools;
mod upkeep;
mod verifier;

pub use bundle::{BundleError, Bundled, import as import_bundle};
pub use check::check_pool;
pub use devices::{Discover, Inventory};
pub use error::{Attempt, EnsureError, FailureKind};
pub use host::Host;
pub use observer::Observer;
pub use plan::{Blocker, Plan, Verdict};
pub use preflight::{Check, Finding, Report};
pub use provisioner::EngineProvisioner;
pub use provisioners_model_provisioner::Cancel;
pub use signals::cancel_on_signal;
pub use upkeep::{EngineEntry, EngineStore, EngineVerdict, GcRules, Removal, UnfinishedBuild};
