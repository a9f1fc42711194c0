//! Resolves a model reference to a verified local file.
