//! Prepares an engine and returns a PreparedEngine.
