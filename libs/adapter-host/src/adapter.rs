//! The trait an engine adapter implements.

use std::future::Future;
use std::pin::Pin;

use wire::{ErrorBody, TraceContext};

use crate::{ChatRequest, EngineRequest, TokenStream};

/// A boxed future, so that adapters can be held as trait objects.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One engine, as dispatch sees it.
pub trait WorkerAdapter: Send + Sync + 'static {
    /// Starts a generation. Resolves once the engine has accepted it; dropping the returned stream
    /// cancels it on the engine. The trace that it belongs to is told to the engine.
    fn submit(
        &self,
        request: EngineRequest,
        trace: Option<TraceContext>,
    ) -> BoxFuture<'_, Result<TokenStream, SubmitError>>;

    /// Asks whether the engine would take work now. Cheap; the caller sets the time limit.
    fn probe(&self) -> BoxFuture<'_, Result<Probed, ProbeError>>;

    /// Counts tokens of a text with the engine's own tokenizer.
    fn count_tokens<'a>(
        &'a self,
        text: &'a str,
        trace: Option<&'a TraceContext>,
    ) -> BoxFuture<'a, Result<u64, SubmitError>>;

    /// Counts the tokens of a chat's prompt as the engine would read it: with its template and tools.
    /// Of text only.
    fn count_chat<'a>(
        &'a self,
        chat: &'a ChatRequest,
        trace: Option<&'a TraceContext>,
    ) -> BoxFuture<'a, Result<u64, SubmitError>>;
}

/// What a good probe says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probed {
    /// Slots the engine offers, where it says so.
    pub slots_total: Option<u32>,
    /// Context per slot, where it says so.
    pub ctx: Option<u32>,
    /// SHA-256 (hex) of the chat template, where it says that.
    pub chat_template_sha256: Option<String>,
}

/// Why a probe failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// The engine is loading its model.
    #[error("the engine is still loading")]
    Loading,
    /// Nobody answered, or not as an engine does.
    #[error("the engine does not answer: {0}")]
    Unreachable(String),
}

/// Why a generation did not begin. Nothing was generated.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SubmitError {
    /// The engine refused the request; another replica would too.
    #[error("the engine refused the request: {}", .0.message)]
    Refused(Box<ErrorBody>),
    /// The engine could not be reached or broke off; another replica may do.
    #[error("the engine was lost: {0}")]
    Lost(String),
}
