//! The figures of a run.

use serde_json::{Value, json};

use crate::machine::{FOREIGN_MAX, Noise, SLOWER_MAX};

/// One measured value.
#[derive(Clone, Debug)]
pub struct Figure {
    pub row: &'static str,
    /// The case within the row; empty if the row has only one.
    pub case: String,
    pub server: &'static str,
    pub round: usize,
    /// The quantity measured; its unit comes last.
    pub metric: &'static str,
    pub value: f64,
    pub noise: Noise,
}

/// A measurement that failed.
#[derive(Clone, Debug)]
pub struct Failed {
    pub row: &'static str,
    pub server: &'static str,
    pub round: usize,
    pub reason: String,
}

/// All figures of a run.
#[derive(Default)]
pub struct Results {
    pub machine: Vec<(String, String)>,
    pub versions: Vec<(String, String)>,
    pub missing: Vec<String>,
    pub figures: Vec<Figure>,
    pub failed: Vec<Failed>,
}

impl Results {
    /// Whether a figure was taken while others used the machine, or while it was slower than at its best.
    pub fn is_noisy(&self, figure: &Figure) -> bool {
        let calibrations = self.figures.iter().map(|figure| figure.noise.calibration);
        let fastest = calibrations.min().unwrap_or(figure.noise.calibration);
        figure.noise.foreign > FOREIGN_MAX
            || figure.noise.calibration.as_secs_f64() > fastest.as_secs_f64() * SLOWER_MAX
    }

    /// Everything, for other programs.
    pub fn to_json(&self) -> Value {
        let pairs = |pairs: &[(String, String)]| -> Value {
            pairs.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect()
        };
        let figure = |figure: &Figure| {
            json!({
                "row": figure.row, "case": figure.case, "server": figure.server, "round": figure.round,
                "metric": figure.metric, "value": figure.value, "noisy": self.is_noisy(figure),
                "foreign_share": figure.noise.foreign,
                "calibration_ms": figure.noise.calibration.as_secs_f64() * 1e3,
            })
        };
        let failed = |failed: &Failed| json!({"row": failed.row, "server": failed.server, "round": failed.round, "reason": failed.reason});
        json!({
            "machine": pairs(&self.machine),
            "versions": pairs(&self.versions),
            "missing": self.missing,
            "figures": self.figures.iter().map(figure).collect::<Vec<_>>(),
            "failed": self.failed.iter().map(failed).collect::<Vec<_>>(),
        })
    }
}
