//! Reads the configuration file and says where it is wrong.
