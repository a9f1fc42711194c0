//! What pool-managerd makes of its configuration file while it runs: what it says about pools is followed;
//! what else is its own needs a restart, and what is orchestratord's is none of its business.

use sd_notify::NotifyState;
use wire::ConfigView;
use wire::config::Config;

use crate::Running;
use crate::pause::one_line;
use crate::replica::with_causes;

/// Sections that are read at a start only.
const AT_START: [&str; 4] = ["paths", "pool_managerd", "models", "log"];

impl daemon::Followed for Running {
    const NAME: &'static str = "pool-managerd";

    fn waits(section: &str) -> bool {
        AT_START.contains(&section)
    }

    async fn take(&self, config: &Config) -> Result<Vec<String>, String> {
        let changes = self.configure(config).map_err(|error| with_causes(&error))?;
        Ok(changes.iter().map(ToString::to_string).collect())
    }

    fn show(&self, view: &ConfigView) {
        self.board().follows(view);
        let status = match &view.refused {
            Some(why) => format!(
                "the changed configuration cannot be used; the one before stays in force: {}",
                one_line(why)
            ),
            None => format!("listening on {}", self.addr()),
        };
        // Nobody may listen.
        let _told = sd_notify::notify(&[NotifyState::Status(&status)]);
    }
}
