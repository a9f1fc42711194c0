//! Runs engines: spawns, probes, supervises.
