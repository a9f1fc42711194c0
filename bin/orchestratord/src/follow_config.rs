//! The configuration file while orchestratord runs: read again when it changes and at SIGHUP, and what it
//! says about pools followed, in the routing and in the engines alike. The rest needs a restart, and is
//! said to.

use std::time::Duration;

use config_loader::{ConfigError, Follow, changed_sections};
use tokio::sync::Notify;
use wire::config::Config;

use crate::app::Running;
use crate::settings::Settings;

/// Between two looks at the file.
const PERIOD: Duration = Duration::from_secs(1);

/// Never returns while the runtime lives. `asked` is notified by SIGHUP.
pub(crate) async fn follow(settings: &Settings, running: &Running, asked: &Notify) {
    let Some(path) = &settings.file else {
        loop {
            asked.notified().await;
            tracing::info!("there is no configuration file to read again");
        }
    };
    let mut file = Follow::new(path, &settings.env);
    let mut before = settings.config.clone();
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
        if let Some(config) = read.and_then(|read| take(read, &before, running)) {
            before = config;
        }
    }
}

/// The configuration that is in force from now on, if it can be.
fn take(read: Result<Config, ConfigError>, before: &Config, running: &Running) -> Option<Config> {
    let followed = read.map_err(|error| error.to_string()).and_then(|config| {
        let changes = running.configure(&config)?;
        Ok((config, changes))
    });
    let (config, changes) = followed
        .inspect_err(|why| {
            tracing::error!(why, "the changed configuration cannot be used; the one before stays in force");
        })
        .ok()?;
    let waits: Vec<String> =
        changed_sections(before, &config).into_iter().filter(|key| key != "pools").collect();
    if !waits.is_empty() {
        tracing::warn!("what changed in {} is read when orchestratord starts again", waits.join(", "));
    }
    for change in changes {
        tracing::info!("configuration: {change}");
    }
    Some(config)
}
