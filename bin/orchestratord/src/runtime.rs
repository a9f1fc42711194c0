//! The async runtime, and how many threads it gets.

use std::io;
use std::num::NonZero;
use std::thread::available_parallelism;

use tokio::runtime::{Builder, Runtime};

/// Says another number of threads; it is tokio's own, and tokio reads it.
const VARIABLE: &str = "TOKIO_WORKER_THREADS";

/// Cores for each thread. A token is so little work that waking a second thread for it costs more than it
/// saves: on two cores one thread instead of two took 0.6 to 0.8 times the processor time per token, and a
/// token was on its way for a shorter time with 16 streams and with 1,024. What is left is the engines'.
const CORES_PER_THREAD: usize = 4;

/// A runtime for all that orchestratord does. `serves`: it is there for its clients alone, and nothing waits
/// for a terminal.
pub fn build(serves: bool) -> io::Result<Runtime> {
    let said = std::env::var_os(VARIABLE).is_some();
    let threads = threads(available_parallelism().map_or(1, NonZero::get));
    if serves && !said && threads == 1 {
        // One thread needs none of what shares work between several.
        return Builder::new_current_thread().enable_all().build();
    }
    let mut builder = Builder::new_multi_thread();
    if !said {
        builder.worker_threads(threads);
    }
    builder.enable_all().build()
}

fn threads(cores: usize) -> usize {
    (cores / CORES_PER_THREAD).max(1)
}

#[cfg(test)]
mod tests {
    use super::threads;

    /// STREAM-012
    #[test]
    fn a_quarter_of_the_cores_carry_streams_and_there_is_always_one() {
        assert_eq!([1, 2, 4, 7, 8, 16, 64].map(threads), [1, 1, 1, 1, 2, 4, 16]);
    }
}
