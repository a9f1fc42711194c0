//! llama-server's surface with deterministic tokens and fault switches.
