//! What is linked into the daemons, and from where: the rules (`deny`), the list (`sbom`), and whether the
//! same sources give the same bytes (`reproducible`).

pub(crate) mod deny;
pub(crate) mod reproducible;
pub(crate) mod sbom;

use std::path::PathBuf;
use std::process::Command;

/// The programs that a user runs: package and binary.
pub(crate) const PROGRAMS: [(&str, &str); 3] = [
    ("orchestratord", "orchestratord"),
    ("pool-managerd", "pool-managerd"),
    ("provisioners-engine-provisioner", "engine-provisioner"),
];

fn cargo() -> Command {
    let mut command = stub_llama::cargo();
    command.current_dir(crate::root());
    command
}

/// Where cargo keeps what it has downloaded.
fn cargo_home() -> Option<PathBuf> {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"));
    std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(home)
}
