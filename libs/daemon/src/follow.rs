//! A daemon's configuration file while it runs: read again when it changes and at SIGHUP. What it says is
//! handed to the daemon, which follows what it can; what it cannot follow is said, in the log and to
//! whoever shows it.

use std::convert::Infallible;
use std::path::Path;
use std::time::Duration;

use config_loader::{ConfigError, Env, Follow, changed_sections};
use tokio::sync::Notify;
use wire::ConfigView;
use wire::config::Config;

/// Between two looks at the file.
const PERIOD: Duration = Duration::from_secs(1);

/// Who follows it.
pub trait Followed {
    /// Its name, for people.
    const NAME: &'static str;

    /// Whether what changed in a section (a key at the top of the file) waits for its next start.
    fn waits(section: &str) -> bool;

    /// Follows another configuration. Says what it comes to; the error, why nothing of it is followed.
    fn take(&self, config: &Config) -> impl Future<Output = Result<Vec<String>, String>> + Send;

    /// How it stands now; called after each reading.
    fn show(&self, view: &ConfigView);
}

/// Follows `file`, from which `first` was read; `asked` is notified by SIGHUP.
pub async fn follow(
    file: Option<&Path>,
    env: &Env,
    first: &Config,
    asked: &Notify,
    daemon: &impl Followed,
) -> Infallible {
    let Some(path) = file else {
        loop {
            asked.notified().await;
            tracing::info!("there is no configuration file to read again");
        }
    };
    let mut file = Follow::new(path, env);
    let mut inforce = InForce::new(path, first);
    daemon.show(&inforce.view);
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
            inforce.take(read, daemon).await;
            daemon.show(&inforce.view);
        }
    }
}

/// The configuration that is in force.
struct InForce {
    /// As it was read at the start.
    first: Config,
    last: Config,
    view: ConfigView,
}

impl InForce {
    fn new(path: &Path, first: &Config) -> Self {
        let view = ConfigView { file: path.display().to_string(), refused: None, waits: Vec::new() };
        Self { first: first.clone(), last: first.clone(), view }
    }

    async fn take<F: Followed>(&mut self, read: Result<Config, ConfigError>, daemon: &F) {
        let followed = match read {
            Ok(config) => daemon.take(&config).await.map(|changes| (config, changes)),
            Err(error) => Err(error.to_string()),
        };
        let (config, changes) = match followed {
            Ok(followed) => followed,
            Err(why) => {
                tracing::error!(
                    why,
                    "the changed configuration cannot be used; the one before stays in force"
                );
                self.view.refused = Some(why);
                return;
            }
        };
        // What waits for a restart is said again with the next change, and only then.
        let waits = waiting::<F>(&self.last, &config);
        if !waits.is_empty() {
            tracing::warn!("what changed in {} is read when {} starts again", waits.join(", "), F::NAME);
        }
        for change in &changes {
            tracing::info!("configuration: {change}");
        }
        self.view.refused = None;
        self.view.waits = waiting::<F>(&self.first, &config);
        self.last = config;
    }
}

fn waiting<F: Followed>(before: &Config, after: &Config) -> Vec<String> {
    changed_sections(before, after).into_iter().filter(|section| F::waits(section)).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Instant;

    use super::*;

    /// The first pool that it was given last, and what it showed last.
    #[derive(Default)]
    struct Daemon(Mutex<(String, Option<ConfigView>)>);

    impl Followed for Daemon {
        const NAME: &'static str = "it";

        fn waits(section: &str) -> bool {
            section != "pools"
        }

        async fn take(&self, config: &Config) -> Result<Vec<String>, String> {
            if config.pools.len() == 2 {
                return Err("two pools are too many".to_owned());
            }
            self.0.lock().unwrap().0 = config.pools[0].id.to_string();
            Ok(Vec::new())
        }

        fn show(&self, view: &ConfigView) {
            self.0.lock().unwrap().1 = Some(view.clone());
        }
    }

    impl Daemon {
        /// Once it has this pool, and shows what is refused and what waits.
        async fn is(&self, pool: &str, refused: Option<&str>, waits: &[&str]) {
            let end = Instant::now() + Duration::from_secs(30);
            loop {
                let (has, shown) = self.0.lock().unwrap().clone();
                let right = shown.as_ref().is_some_and(|view| {
                    let why = view.refused.as_deref();
                    refused.is_some() == why.is_some()
                        && refused.is_none_or(|words| why.is_some_and(|why| why.contains(words)))
                        && view.waits == waits
                });
                if right && has == pool {
                    return;
                }
                assert!(Instant::now() < end, "{pool}, {refused:?}, {waits:?}: {has}, {shown:?}");
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    }

    /// OV-009
    #[tokio::test]
    async fn what_cannot_be_followed_is_shown_until_it_can_and_so_is_what_waits() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.yaml");
        let env = Env::new(dir.path(), [("HOME", "/home/me")]);
        let write = |text: &str| std::fs::write(&path, text).unwrap();
        write("pools: [{id: a, model: m}]\n");
        let first = config_loader::load(Some(&path), &env).unwrap().config;
        let (daemon, asked) = (Daemon::default(), Notify::new());
        let reads = async {
            daemon.is("", None, &[]).await;
            for (text, pool, refused, waits) in [
                ("pools: [{id: x, model: m}]\n", "x", None, &[][..]),
                ("pools: [{id: a, modle: m}]\n", "x", Some("modle"), &[]),
                ("pools: [{id: a, model: m}, {id: b, model: m}]\n", "x", Some("too many"), &[]),
                ("log: {format: json}\npools: [{id: b, model: m}]\n", "b", None, &["log"]),
                // It still waits, though nothing of it has changed since.
                ("log: {format: json}\npools: [{id: c, model: m}]\n", "c", None, &["log"]),
                ("pools: [{id: c, model: m}]\n", "c", None, &[]),
            ] {
                write(text);
                asked.notify_one();
                daemon.is(pool, refused, waits).await;
            }
        };
        tokio::select! {
            never = follow(Some(&path), &env, &first, &asked, &daemon) => match never {},
            () = reads => {}
        }
    }
}
