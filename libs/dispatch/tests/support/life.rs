//! One control plane after the other over one journal.

use std::path::Path;

use dispatch::{Task, TaskSpec};
use task_log::Journal;
use task_log::journal::Options;

use super::{World, id, owner, spec};

/// One life of the control plane.
pub(crate) struct Life {
    pub(crate) world: World,
    pub(crate) journal: Journal,
    pub(crate) taken: dispatch::TakenBack,
}

impl Life {
    pub(crate) fn begin(dir: &Path) -> Self {
        Self::with(dir, Options::default())
    }

    pub(crate) fn with(dir: &Path, options: Options) -> Self {
        Self::of(World::new(), dir, options)
    }

    pub(crate) fn of(world: World, dir: &Path, options: Options) -> Self {
        let opened = Journal::open(dir, options).unwrap();
        let journal = opened.journal.clone();
        let taken = world.dispatch.restore(opened);
        Self { world, journal, taken }
    }

    pub(crate) async fn submit(&self, spec: TaskSpec) -> Task {
        self.world.dispatch.submit_durably(spec).await.unwrap()
    }

    pub(crate) fn task(&self, name: &str) -> Option<Task> {
        self.world.dispatch.task(&id(name), &owner())
    }

    /// As `kill -9`: nothing is told, nothing ends.
    pub(crate) async fn killed(self) {
        tokio::task::spawn_blocking(move || self.journal.close()).await.unwrap();
        std::mem::forget(self.world);
    }
}

pub(crate) fn named(name: &str) -> TaskSpec {
    TaskSpec { task_id: Some(id(name)), ..spec(name) }
}

pub(crate) fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}
