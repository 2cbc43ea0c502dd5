//! A daemon under test that watches the programs in the scratch folder.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};

use super::{
    Context,
    programs::{self, PATIENCE, Running},
};

/// A running daemon, with its state in the scratch folder and its own port.
pub(super) struct Daemon {
    running: Running,
    pub(super) address: String,
}

impl Daemon {
    pub(super) fn start(context: &Context) -> Result<Daemon> {
        let state = context.scratch.join("daemon");
        fs::create_dir_all(&state)?;
        let address = format!("127.0.0.1:{}", free_port()?);
        let config = state.join("panicwatch.toml");
        let include = context.scratch.display();
        let text = format!(
            "[watch]\ninclude = [{{ exe = [\"{include}/*\"] }}]\n[store]\npath = \"{}/store\"\ngroup_rate = 0\n[http]\nlisten = [\"{address}\"]\nunix_socket = \"\"\n",
            state.display()
        );
        fs::write(&config, text)?;
        let mut daemon = Command::new(&context.panicwatch);
        let running = programs::start(context, daemon.args(["daemon", "--config"]).arg(&config))?;
        let mut daemon = Daemon { running, address };
        let deadline = Instant::now() + PATIENCE;
        while !daemon.get("/readyz").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
            if let Some(status) = daemon.running.child.try_wait()? {
                bail!("the daemon ended ({status}): {}", daemon.running.stderr());
            }
            ensure!(Instant::now() < deadline, "the daemon is never ready: {}", daemon.running.stderr());
            thread::sleep(Duration::from_millis(50));
        }
        Ok(daemon)
    }

    /// What it has logged so far.
    pub(super) fn stderr(&self) -> String {
        self.running.stderr()
    }

    /// Sends a GET request; returns the whole response.
    pub(super) fn get(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// Stops the daemon with SIGTERM and checks that it exits successfully.
    pub(super) fn stop(self) -> Result<()> {
        self.running.signal("TERM")?;
        let ended = self.running.wait(PATIENCE)?;
        ensure!(ended.status == 0, "the daemon ended with {}: {}", ended.status, ended.stderr);
        Ok(())
    }
}

fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
