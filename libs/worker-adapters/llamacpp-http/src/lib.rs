//! Speaks llama-server's HTTP protocol.
