//! Every task's events in order; replay from any index.
