//! What the downloader is told from outside: which hub, which token, which caches, how patient.
//!
//! It takes variables as a function, so that the process's environment is read by the program alone.

use std::ffi::OsString;
use std::path::PathBuf;

use super::token::TokenPlace;
use super::{Connections, Patience};

/// The public hub that `hf:` references mean unless `HF_ENDPOINT` names another: the only place in
/// the repository that spells it.
const PUBLIC_HUB: &str = "https://huggingface.co";

/// How to reach models over the network.
#[derive(Debug, Clone)]
pub struct Network {
    pub(crate) endpoint: String,
    pub(crate) token: TokenPlace,
    pub(crate) hub_caches: Vec<PathBuf>,
    pub(crate) patience: Patience,
    pub(crate) connections: Connections,
}

impl Default for Network {
    /// The public hub, no token, no cache of other programs.
    fn default() -> Self {
        Self::from_vars(|_| None)
    }
}

impl Network {
    /// From `HF_ENDPOINT`, the variables that name a token or its file, and those that place the hub's cache, in
    /// llama.cpp's order. A wrong endpoint or token shows when something is fetched.
    #[must_use]
    pub fn from_vars(var: impl Fn(&str) -> Option<OsString>) -> Self {
        let text = |name| var(name).and_then(|value| value.into_string().ok()).filter(|v| !v.is_empty());
        let home = var("HOME").map(PathBuf::from);
        // As the hub's own programs read it: not every shell and unit file expands a `~`.
        let expanded = |path: PathBuf| match (path.strip_prefix("~"), &home) {
            (Ok(rest), Some(home)) => home.join(rest),
            _ => path,
        };
        let any = |name: &str| var(name).map(PathBuf::from).map(expanded);
        let path = |name| any(name).filter(|path| path.is_absolute());
        let xdg = path("XDG_CACHE_HOME").or_else(|| path("HOME").map(|home| home.join(".cache")));
        let hub_home = path("HF_HOME").or_else(|| xdg.as_ref().map(|cache| cache.join("huggingface")));
        let places = [
            path("LLAMA_CACHE"),
            path("HF_HUB_CACHE"),
            path("HUGGINGFACE_HUB_CACHE"),
            path("HF_HOME").map(|home| home.join("hub")),
            xdg.as_ref().map(|cache| cache.join("huggingface/hub")),
            xdg.as_ref().map(|cache| cache.join("llama.cpp")),
        ];
        let token =
            TokenPlace::from_vars(&var, |name| any(name).filter(|p| !p.as_os_str().is_empty()), hub_home);
        Self {
            endpoint: text("HF_ENDPOINT").unwrap_or_else(|| PUBLIC_HUB.to_owned()),
            token,
            hub_caches: places.into_iter().flatten().collect(),
            patience: Patience::default(),
            connections: Connections::default(),
        }
    }

    /// Waits and tries in another measure.
    #[must_use]
    pub fn with_patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    /// Uses several connections to one file in another measure.
    #[must_use]
    pub fn with_connections(mut self, connections: Connections) -> Self {
        self.connections = connections;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caches_of_other_programs_are_looked_at_in_their_order_and_the_token_is_never_shown() {
        let network = Network::from_vars(|name| {
            let value = match name {
                "HOME" => "/home/me",
                "HF_HOME" => "~/hf",
                "LLAMA_CACHE" => "/llama",
                "HF_HUB_CACHE" => "relative",
                "HF_TOKEN" => "hf_secret\n",
                _ => return None,
            };
            Some(value.into())
        });
        let places: Vec<_> = network.hub_caches.iter().map(|p| p.to_str().unwrap()).collect();
        assert_eq!(
            places,
            ["/llama", "/home/me/hf/hub", "/home/me/.cache/huggingface/hub", "/home/me/.cache/llama.cpp"]
        );
        assert_eq!(network.endpoint, PUBLIC_HUB);
        assert_eq!(network.token.look().token().unwrap().bearer(), "Bearer hf_secret");
        assert!(!format!("{network:?}").contains("secret"));
    }
}
