//! pool-managerd, as a request gives it orders: on the request's own account, so that what is done for
//! it there is part of its trace.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use http::request::Parts;
use wire::{ErrorBody, ErrorCode, PoolId};

use super::AppState;
use super::error::ApiError;
use crate::pool_manager::{OrderError, PoolManagerClient};

/// Who runs the pools; `None` where none is configured: engines that others run take no orders.
pub(super) struct Manager(pub(super) Option<PoolManagerClient>);

impl FromRequestParts<AppState> for Manager {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Infallible> {
        let client = state.link.client();
        Ok(Self(client.map(|client| client.on_account_of(&state.traces, parts.extensions.get()))))
    }
}

impl Manager {
    /// Who runs a pool.
    pub(super) fn of(&self, pool: &PoolId) -> Result<&PoolManagerClient, ApiError> {
        self.0.as_ref().ok_or_else(|| {
            let message =
                format!("pool {pool} is run by someone else: this orchestratord has no pool-managerd");
            ErrorBody::new(ErrorCode::NotFound, message).pool(pool.clone()).into()
        })
    }
}

/// Why an order about a pool (or about all) came to nothing.
pub(super) fn not_taken(error: OrderError, pool: Option<&PoolId>) -> ApiError {
    let mut body = match error {
        OrderError::Refused(body) => *body,
        OrderError::Unreachable { .. } => {
            tracing::warn!(error = &error as &dyn std::error::Error, "an order did not reach pool-managerd");
            ErrorBody::new(ErrorCode::PoolUnready, error.to_string()).retry_after_ms(2_000)
        }
    };
    body.pool_id = body.pool_id.or_else(|| pool.cloned());
    body.into()
}
