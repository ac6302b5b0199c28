//! Delivers the metrics of a run to the node, beside the command and for a short time after it; spools what the node does
//! not take.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout, timeout_at};

use super::report::{FamilyTexts, NAMES};
use super::spool::{self, Spool, SpoolFile, Spooled};
use crate::net::http::client::Client;

/// The time after the command's end for a request that is under way.
const UNDER_WAY: Duration = Duration::from_millis(250);
/// The time after the command's end until the metrics must be delivered; later they are spooled.
const DELIVERY: Duration = Duration::from_millis(700);
/// The time for one request while the command runs.
const REQUEST: Duration = Duration::from_secs(10);
/// The pause between two attempts to lock a file of the spool.
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// The metrics of a run that has ended.
pub struct FinishedRun {
    /// The metrics of the run.
    pub families: FamilyTexts,
    /// The job's own metrics.
    pub own: FamilyTexts,
    /// The end of the command.
    pub at: Instant,
}

/// Brings the metrics of one group to its node.
pub struct Courier {
    /// The client, or the reason why there is none.
    pub client: Result<Client, String>,
    /// The URL of the node.
    pub node: String,
    /// The path of the group's pushes.
    pub path: String,
    /// The spool, if this user can have one.
    pub spool: Option<Spool>,
}

/// The outcome of one request.
enum Delivery {
    Taken,
    /// The node will never take these metrics.
    Refused(String),
    /// The node may take them later, after a change of rights or settings.
    Forbidden(String),
    /// The node is away, or cannot take them now.
    Away,
}

impl Courier {
    /// Delivers the start of the run, and what waits in the spool, while the command runs; then the run's own metrics.
    /// Returns warnings for the operator.
    pub async fn run(self, start: FamilyTexts, finished: oneshot::Receiver<FinishedRun>) -> Vec<String> {
        let mut warnings = Vec::new();
        let begin = self.begin(start);
        tokio::pin!(begin);
        let mut finished = finished;
        let (run, is_under_way) = tokio::select! {
            run = &mut finished => (run, true),
            () = &mut begin => (finished.await, false),
        };
        let Ok(run) = run else { return warnings };
        // A request that is under way could otherwise arrive after the next one. If it is not answered soon, the next one
        // would not be either.
        let may_send = !is_under_way || timeout(UNDER_WAY, begin).await.is_ok();
        self.finish(run, may_send, &mut warnings).await;
        warnings
    }

    /// Delivers the start, and then the files of other groups of this node.
    async fn begin(&self, start: FamilyTexts) {
        let Ok(client) = &self.client else { return };
        let own = self.spool.as_ref().map(|spool| spool.path_of(&self.node, &self.path));
        {
            let file = own.as_deref().and_then(|path| self.lock(path, false));
            let mut families = file.as_ref().map(|file| file.read().families).unwrap_or_default();
            families.extend(start);
            let taken = self.send(client, &self.path, &families, REQUEST).await;
            match (taken, file) {
                (Delivery::Taken, Some(file)) => file.remove(),
                (Delivery::Taken, None) => {}
                _ => return,
            }
        }
        let others = self.spool.iter().flat_map(Spool::files).filter(|path| Some(path) != own.as_ref());
        for path in others.collect::<Vec<PathBuf>>() {
            let Some(file) = self.lock(&path, false) else { continue };
            let spooled = file.read();
            if spooled.node != self.node || spooled.families.is_empty() {
                continue;
            }
            match self.send(client, &spooled.path, &spooled.families, REQUEST).await {
                Delivery::Taken => file.remove(),
                // The next run of its own job reports it.
                Delivery::Refused(_) | Delivery::Forbidden(_) => {}
                Delivery::Away => return,
            }
        }
    }

    async fn finish(&self, run: FinishedRun, may_send: bool, warnings: &mut Vec<String>) {
        let deadline = run.at + DELIVERY;
        let path = self.spool.as_ref().map(|spool| spool.path_of(&self.node, &self.path));
        let (file, is_alone) = match (&self.spool, &path) {
            (Some(_), Some(path)) => self.lock_until(path, deadline, warnings).await,
            _ => (None, true),
        };
        let waiting = path.as_deref().map(|path| file.as_ref().map_or_else(|| spool::read(path), SpoolFile::read));
        let mut families = waiting.unwrap_or_default().families;
        let own_names: Vec<String> =
            families.keys().chain(run.own.keys()).filter(|name| !NAMES.contains(&name.as_str())).cloned().collect();
        families.extend(run.families);
        families.extend(run.own);
        if may_send && is_alone {
            match &self.client {
                Err(reason) => warnings.push(reason.clone()),
                Ok(client) => {
                    let left = |deadline: Instant| deadline.saturating_duration_since(Instant::now());
                    let mut delivery = self.send(client, &self.path, &families, left(deadline)).await;
                    if let Delivery::Refused(reason) = &delivery
                        && !own_names.is_empty()
                    {
                        warnings.push(format!("{reason}; delivering the metrics of the run without the job's own"));
                        families.retain(|name, _| !own_names.contains(name));
                        delivery = self.send(client, &self.path, &families, left(deadline)).await;
                    }
                    match delivery {
                        Delivery::Taken => return file.map(SpoolFile::remove).unwrap_or_default(),
                        Delivery::Refused(reason) => {
                            warnings.push(format!("{reason}; the metrics of this run are lost"));
                            return file.map(SpoolFile::remove).unwrap_or_default();
                        }
                        Delivery::Forbidden(reason) => warnings.push(reason),
                        Delivery::Away => {}
                    }
                }
            }
        }
        self.keep(path.as_deref(), families, &own_names, warnings);
    }

    /// Puts the metrics into the spool.
    fn keep(&self, path: Option<&Path>, families: FamilyTexts, own_names: &[String], warnings: &mut Vec<String>) {
        let (Some(spool), Some(path)) = (&self.spool, path) else {
            warnings.push(
                "the node is away, and there is no directory for a spool (--spool): the metrics of this run are lost"
                    .into(),
            );
            return;
        };
        let mut spooled = Spooled { node: self.node.clone(), path: self.path.clone(), families };
        let directory = spool.directory().display();
        let Err(error) = spool.write(path, &spooled) else { return };
        spooled.families.retain(|name, _| !own_names.contains(name));
        match spool.write(path, &spooled) {
            Ok(()) => {
                warnings.push(format!("the job's own metrics are lost: cannot spool them in {directory}: {error}"))
            }
            Err(error) => {
                warnings.push(format!("the metrics of this run are lost: cannot spool them in {directory}: {error}"))
            }
        }
    }

    /// Locks a file of the spool, if that is possible at once.
    fn lock(&self, path: &Path, create: bool) -> Option<SpoolFile> {
        self.spool.as_ref()?.lock(path, create).ok().flatten()
    }

    /// Locks the group's file. Returns it, and whether no other process delivers this group.
    async fn lock_until(
        &self,
        path: &Path,
        deadline: Instant,
        warnings: &mut Vec<String>,
    ) -> (Option<SpoolFile>, bool) {
        let Some(spool) = &self.spool else { return (None, true) };
        let locked = async {
            loop {
                match spool.lock(path, true) {
                    Ok(Some(file)) => return (Some(file), true),
                    Ok(None) => sleep(LOCK_PAUSE).await,
                    Err(error) => {
                        warnings.push(format!("cannot use the spool in {}: {error}", spool.directory().display()));
                        return (None, true);
                    }
                }
            }
        };
        timeout_at(deadline.into(), locked).await.unwrap_or((None, false))
    }

    async fn send(&self, client: &Client, path: &str, families: &FamilyTexts, limit: Duration) -> Delivery {
        let body = Bytes::from(families.values().map(String::as_str).collect::<String>());
        let answer = match timeout(limit, client.request("POST", path, body)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => return Delivery::Away,
        };
        let reason = || super::super::node_url::refusal(&self.node, &answer);
        match answer.status {
            200 | 202 => Delivery::Taken,
            400 | 409 | 413 | 422 => Delivery::Refused(reason()),
            429 | 500.. => Delivery::Away,
            _ => Delivery::Forbidden(reason()),
        }
    }
}
