//! Starting processes right; the only unsafe code in the workspace.
