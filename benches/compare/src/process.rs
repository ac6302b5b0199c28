//! A server process: started, measured by the kernel's counters, and ended by its own id.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::Result;
use crate::fetch::Client;

/// How long a server may take to be ready, or to end.
const PATIENCE: Duration = Duration::from_secs(60);
/// Ticks a second of `/proc/PID/stat`; the kernel's interface fixes it.
const TICKS_A_SECOND: f64 = 100.0;

/// How a server is started.
#[derive(Clone, Debug)]
pub struct Spec {
    pub program: PathBuf,
    pub arguments: Vec<String>,
    /// The file for its output.
    pub log: PathBuf,
}

/// A running server.
pub struct Process {
    spec: Spec,
    child: Child,
    started: Instant,
}

/// Resident memory, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    pub resident: f64,
    pub peak: f64,
}

impl Process {
    /// Starts the process. If this program dies, the kernel ends the server, provided that `setpriv` is installed.
    pub fn start(spec: Spec) -> Result<Self> {
        let log = File::create(&spec.log).map_err(|error| format!("{}: {error}", spec.log.display()))?;
        let mut command = if Path::new("/usr/bin/setpriv").exists() {
            let mut command = Command::new("/usr/bin/setpriv");
            command.args(["--pdeathsig", "KILL", "--"]).arg(&spec.program);
            command
        } else {
            Command::new(&spec.program)
        };
        command.args(&spec.arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let started = Instant::now();
        let child = command.spawn().map_err(|error| format!("{}: {error}", spec.program.display()))?;
        Ok(Self { spec, child, started })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// When it was started.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Waits until `GET path` answers 200.
    pub fn await_ready(&mut self, address: SocketAddr, path: &str) -> Result<()> {
        loop {
            if let Ok(reply) = Client::new(address).get(path, false, |_| ())
                && reply.status == 200
            {
                return Ok(());
            }
            self.check_alive("not ready")?;
            sleep(Duration::from_micros(500));
        }
    }

    /// Waits for a log line that contains `text`, and returns its field `address`.
    pub fn await_address(&mut self, text: &str) -> Result<SocketAddr> {
        loop {
            let log = fs::read_to_string(&self.spec.log).unwrap_or_default();
            let line = log.lines().find(|line| line.contains(text) && line.contains("address="));
            if let Some((_, after)) = line.and_then(|line| line.split_once("address=")) {
                let address: String = after.chars().filter(|c| *c != '"').take_while(|c| !c.is_whitespace()).collect();
                return Ok(address.parse().map_err(|error| format!("{address}: {error}"))?);
            }
            self.check_alive(text)?;
            sleep(Duration::from_micros(500));
        }
    }

    fn check_alive(&mut self, awaited: &str) -> Result<()> {
        let program = self.spec.program.display();
        if let Some(status) = self.child.try_wait()? {
            return Err(format!("{program} ended ({status}); its log: {}", self.log_tail()).into());
        }
        if self.started.elapsed() > PATIENCE {
            return Err(format!("{program}: {awaited} within {PATIENCE:?}; its log: {}", self.log_tail()).into());
        }
        Ok(())
    }

    fn log_tail(&self) -> String {
        let log = fs::read_to_string(&self.spec.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(3).collect();
        format!("{}: {}", self.spec.log.display(), lines.join(" | "))
    }

    /// As [`cpu_seconds_of`].
    pub fn cpu_seconds(&self) -> f64 {
        cpu_seconds_of(self.id())
    }

    pub fn memory(&self) -> Memory {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<f64>().ok()
        };
        let bytes = |name| field(name).map_or(f64::NAN, |kilobytes| kilobytes * 1024.0);
        Memory { resident: bytes("VmRSS:"), peak: bytes("VmHWM:") }
    }

    /// Makes [`Memory::peak`] start again from the current value.
    pub fn reset_peak(&self) -> Result<()> {
        Ok(fs::write(format!("/proc/{}/clear_refs", self.id()), "5")?)
    }

    /// Waits until it has hardly used the processor for a while (at most a minute).
    pub fn settle(&self) {
        const WINDOW: Duration = Duration::from_millis(250);
        let deadline = Instant::now() + PATIENCE;
        let mut quiet = 0;
        while quiet < 2 && Instant::now() < deadline {
            let before = self.cpu_seconds();
            sleep(WINDOW);
            quiet = if self.cpu_seconds() - before < 0.05 * WINDOW.as_secs_f64() { quiet + 1 } else { 0 };
        }
    }

    /// Ends the process by SIGTERM, and returns how to start it again.
    pub fn stop(mut self) -> Result<Spec> {
        Command::new("kill").args(["-TERM", &self.id().to_string()]).status()?;
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                return Err(format!("{} did not end on SIGTERM", self.spec.program.display()).into());
            }
            sleep(Duration::from_millis(2));
        }
        Ok(self.spec.clone())
    }

    /// Ends the process by SIGKILL, and returns how to start it again.
    pub fn kill(mut self) -> Result<Spec> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(self.spec.clone())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Seconds of processor time of a process so far, all threads, also those that ended; 0 if there is none.
///
/// The kernel counts a process in ticks of 10 ms, and its current threads in nanoseconds. The finer count is used,
/// unless ended threads make the difference.
pub fn cpu_seconds_of(id: u32) -> f64 {
    let ticks = cpu_ticks(&format!("/proc/{id}/stat")) / TICKS_A_SECOND;
    let threads = fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
    let nanoseconds = threads.filter_map(|thread| {
        let counts = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        counts.split(' ').next()?.parse::<f64>().ok()
    });
    let seconds = nanoseconds.sum::<f64>() / 1e9;
    if seconds + 2.0 / TICKS_A_SECOND > ticks { seconds } else { ticks }
}

/// Seconds of processor time of this program.
pub fn own_cpu_seconds() -> f64 {
    cpu_seconds_of(std::process::id())
}

fn cpu_ticks(path: &str) -> f64 {
    let stat = fs::read_to_string(path).unwrap_or_default();
    // The second field is the name in parentheses and may contain anything; user and system time are fields 14 and 15.
    let fields = stat.rsplit_once(')').map_or("", |(_, after)| after).split_whitespace();
    fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum()
}

/// A port of the loopback that is free now.
pub fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?)
}
