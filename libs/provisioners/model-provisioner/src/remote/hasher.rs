//! SHA-256 on a thread of its own. Hashing takes as long as writing does; one after the other, both are
//! slower than a fast line. What waits to be hashed is bounded, so memory stays flat.

use std::sync::mpsc::{SyncSender, sync_channel};

use sha2::{Digest as _, Sha256};

use super::chunk::{AHEAD, Chunk};
use crate::digest::hex;

enum Job {
    Update(Chunk),
    Restart,
    Digest(SyncSender<String>),
}

/// The hash of everything that was handed over, in order.
#[derive(Debug)]
pub(super) struct Hasher {
    jobs: SyncSender<Job>,
}

impl Hasher {
    /// Of nothing. The thread ends with the value.
    pub(super) fn start() -> std::io::Result<Self> {
        let (jobs, received) = sync_channel(AHEAD);
        std::thread::Builder::new().name("sha256".to_owned()).spawn(move || {
            let mut hasher = Sha256::new();
            for job in received {
                match job {
                    Job::Update(bytes) => hasher.update(&*bytes),
                    Job::Restart => hasher = Sha256::new(),
                    // Whoever asked may have given up.
                    Job::Digest(answer) => drop(answer.send(hex(&hasher.clone().finalize()))),
                }
            }
        })?;
        Ok(Self { jobs })
    }

    /// Waits while too much is waiting.
    pub(super) fn update(&self, bytes: Chunk) -> std::io::Result<()> {
        self.jobs.send(Job::Update(bytes)).map_err(|_| gone())
    }

    /// Forgets everything so far.
    pub(super) fn restart(&self) -> std::io::Result<()> {
        self.jobs.send(Job::Restart).map_err(|_| gone())
    }

    /// Of everything so far; waits until that is hashed.
    pub(super) fn digest(&self) -> std::io::Result<String> {
        let (answer, digest) = sync_channel(1);
        self.jobs.send(Job::Digest(answer)).map_err(|_| gone())?;
        digest.recv().map_err(|_| gone())
    }
}

fn gone() -> std::io::Error {
    std::io::Error::other("the thread that hashes has ended")
}

#[cfg(test)]
mod tests {
    use super::super::chunk::Buffers;
    use super::*;

    /// MPROV-023
    #[test]
    fn it_is_the_hash_of_what_came_since_the_last_restart() {
        let (hasher, buffers) = (Hasher::start().unwrap(), Buffers::default());
        let chunk = |text: &[u8]| {
            let fill = |buffer: &mut [u8]| {
                buffer[..text.len()].copy_from_slice(text);
                Ok::<_, ()>(text.len())
            };
            buffers.filled(fill).unwrap()
        };
        hasher.update(chunk(b"something else")).unwrap();
        hasher.restart().unwrap();
        for byte in b"abc" {
            hasher.update(chunk(&[*byte])).unwrap();
        }
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hasher.digest().unwrap(), known);
        assert_eq!(hasher.digest().unwrap(), known, "asking changes nothing");
    }
}
