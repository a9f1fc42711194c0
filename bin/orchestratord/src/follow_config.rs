//! What orchestratord makes of its configuration file while it runs: what it says about pools is followed,
//! in the routing and in the engines alike; the rest needs a restart.

use wire::ConfigView;
use wire::config::Config;

use crate::app::Running;
use crate::settings::Settings;

/// A running orchestratord and what it was started from.
pub(crate) struct Follower<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) running: &'a Running,
}

impl daemon::Followed for Follower<'_> {
    const NAME: &'static str = "orchestratord";

    fn waits(section: &str) -> bool {
        section != "pools"
    }

    async fn take(&self, config: &Config) -> Result<Vec<String>, String> {
        self.running.configure(self.settings, config).await
    }

    fn show(&self, view: &ConfigView) {
        self.running.state().configuration.show(view);
    }
}
