//! Real servers for tests: what the scripts `engines/NAME/start` run.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

/// A server that ends with the test.
#[derive(Debug)]
pub struct RealServer {
    child: Child,
    /// Where it answers, on 127.0.0.1.
    pub port: u16,
    /// Kept open: what it says later is not read, and must not end it.
    _said: BufReader<ChildStdout>,
}

impl RealServer {
    /// Starts `engines/NAME/start FOLDER PORT` on a free port, and waits until it says that it is ready.
    ///
    /// # Panics
    /// When it does not start: the script says on standard error what it needs.
    pub fn start(name: &str, folder: &Path) -> Self {
        Self::start_at(name, folder, free_port(), &[])
    }

    /// The same on a port, as after a kill, and with variables that the script knows.
    ///
    /// # Panics
    /// As above.
    pub fn start_at(name: &str, folder: &Path, port: u16, environment: &[(&str, String)]) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engines").join(name).join("start");
        let mut command = Command::new(&script);
        command.arg(folder).arg(port.to_string()).envs(environment.iter().map(|(name, value)| (*name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{} runs: {error}", script.display()));
        let mut said = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        said.read_line(&mut line).expect("readable");
        assert!(line.starts_with("ready "), "`{name}` did not start in {}: {line}", folder.display());
        Self { child, port, _said: said }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for RealServer {
    fn drop(&mut self) {
        // It may have been killed before.
        self.child.kill().unwrap_or_default();
        self.child.wait().map(drop).unwrap_or_default();
    }
}

/// A port that is free together with those a hundred and two hundred above it, which the scripts take too.
///
/// # Panics
/// When there is none.
pub fn free_port() -> u16 {
    let bound = |port| TcpListener::bind(("127.0.0.1", port));
    loop {
        let port = bound(0).and_then(|listener| listener.local_addr()).expect("a port").port();
        if port < 65_000 && [100, 200].iter().all(|above| bound(port + above).is_ok()) {
            return port;
        }
    }
}
