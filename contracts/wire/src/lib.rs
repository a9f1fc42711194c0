//! The types that cross a process boundary: ids, config, `PreparedEngine`, `Handoff`, tasks,
//! events, errors and the list of HTTP operations.
//!
//! Pure data: no I/O, no clocks, no async runtime. The JSON Schemas and OpenAPI documents in
//! `contracts/` are generated from these types (`cargo xtask regen-schema`, `regen-openapi`).
#![forbid(unsafe_code)]

pub mod anthropic;
pub mod artifact;
pub mod catalog;
pub mod config;
pub mod dashboard;
pub mod determinism;
pub mod device;
pub mod error;
pub mod event;
pub mod handoff;
pub mod ids;
pub mod meta;
pub mod model;
pub mod openai;
pub mod operation;
pub mod operations;
pub mod pool;
pub mod prepared;
mod raw_json;
pub mod receipt;
pub mod responses;
pub mod seed;
pub mod session;
pub mod split;
pub mod streams;
pub mod task;
mod timestamp;
pub mod trace;
pub mod usage;
pub mod worker;

pub use artifact::{ArtifactStored, Transcript};
pub use catalog::CatalogModel;
pub use determinism::{Determinism, SelfTest};
pub use device::{Device, DeviceList, DeviceUser};
pub use error::{ErrorBody, ErrorCode, ErrorEnvelope};
pub use event::EngineChunk;
pub use handoff::{Handoff, HandoffModel, HandoffState};
pub use ids::{CorrelationId, IdError, OperationId, PoolId, ReplicaId, ReplicaKey, SessionId, TaskId};
pub use meta::{ConfigView, Health, Readiness, Version};
pub use model::{ModelPart, ModelRecord};
pub use operation::{OperationKind, OperationState, OperationView};
pub use pool::{PerformanceHints, Phase, PoolHealth, PoolView, ReplicaView, Wanted};
pub use prepared::{MemoryEstimate, PreparedEngine};
pub use raw_json::RawJson;
pub use receipt::{EffectiveSampling, EngineFacts, Receipt, SlotMode};
pub use seed::Seed;
pub use session::SessionView;
pub use split::SplitName;
pub use task::{PreparationStep, StepKind, StepStatus, TaskRequest, TaskState, TaskView};
pub use timestamp::rfc3339;
pub use trace::{SpanId, TraceContext, TraceId};
