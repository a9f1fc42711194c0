//! The whole journey on the real engine.
