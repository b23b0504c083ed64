//! Real servers for tests: what the scripts `engines/NAME/start` run.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A server that ends with the test.
#[derive(Debug)]
pub struct RealServer {
    child: Child,
    /// Where it answers, on 127.0.0.1.
    pub port: u16,
}

impl RealServer {
    /// Starts `engines/NAME/start FOLDER PORT` on a free port, and waits until it says that it is ready.
    ///
    /// # Panics
    /// When it does not start: the script says on standard error what it needs.
    pub fn start(name: &str, folder: &Path) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
        Self::start_at(name, folder, port)
    }

    /// The same on a port, as after a kill.
    ///
    /// # Panics
    /// As above.
    pub fn start_at(name: &str, folder: &Path, port: u16) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engines").join(name).join("start");
        let mut command = Command::new(&script);
        command.arg(folder).arg(port.to_string()).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{} runs: {error}", script.display()));
        let mut line = String::new();
        let output = child.stdout.take().expect("piped");
        BufReader::new(output).read_line(&mut line).expect("readable");
        assert!(line.starts_with("ready "), "`{name}` did not start: {line}");
        Self { child, port }
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
