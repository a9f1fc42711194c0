//! Runs engines: takes a `PreparedEngine`, starts it, proves that it works, publishes its handoff,
//! watches it, restarts it with ever longer pauses, and adopts engines that outlived an earlier
//! manager. Library and daemon; orchestratord runs the same [`App`] inside its process and speaks to
//! it over the same HTTP API.
//!
//! Builds nothing itself (that is engine-provisioner's, behind [`Prepare`]) and knows no task, queue
//! or placement.
#![forbid(unsafe_code)]

mod admission;
mod app;
mod board;
mod cards;
mod changes;
mod classify;
mod confine;
pub mod daemon;
mod determinism;
mod durable;
mod engine;
mod engine_http;
mod engine_log;
mod follow;
mod from_config;
mod http;
mod launch;
mod loading;
mod log_tail;
mod loss;
mod manager;
mod memory;
mod metrics;
mod operations;
mod orders;
mod pause;
mod prepare;
mod progress;
mod provision;
mod reconcile;
mod record;
mod replica;
mod schedule;
mod service;
mod serving;
mod shared;
mod target;
mod timings;
mod token;
mod watch;

pub use app::{App, AppConfig, Running, StartError};
pub use changes::{EngineChange, PoolChange, PoolDiff};
pub use child::{Holder, holder_of_port};
pub use classify::{Cause, Ending, classify};
pub use devices::{Discover, Inventory};
pub use from_config::AppConfigError;
pub use launch::InheritedEnv;
pub use memory::{AvailableMemory, available as available_memory};
pub use prepare::{Prepare, PrepareError, Progress};
pub use provision::EngineProvisioning;
pub use provisioners_engine_provisioner::Cancel;
pub use schedule::{Next, RestartSchedule};
pub use timings::{ProgressLimits, RestartPolicy, Timings};
pub use token::Token;
