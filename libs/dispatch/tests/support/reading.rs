//! Reading what a task says, with a limit for a hang.

use std::time::Duration;

use dispatch::Task;
use task_log::Entry;

/// Everything a task says, to its end; a hang is a failure.
pub(crate) async fn all(task: &Task) -> Vec<Entry> {
    let mut follower = task.log().follow(None);
    let mut entries = Vec::new();
    let read = async {
        while let Some((_, entry)) = follower.next().await {
            entries.push((*entry).clone());
        }
    };
    tokio::time::timeout(patience(), read).await.expect("every task ends");
    entries
}

/// The same in words.
pub(crate) async fn words(task: &Task) -> String {
    let said = |entry: &Entry| match entry {
        Entry::Started(started) => format!("started:{}", started.replica_id),
        Entry::Chunk { index: None, .. } => "role".to_owned(),
        Entry::Chunk { chunk, index, .. } => format!("{}={}", index.unwrap(), chunk.text.trim()),
        Entry::Resumed(resumed) => format!("resumed:{}", resumed.replica_id),
        Entry::End(end) => {
            format!("end:{}", serde_json::to_value(end.finish_reason).unwrap().as_str().unwrap())
        }
        Entry::Error(error) => format!("error:{}:{}", error.code.as_str(), error.tokens_sent),
    };
    all(task).await.iter().map(said).collect::<Vec<_>>().join(" ")
}

/// Waits until the task has so many entries.
pub(crate) async fn until_entries(task: &Task, n: u64) {
    let mut follower = task.log().follow(None);
    let read = async {
        for _ in 0..n {
            follower.next().await.expect("the entry comes");
        }
    };
    tokio::time::timeout(patience(), read).await.expect("the entries come");
}

// Paused clocks run on one thread and skip a wait; real ones must not hold up a failing test.
fn patience() -> Duration {
    match tokio::runtime::Handle::current().runtime_flavor() {
        tokio::runtime::RuntimeFlavor::CurrentThread => Duration::from_secs(36_000),
        _ => Duration::from_secs(60),
    }
}
