//! The control plane: queue, placement, SSE and the OpenAI-compatible front door.
