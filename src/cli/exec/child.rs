//! The command that `pushrelay exec` runs: its start, its signals, and its end.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use rustix::process::{Pid, Resource, Rlimit, Signal, WaitId, WaitIdOptions, kill_process, setrlimit, waitid};
use signal_hook::consts::{SIGALRM, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithOrigin;

use super::report::RunOutcome;

/// The signals that are passed on.
const PASSED: [i32; 7] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGALRM];
/// The exit status of a shell for a command that does not exist.
const NOT_FOUND: u8 = 127;
/// The exit status of a shell for a command that cannot be run.
const NOT_RUN: u8 = 126;

/// A command that runs.
pub struct RunningCommand {
    child: Child,
    /// The command's process id, while signals can be sent to it.
    target: Arc<Mutex<Option<Pid>>>,
    started: SystemTime,
    clock: Instant,
}

/// The outcome of a command that could not be started.
pub fn not_started(error: &io::Error) -> RunOutcome {
    let status = if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_RUN };
    RunOutcome {
        started: SystemTime::now(),
        duration: Duration::ZERO,
        status,
        signal: 0,
        cpu: None,
        memory_peak_bytes: None,
    }
}

impl RunningCommand {
    /// Starts the command. From now on signals to this process are passed on to it.
    ///
    /// # Errors
    /// The command cannot be started.
    pub fn start(command: &[OsString]) -> io::Result<Self> {
        let (program, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        // A signal that was ignored here, as by nohup, must stay ignored in the command.
        let ignored = ignored_signals();
        let passed = PASSED.into_iter().filter(|signal| ignored & (1 << (signal - 1)) == 0);
        let mut signals = SignalsInfo::<WithOrigin>::new(passed)?;
        let (started, clock) = (SystemTime::now(), Instant::now());
        let child = Command::new(program).args(arguments).spawn()?;
        let target = Arc::new(Mutex::new(Some(Pid::from_child(&child))));
        let shared = target.clone();
        std::thread::spawn(move || {
            for origin in signals.forever() {
                // The kernel sends the signals of a terminal's keys, to every process of the foreground.
                if origin.process.is_some() {
                    pass(&shared, origin.signal);
                }
            }
        });
        Ok(Self { child, target, started, clock })
    }

    /// The time of the start.
    pub fn started(&self) -> SystemTime {
        self.started
    }

    /// Waits for the end of the command.
    ///
    /// # Errors
    /// The operating system does not know the process.
    pub fn wait(mut self) -> io::Result<(ExitStatus, RunOutcome)> {
        let target = *self.target.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pid) = target {
            // The process stays, and with it its id, until no signal can be sent to it any more.
            let waited = loop {
                match waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
                    Err(rustix::io::Errno::INTR) => {}
                    waited => break waited,
                }
            };
            waited?;
        }
        let duration = self.clock.elapsed();
        *self.target.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let status = self.child.wait()?;
        let signal = status.signal().unwrap_or_default();
        let code = status.code().unwrap_or(128 + signal);
        let usage = getrusage(UsageWho::RUSAGE_CHILDREN).ok();
        let time = |time: nix::sys::time::TimeVal| Duration::from_micros(time.num_microseconds().unsigned_abs());
        let outcome = RunOutcome {
            started: self.started,
            duration,
            status: u8::try_from(code).unwrap_or(u8::MAX),
            signal,
            cpu: usage.map(|usage| [time(usage.user_time()), time(usage.system_time())]),
            // Linux has it in KiB.
            memory_peak_bytes: usage.map(|usage| usage.max_rss().unsigned_abs() << 10),
        };
        Ok((status, outcome))
    }
}

/// Ends this process as the command ended.
pub fn end_as(status: ExitStatus) -> u8 {
    if let Some(signal) = status.signal() {
        // The command has left a core file, if one was wanted.
        let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
        // It only returns if it fails.
        let _ = signal_hook::low_level::emulate_default_handler(signal);
        return u8::try_from(128 + signal).unwrap_or(u8::MAX);
    }
    status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

fn pass(target: &Mutex<Option<Pid>>, signal: i32) {
    let target = target.lock().unwrap_or_else(PoisonError::into_inner);
    if let (Some(pid), Some(signal)) = (*target, Signal::from_named_raw(signal)) {
        // A command that has just ended needs no signal.
        let _ = kill_process(pid, signal);
    }
}

/// The signals that this process ignores, one bit each, from 1.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default()
}
