//! Writes small random-weight GGUF files for tests.
