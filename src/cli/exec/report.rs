//! The metrics of a run, as families in the text format.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The names of all families of a run. The job's own metrics cannot have them.
pub const NAMES: [&str; 8] = [
    "job_last_start_timestamp_seconds",
    "job_last_completion_timestamp_seconds",
    "job_last_success_timestamp_seconds",
    "job_last_exit_status",
    "job_last_exit_signal",
    "job_last_duration_seconds",
    "job_last_cpu_seconds",
    "job_last_memory_peak_bytes",
];

/// Families of a group, each with its text. Later families replace those of the same name, as a POST does.
pub type FamilyTexts = BTreeMap<String, String>;

/// The outcome of a command that ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RunOutcome {
    /// The start.
    pub started: SystemTime,
    /// The time from start to end.
    pub duration: Duration,
    /// The exit status, as a shell shows it: 128 and the signal, if a signal ended the command.
    pub status: u8,
    /// The signal that ended the command; 0 if none did.
    pub signal: i32,
    /// Processor time in user and system mode, of all processes that ended; `None` if the command did not start.
    pub cpu: Option<[Duration; 2]>,
    /// The largest resident memory of one of its processes.
    pub memory_peak_bytes: Option<u64>,
}

/// The family of a run's start.
pub fn at_start(started: SystemTime) -> FamilyTexts {
    let mut families = FamilyTexts::new();
    let help = "Time at which the last run of the job started.";
    gauge(&mut families, NAMES[0], help, &[("", seconds(started))]);
    families
}

/// The families of a run. A run that failed has no time of success, so that the one before stays.
pub fn at_end(run: &RunOutcome) -> FamilyTexts {
    let mut families = at_start(run.started);
    let ended = seconds(run.started + run.duration);
    gauge(&mut families, NAMES[1], "Time at which the last run of the job ended.", &[("", ended)]);
    if run.status == 0 {
        gauge(&mut families, NAMES[2], "Time at which the last successful run of the job ended.", &[("", ended)]);
    }
    let help = "Exit status of the last run of the job; 128 and the signal, if a signal ended it.";
    gauge(&mut families, NAMES[3], help, &[("", f64::from(run.status))]);
    let help = "Signal that ended the last run of the job; 0 if none did.";
    gauge(&mut families, NAMES[4], help, &[("", f64::from(run.signal))]);
    let help = "Duration of the last run of the job.";
    gauge(&mut families, NAMES[5], help, &[("", run.duration.as_secs_f64())]);
    if let Some([user, system]) = run.cpu {
        let modes = [("{mode=\"system\"}", system.as_secs_f64()), ("{mode=\"user\"}", user.as_secs_f64())];
        gauge(&mut families, NAMES[6], "Processor time that the last run of the job took.", &modes);
    }
    if let Some(bytes) = run.memory_peak_bytes {
        let help = "Largest resident memory of a process of the last run of the job.";
        gauge(&mut families, NAMES[7], help, &[("", bytes as f64)]);
    }
    families
}

fn gauge(families: &mut FamilyTexts, name: &str, help: &str, samples: &[(&str, f64)]) {
    let mut text = format!("# HELP {name} {help}\n# TYPE {name} gauge\n");
    for (labels, value) in samples {
        text += &format!("{name}{labels} {value}\n");
    }
    families.insert(name.to_owned(), text);
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(status: u8) -> RunOutcome {
        RunOutcome {
            started: UNIX_EPOCH + Duration::from_millis(1_000_500),
            duration: Duration::from_millis(2_250),
            status,
            signal: 0,
            cpu: Some([Duration::from_millis(500), Duration::from_millis(250)]),
            memory_peak_bytes: Some(1 << 20),
        }
    }

    #[test]
    fn each_family_has_its_unit_and_name() {
        let families = at_end(&outcome(0));
        let text: String = families
            .values()
            .flat_map(|text| text.lines().filter(|line| !line.starts_with('#')))
            .map(|line| format!("{line}\n"))
            .collect();
        let expected = "job_last_completion_timestamp_seconds 1002.75\n\
                        job_last_cpu_seconds{mode=\"system\"} 0.25\n\
                        job_last_cpu_seconds{mode=\"user\"} 0.5\n\
                        job_last_duration_seconds 2.25\n\
                        job_last_exit_signal 0\n\
                        job_last_exit_status 0\n\
                        job_last_memory_peak_bytes 1048576\n\
                        job_last_start_timestamp_seconds 1000.5\n\
                        job_last_success_timestamp_seconds 1002.75\n";
        assert_eq!(text, expected);
        assert!(families.keys().all(|name| NAMES.contains(&&**name)));
    }

    #[test]
    fn a_failed_run_leaves_the_last_success_as_it_is() {
        assert!(!at_end(&outcome(1)).contains_key(NAMES[2]));
    }
}
