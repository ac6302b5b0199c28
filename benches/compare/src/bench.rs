//! A run: every selected row, round by round, with the servers interleaved, and the report at the end.

use std::fs;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::Result;
use crate::body::{Body, Each};
use crate::deployment::{Certificates, Deployment, Kind, Setup, Site};
use crate::load::{self, Load, Outcome, Requests};
use crate::machine::{self, Noise};
use crate::options::Options;
use crate::peers::Peers;
use crate::results::{Failed, Figure, Results};
use crate::rows::{STAGES, Scale, Stage};
use crate::{report, rows};

/// The inputs of a stage.
pub struct Bench {
    pub options: Options,
    pub peers: Peers,
    pub scale: Scale,
    certificates: Option<Certificates>,
    results: Results,
}

/// The table cell of a measurement.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    pub kind: Kind,
    pub round: usize,
}

impl Bench {
    pub fn new(mut options: Options) -> Result<Self> {
        fs::create_dir_all(&options.work)?;
        options.work = options.work.canonicalize()?;
        let peers = Peers::find(&options.ours, options.peers.as_deref());
        let scale = if options.quick { rows::QUICK } else { rows::FULL };
        let certificates = match &peers.ours {
            // One more than the fleet: every deployment has an edge of its own.
            Some(ours) => Some(Certificates::make(ours, &options.work.join("certificates"), scale.edges + 1)?),
            None => None,
        };
        let results = Results {
            machine: machine::describe(&options.work),
            versions: peers.versions(),
            missing: peers.missing(),
            ..Results::default()
        };
        Ok(Self { options, peers, scale, certificates, results })
    }

    /// Runs all stages, writes the figures after each, then prints the tables.
    pub fn run(mut self) -> Result<()> {
        for missing in &self.results.missing {
            eprintln!("compare: {missing}");
        }
        if let Some(folder) = self.options.json.parent() {
            fs::create_dir_all(folder)?;
        }
        let turns = STAGES.iter().map(|stage| self.turns(stage).len() as u64).sum();
        let template = "compare: {msg} {wide_bar} {pos}/{len} turns, {elapsed}";
        let bar = ProgressBar::new(turns).with_style(ProgressStyle::with_template(template)?);
        bar.enable_steady_tick(Duration::from_millis(200));
        for stage in STAGES {
            self.run_stage(stage, &bar);
            // Written after each stage, so that a run that is ended early leaves its figures.
            fs::write(&self.options.json, format!("{:#}\n", self.results.to_json()))?;
        }
        bar.finish_and_clear();
        print!("{}", report::print(&self.results));
        eprintln!("compare: raw figures are in {}", self.options.json.display());
        Ok(())
    }

    /// The measurements of a stage that are wanted and possible, servers interleaved.
    fn turns(&self, stage: &Stage) -> Vec<Turn> {
        if !stage.rows.iter().any(|row| self.wants(row)) {
            return Vec::new();
        }
        let named = |kind: &Kind| {
            self.options.servers.is_empty() || self.options.servers.iter().any(|server| server == kind.name())
        };
        let kinds = stage.servers.iter().copied().filter(|kind| named(kind) && kind.is_present(&self.peers));
        let kinds: Vec<Kind> = kinds.collect();
        let rounds = 0..self.options.rounds.min(stage.rounds_max);
        rounds.flat_map(|round| kinds.iter().map(move |kind| Turn { kind: *kind, round })).collect()
    }

    fn run_stage(&mut self, stage: &Stage, bar: &ProgressBar) {
        for turn in self.turns(stage) {
            let Turn { kind, round } = turn;
            let what = format!("{} round {}: {}", stage.rows.join(" "), round + 1, kind.name());
            // Without a terminal each measurement is a line.
            if bar.is_hidden() {
                eprintln!("compare: {what}");
            }
            bar.set_message(what);
            if let Err(error) = (stage.run)(self, turn) {
                bar.suspend(|| eprintln!("compare: {error}"));
                let reason = error.to_string();
                self.results.failed.push(Failed { row: stage.rows[0], server: kind.name(), round, reason });
            }
            bar.inc(1);
        }
    }

    /// Whether a row is to be measured.
    pub fn wants(&self, row: &str) -> bool {
        self.options.only.is_empty() || self.options.only.iter().any(|only| only == row)
    }

    /// Keeps figures of one measurement.
    pub fn record(&mut self, turn: Turn, row: &'static str, case: &str, noise: Noise, metrics: &[(&'static str, f64)]) {
        for (metric, value) in metrics {
            self.results.figures.push(Figure {
                row,
                case: case.to_owned(),
                server: turn.kind.name(),
                round: turn.round,
                metric,
                value: *value,
                noise,
            });
        }
    }

    /// The inputs for a deployment's start.
    pub fn site(&self) -> Site<'_> {
        Site {
            peers: &self.peers,
            certificates: self.certificates.as_ref(),
            folder: self.options.work.join("deployment"),
        }
    }

    /// Starts an empty deployment.
    pub fn start(&self, kind: Kind, setup: Setup) -> Result<Deployment> {
        Deployment::start(&self.site(), kind, setup)
    }

    /// Starts a deployment with groups in it. A large Pushgateway is filled without checks, which would take hours,
    /// and started again from its saved state.
    pub fn start_filled(&self, kind: Kind, mut setup: Setup, body: &Body, groups: usize) -> Result<Deployment> {
        let started = if kind == Kind::Checked { Kind::Unchecked } else { kind };
        if kind == Kind::Checked && setup.saving.is_none() {
            setup.saving = Some("60m");
        }
        let mut deployment = self.start(started, setup)?;
        self.fill(&deployment, body, groups)?;
        if kind == Kind::Checked {
            deployment.check_again()?;
        }
        deployment.settle();
        Ok(deployment)
    }

    /// Pushes a body to each of many groups, once, as fast as the server takes it.
    pub fn fill(&self, deployment: &Deployment, body: &Body, groups: usize) -> Result<Outcome> {
        let load = Load {
            address: deployment.push,
            connections: if body.len() > 1_000 { 4 } else { 16 },
            requests_max: groups,
            time_max: Duration::from_secs(600),
            rate: None,
            reconnect: false,
        };
        self.load(&load, &mut Each::new(body, deployment.prefix(), "filled", groups))
    }

    /// Runs a load; every request must succeed.
    pub fn load(&self, load: &Load, requests: &mut dyn Requests) -> Result<Outcome> {
        load::run(load, requests)?.checked()
    }
}
