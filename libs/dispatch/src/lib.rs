//! Admission, placement and dispatch: the control plane without its edges.
