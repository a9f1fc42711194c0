//! Evidence of a test run, as files a person can read.
