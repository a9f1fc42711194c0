//! Where this daemon's tokens come from, and what a client on this machine sends: the tokens file of
//! the configuration, the one that `generate` stands for, and `orchestratord token new`.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Result;
use wire::config::TokensFile;

use crate::exit::{CONFIG, Fatal};
use crate::settings::Settings;
use crate::tokens::{Scope, Tokens, generate, is_name};

/// What a client of the configured orchestratord sends, and where that comes from.
#[derive(Debug, Clone, Default)]
pub(crate) struct Access {
    /// The bearer token.
    pub(crate) token: Option<String>,
    /// The file that a client of this configuration finds its token in.
    pub(crate) file: Option<PathBuf>,
}

impl Settings {
    /// What `run` sends to the orchestratord of this configuration: `LLAMA_ORCH_TOKEN`, else what was
    /// generated for clients, else what the tokens file says in plain words.
    pub(crate) fn access(&self) -> Result<Access> {
        let given = self.env.text("LLAMA_ORCH_TOKEN");
        let given = given.map_err(|error| Fatal::new(CONFIG, error.to_string()))?.map(str::to_owned);
        let file = self.config.api.tokens_file.as_ref().map(|file| match file {
            TokensFile::Generate => self.generated_token(Scope::Data),
            TokensFile::Path(path) => path.clone(),
        });
        // A file that cannot be read is somebody else's; the daemon's answer will say what is missing.
        let token = given.or_else(|| {
            let own = self.config.api.tokens_file == Some(TokensFile::Generate);
            let generated = || std::fs::read_to_string(self.generated_token(Scope::Data)).ok();
            // An earlier version generated tokens in plain words, in the file itself.
            let plain = || {
                let text = std::fs::read_to_string(self.tokens_path()).ok()?;
                first_token(&text, "data").or_else(|| first_token(&text, "control"))
            };
            file.as_ref()?;
            own.then(generated).flatten().map(|text| text.trim().to_owned()).or_else(plain)
        });
        Ok(Access { token, file })
    }

    /// The file of the bearer tokens and what it holds; refuses an address that others can reach
    /// without any.
    pub(crate) fn tokens(&self) -> Result<Option<(PathBuf, Tokens)>> {
        let api = &self.config.api;
        let Some(file) = &api.tokens_file else {
            if api.listen.ip().is_loopback() {
                return Ok(None);
            }
            let message = format!(
                "api.listen is {}, which other machines can reach, and no tokens are configured; \
                 write `tokens_file: generate` under `api:`, or listen on 127.0.0.1",
                api.listen
            );
            return Err(Fatal::new(CONFIG, message).into());
        };
        let path = self.tokens_path();
        if *file == TokensFile::Generate && !path.exists() {
            self.generate_tokens(&path).map_err(|error| self.unusable_runtime(&path, &error))?;
        }
        let tokens = Tokens::read(&path).map_err(|error| Fatal::new(CONFIG, error.to_string()))?;
        Ok(Some((path, tokens)))
    }

    /// Where the digests of the tokens are.
    pub(crate) fn tokens_path(&self) -> PathBuf {
        match &self.config.api.tokens_file {
            Some(TokensFile::Path(path)) => path.clone(),
            _ => self.config.paths.runtime.join("tokens"),
        }
    }

    /// Where `tokens_file: generate` leaves a token for whoever set it up.
    pub(crate) fn generated_token(&self, scope: Scope) -> PathBuf {
        self.config.paths.runtime.join(format!("token.{scope}"))
    }

    /// One token of each scope, each in a file of its own, and the file of their digests, which
    /// comes last: while it is missing this is done again.
    fn generate_tokens(&self, path: &Path) -> io::Result<()> {
        let mut lines = HEADER.to_owned();
        for scope in [Scope::Control, Scope::Data] {
            let (token, line) = generate(scope, &scope.to_string());
            let own = self.generated_token(scope);
            if let Err(error) = std::fs::remove_file(&own)
                && error.kind() != io::ErrorKind::NotFound
            {
                return Err(error);
            }
            write_private(&own, &format!("{token}\n"))?;
            lines.push_str(&line);
        }
        write_private(path, &lines)
    }

    /// `orchestratord token new`: appends a new token's digest to the tokens file; the token itself is
    /// in nobody's hands but the caller's. A running orchestratord reads the file by itself.
    pub(crate) fn new_token(&self, scope: Scope, name: &str) -> Result<String> {
        if !is_name(name) {
            let rule = "a name is 1 to 63 of a-z, 0-9, - and _";
            return Err(Fatal::new(CONFIG, format!("{name:?} cannot name a caller: {rule}")).into());
        }
        if self.config.api.tokens_file.is_none() {
            let problem = "no tokens_file is configured, so every caller of this machine is let in \
                           without a token; write `tokens_file: generate` (or a path) under `api:`";
            return Err(self.mistake(problem).into());
        }
        let path = self.tokens_path();
        let (token, line) = generate(scope, name);
        // The first one must not be in the way of those that are generated.
        if self.config.api.tokens_file == Some(TokensFile::Generate) && !path.exists() {
            self.generate_tokens(&path).map_err(|error| self.unusable_runtime(&path, &error))?;
        }
        append_private(&path, &line).map_err(|error| {
            Fatal::new(CONFIG, format!("cannot add a token to {}: {error}", path.display()))
        })?;
        Ok(token)
    }
}

const HEADER: &str = "# Tokens of this orchestratord, as digests: SCOPE NAME sha256:DIGEST.\n\
                      # `orchestratord token new` adds one; taking a line out revokes its token.\n";

/// The first token of a scope that a file holds in plain words.
fn first_token(text: &str, scope: &str) -> Option<String> {
    text.lines().find_map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
        [found, token] if found == scope => Some(token.to_owned()),
        _ => None,
    })
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// One write, so that a daemon that reads meanwhile sees all of the line or nothing.
fn append_private(path: &Path, line: &str) -> io::Result<()> {
    if !path.exists() {
        write_private(path, HEADER)?;
    }
    let text = std::fs::read(path)?;
    let line =
        if text.last().is_none_or(|last| *last == b'\n') { line.to_owned() } else { format!("\n{line}") };
    let mut file = OpenOptions::new().append(true).open(path)?;
    file.write_all(line.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::SERVE;
    use config_loader::Env;
    use wire::config::Config;

    fn settings(dir: &Path, file: Option<TokensFile>, variables: &[(&str, &str)]) -> Settings {
        let mut config = Config::default();
        config.api.tokens_file = file;
        config.paths.runtime = dir.to_owned();
        let env = Env::new(dir, variables.iter().copied());
        Settings {
            config,
            env,
            shim: None,
            file: None,
            command: SERVE,
            limits: crate::http::ServerLimits::default(),
        }
    }

    #[test]
    fn a_client_takes_the_data_token_and_the_variable_wins() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        std::fs::write(&path, "# ours\ncontrol cccccccccccccccc\ndata dddddddddddddddd\n").unwrap();
        let access = |variables: &[(&str, &str)]| {
            settings(dir.path(), Some(TokensFile::Path(path.clone())), variables).access().unwrap()
        };
        assert_eq!(access(&[]).token.as_deref(), Some("dddddddddddddddd"));
        assert_eq!(access(&[]).file.as_ref(), Some(&path));
        assert_eq!(access(&[("LLAMA_ORCH_TOKEN", "mine")]).token.as_deref(), Some("mine"));
        std::fs::write(&path, "control cccccccccccccccc\n").unwrap();
        assert_eq!(access(&[]).token.as_deref(), Some("cccccccccccccccc"));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(access(&[]).token, None);
    }

    /// SEC-009
    #[test]
    fn what_is_generated_holds_digests_and_leaves_a_token_for_each_scope() {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(dir.path(), Some(TokensFile::Generate), &[]);
        let (path, tokens) = settings.tokens().unwrap().unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        for scope in [Scope::Data, Scope::Control] {
            let token = std::fs::read_to_string(settings.generated_token(scope)).unwrap();
            assert!(!text.contains(token.trim()), "{text}");
            assert_eq!(tokens.find(token.trim()).unwrap().is_control(), scope == Scope::Control);
        }
        let mine = settings.access().unwrap().token.unwrap();
        assert_eq!(tokens.find(&mine).unwrap().name(), "data");
    }

    /// SEC-009
    #[test]
    fn a_token_that_is_made_before_the_first_start_keeps_none_from_being_generated() {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(dir.path(), Some(TokensFile::Generate), &[]);
        let alice = settings.new_token(Scope::Data, "alice").unwrap();
        let (_, tokens) = settings.tokens().unwrap().unwrap();
        assert_eq!(tokens.find(&alice).unwrap().name(), "alice");
        let control = std::fs::read_to_string(settings.generated_token(Scope::Control)).unwrap();
        assert!(tokens.find(control.trim()).unwrap().is_control());
        assert!(settings.access().unwrap().token.is_some());
    }

    #[test]
    fn what_an_earlier_version_generated_in_plain_words_still_lets_its_client_in() {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(dir.path(), Some(TokensFile::Generate), &[]);
        std::fs::write(settings.tokens_path(), "control cccccccccccccccc\ndata dddddddddddddddd\n").unwrap();
        assert_eq!(settings.access().unwrap().token.as_deref(), Some("dddddddddddddddd"));
    }

    /// SEC-009
    #[test]
    fn a_new_token_is_added_to_the_file_as_its_digest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mine");
        let settings = settings(dir.path(), Some(TokensFile::Path(path.clone())), &[]);
        let first = settings.new_token(Scope::Control, "ops").unwrap();
        // Whoever edits the file by hand may leave its last line open.
        let mut text = std::fs::read_to_string(&path).unwrap();
        text.truncate(text.trim_end().len());
        std::fs::write(&path, text).unwrap();
        let second = settings.new_token(Scope::Data, "web").unwrap();
        let tokens = Tokens::read(&path).unwrap();
        assert_eq!(tokens.find(&first).unwrap().name(), "ops");
        assert_eq!(tokens.find(&second).unwrap().name(), "web");
        assert!(settings.new_token(Scope::Data, "not a name").is_err());
    }

    #[test]
    fn a_token_without_a_file_to_put_it_in_is_refused_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let error = settings(dir.path(), None, &[]).new_token(Scope::Data, "web").unwrap_err();
        assert!(error.to_string().contains("tokens_file: generate"), "{error}");
    }
}
