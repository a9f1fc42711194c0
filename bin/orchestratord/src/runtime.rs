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

/// A runtime for all that orchestratord does. `serves`: it is there for its clients, and says no more at its
/// terminal than its log does; who waits for a person has a thread for that.
pub fn build(serves: bool) -> io::Result<Runtime> {
    let said = std::env::var(VARIABLE).ok();
    match said.as_deref() {
        None => of(serves, threads(available_parallelism().map_or(1, NonZero::get))),
        Some("1") => of(serves, 1),
        Some(_) => Builder::new_multi_thread().enable_all().build(),
    }
}

fn of(serves: bool, threads: usize) -> io::Result<Runtime> {
    if serves && threads == 1 {
        // One thread needs none of what shares work between several.
        return Builder::new_current_thread().enable_all().build();
    }
    Builder::new_multi_thread().worker_threads(threads).enable_all().build()
}

fn threads(cores: usize) -> usize {
    (cores / CORES_PER_THREAD).max(1)
}

#[cfg(test)]
mod tests {
    use tokio::runtime::RuntimeFlavor::{CurrentThread, MultiThread};

    use super::{of, threads};

    /// STREAM-012
    #[test]
    fn a_quarter_of_the_cores_carry_streams_and_there_is_always_one() {
        assert_eq!([1, 2, 4, 7, 8, 16, 64].map(threads), [1, 1, 1, 1, 2, 4, 16]);
    }

    /// STREAM-012
    #[test]
    fn one_thread_that_serves_shares_its_work_with_nobody() {
        for (serves, threads, flavor) in
            [(true, 1, CurrentThread), (true, 2, MultiThread), (false, 1, MultiThread)]
        {
            let runtime = of(serves, threads).unwrap();
            assert_eq!(runtime.handle().runtime_flavor(), flavor, "{serves} {threads}");
        }
    }
}
