//! What a program that prepares engines does when it is asked to stop: without this it would end at once, and
//! what it started, in groups of their own, would build on.

use provisioners_model_provisioner::Cancel;

/// Ctrl-C and TERM ask the work to stop; it then kills its helpers and returns.
///
/// # Errors
/// When signals cannot be listened for.
pub fn cancel_on_signal(cancel: &Cancel) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let guard = runtime.enter();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    drop(guard);
    let cancel = cancel.clone();
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        cancel.cancel();
    });
    Ok(())
}
