//! Tells the compiler which commit the program is built from. Outside a git checkout nothing is told, and the
//! program says that it does not know.

mod commit;

use std::io::Write;
use std::path::Path;

fn main() -> std::io::Result<()> {
    let root = Path::new("../..");
    let sources = commit::sources(root);
    let mut cargo = std::io::stdout().lock();
    // Not the checkout's head: a commit that changes nothing of the program builds nothing again, and the one
    // that was told stays true.
    for path in sources.iter().map(|path| root.join(path)).chain(["build".into()]) {
        writeln!(cargo, "cargo::rerun-if-changed={}", path.display())?;
    }
    if let Some(commit) = commit::of(root, &sources) {
        writeln!(cargo, "cargo::rustc-env=LLAMA_ORCH_COMMIT={}", commit.id)?;
        writeln!(cargo, "cargo::rustc-env=LLAMA_ORCH_MODIFIED={}", commit.modified)?;
    }
    Ok(())
}
