//! Options of the commands that query a daemon.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use super::common::{Exit, usage};
use crate::http::{
    client::{self, Client},
    server,
};

/// Where a daemon is.
#[derive(Debug, Args)]
pub struct DaemonArgs {
    /// The daemon's address: http://HOST:PORT, https://HOST:PORT or the path of its Unix socket
    #[arg(long, value_name = "WHERE", default_value = client::DEFAULT)]
    daemon: String,
    /// File with the daemon's token, if it requires one
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// PEM file of CA certificates that the daemon's certificate is verified with, instead of the system's
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

impl DaemonArgs {
    /// Returns an HTTP client for the daemon.
    ///
    /// # Errors
    /// Status 2 when the address is invalid, 1 when the token or the certificates cannot be read.
    pub(super) fn client(&self) -> Result<Client, Exit> {
        let path =
            |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
        let token = server::token(&path(&self.token_file))?;
        Client::new(&self.daemon, &path(&self.ca_file), token).map_err(|error| match error {
            client::Error::Address(_) => usage(error),
            error => error.into(),
        })
    }
}

/// Returns a single-threaded tokio runtime for a few requests.
pub(super) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start the I/O runtime")
}
