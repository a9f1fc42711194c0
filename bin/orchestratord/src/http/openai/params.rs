//! Parameters that OpenAI's routes share.

use serde_json::Value;

use crate::http::error::ApiError;
use crate::http::validate;

/// A string or a list of strings.
pub(super) fn stops(stop: Option<&Value>) -> Result<Vec<String>, ApiError> {
    let stops = match stop {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::String(stop)) => vec![stop.clone()],
        Some(other) => serde_json::from_value(other.clone())
            .map_err(|_| ApiError::invalid("stop", "stop must be a string or a list of strings"))?,
    };
    validate::stops(stops)
}

/// Engines answer once.
pub(super) fn one_choice(param: &str, n: Option<u32>) -> Result<(), ApiError> {
    match n {
        None | Some(1) => Ok(()),
        Some(_) => {
            let message = format!("only {param} = 1 is served; send the request again for more choices");
            Err(ApiError::invalid(param, message))
        }
    }
}
