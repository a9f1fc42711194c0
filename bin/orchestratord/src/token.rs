//! `orchestratord token`: who may call.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};

use crate::cli::TokenCommand;
use crate::settings::Settings;

/// Does what the command says. The token is the only thing on stdout.
pub fn run(config: Option<&Path>, command: &TokenCommand) -> Result<()> {
    let TokenCommand::New { scope, name } = command;
    let settings = Settings::read(config)?;
    let token = settings.new_token(*scope, name)?;
    writeln!(std::io::stdout(), "{token}").context("printing the token")?;
    let _ = writeln!(
        std::io::stderr(),
        "a {scope} token for {name}; it is not shown again, only its digest is kept in {}",
        settings.tokens_path().display()
    );
    Ok(())
}
