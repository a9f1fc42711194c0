//! The daemon's configuration file while it runs: read again when it changes and at SIGHUP, and what it
//! says about pools followed. What is not about pools needs a restart, and is said to.

use std::convert::Infallible;
use std::time::Duration;

use config_loader::{ConfigError, Env, Follow, Loaded, Origin, changed_sections};
use sd_notify::NotifyState;
use tokio::sync::Notify;
use wire::config::Config;

use crate::Running;
use crate::replica::with_causes;

/// Between two looks at the file.
const PERIOD: Duration = Duration::from_secs(1);

/// Follows the file that `loaded` came from; `asked` is notified by SIGHUP.
pub(crate) async fn follow(loaded: &Loaded, env: &Env, running: &Running, asked: &Notify) -> Infallible {
    let Origin::File(path) = &loaded.origin else {
        loop {
            asked.notified().await;
            tracing::info!("there is no configuration file to read again");
        }
    };
    let mut file = Follow::new(path, env);
    let mut before = loaded.config.clone();
    loop {
        let now = tokio::select! {
            () = asked.notified() => true,
            () = tokio::time::sleep(PERIOD) => false,
        };
        let looked = tokio::task::spawn_blocking(move || {
            let read = if now { Some(file.read()) } else { file.look() };
            (file, read)
        });
        let Ok((looked_at, read)) = looked.await else { return std::future::pending().await };
        file = looked_at;
        if let Some(read) = read {
            before = take(read, before, running);
        }
    }
}

/// The configuration that is in force now.
fn take(read: Result<Config, ConfigError>, before: Config, running: &Running) -> Config {
    let refused = |why: String| {
        tracing::error!(why, "the changed configuration cannot be used; the one before stays in force");
        let words = "the changed configuration cannot be used; the one before stays in force: ";
        tell(&format!("{words}{}", crate::pause::one_line(&why)));
    };
    let config = match read {
        Ok(config) => config,
        Err(error) => {
            refused(error.to_string());
            return before;
        }
    };
    let changes = match running.configure(&config) {
        Ok(changes) => changes,
        Err(error) => {
            refused(with_causes(&error));
            return before;
        }
    };
    let ours = ["paths", "pool_managerd", "models", "log"];
    let waits: Vec<String> =
        changed_sections(&before, &config).into_iter().filter(|key| ours.contains(&key.as_str())).collect();
    if !waits.is_empty() {
        tracing::warn!("what changed in {} is read when pool-managerd starts again", waits.join(", "));
    }
    for change in &changes {
        tracing::info!("configuration: {change}");
    }
    tell(&format!("listening on {}", running.addr()));
    // What waits for a restart is said again with the next change, and only then.
    config
}

fn tell(status: &str) {
    // Nobody may listen.
    let _told = sd_notify::notify(&[NotifyState::Status(status)]);
}
