//! Cards as a test wants them.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use pool_managerd::{Discover, Inventory};
use wire::{Device, DeviceUser};

use super::engines_of;

/// Cards as a test wants them.
#[derive(Default)]
pub(crate) struct FakeCards {
    cards: Mutex<Vec<Device>>,
    /// What `nvidia-smi` said when it failed.
    failure: Mutex<Option<String>>,
    /// Every engine of this runtime directory has so much of the first card, for as long as it lives.
    used_by: Mutex<Option<(PathBuf, u64)>>,
}

impl FakeCards {
    pub(crate) fn set(&self, cards: Vec<Device>) {
        *self.cards.lock().unwrap() = cards;
    }

    /// None can be listed, for this reason.
    pub(crate) fn fail(&self, said: &str) {
        *self.failure.lock().unwrap() = Some(said.to_owned());
    }

    pub(crate) fn used_by_engines_of(&self, runtime: &Path, each: u64) {
        *self.used_by.lock().unwrap() = Some((runtime.to_owned(), each));
    }

    fn as_they_are(&self) -> Vec<Device> {
        let mut cards = self.cards.lock().unwrap().clone();
        if let Some((runtime, each)) = self.used_by.lock().unwrap().as_ref()
            && runtime.join("run").exists()
        {
            for pid in engines_of(runtime) {
                let user = DeviceUser { pid: Some(pid), used_bytes: Some(*each), ..DeviceUser::default() };
                cards[0].users.push(user);
                cards[0].vram_free_bytes = cards[0].vram_free_bytes.saturating_sub(*each);
            }
        }
        cards
    }
}

impl Discover for FakeCards {
    fn look(&self, _stop: &dyn Fn() -> bool) -> Inventory {
        if let Some(said) = self.failure.lock().unwrap().clone() {
            return Inventory::ToolFailed(said);
        }
        match self.as_they_are() {
            none if none.is_empty() => Inventory::NoCard,
            cards => Inventory::Cards(cards),
        }
    }
}
