//! The roll of edges on the hub's disk, so that a restart forgets no edge.
//!
//! `edges.json` in the directory of the store is replaced as a whole: within a second after an edge came, went, was
//! refused, retired or forgotten, and now and then for the times at which connected edges were last heard.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::edges::{EDGES_MAX, EdgeRegistry, EdgeStatus, Refusal};
use super::missing::MissingChanges;
use crate::net::identity::{EdgeName, site_labels};
use crate::storage::whole;
use crate::wire::Health;

/// The name of the file.
const FILE: &str = "edges.json";
/// The name of a file that could not be read, which is kept.
const DAMAGED_FILE: &str = "edges.json.damaged";
/// Bytes of the file, at most.
const FILE_BYTES_MAX: u64 = 256 << 20;
/// Bytes of a text in it, at most: reasons and versions come from peers.
const TEXT_BYTES_MAX: usize = 1_024;
/// Reasons of refusals counted for one edge, at most.
const REASONS_MAX: usize = 32;
/// The format that this code reads and writes.
const VERSION: u32 = 1;
/// The time between two looks for changes.
const INTERVAL: Duration = Duration::from_secs(1);
/// The roll is written no more often than this many times the duration of the last write apart.
const PAUSE_FACTOR: u32 = 20;
/// The time after which the roll is written although no edge came or went.
const REFRESH: Duration = Duration::from_secs(300);

#[derive(Debug, Serialize, Deserialize)]
struct RollFile {
    version: u32,
    edges: Vec<RollEntry>,
}

/// An edge as the file has it. Fields that an older version did not write are empty.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct RollEntry {
    name: String,
    site: BTreeMap<String, String>,
    last_seen_ns: u64,
    missing_since_ns: Option<u64>,
    last_error: String,
    refusal: Option<Refusal>,
    refused: BTreeMap<String, u64>,
    address: Option<SocketAddr>,
    has_token: bool,
    certificate_start_seconds: u64,
    certificate_expiry_seconds: u64,
    software: String,
    groups: Option<u64>,
    series: Option<u64>,
    sessions: u64,
    resyncs: u64,
    retired_ns: u64,
}

impl RollEntry {
    fn of(name: String, edge: EdgeStatus) -> Self {
        Self {
            name,
            site: edge.site.iter().map(|label| (label.name.to_owned(), label.value.to_owned())).collect(),
            last_seen_ns: edge.link.last_seen_ns,
            missing_since_ns: edge.missing.since_ns,
            last_error: edge.link.last_error,
            refusal: edge.refusal,
            refused: edge.refused,
            address: edge.address,
            has_token: edge.has_token,
            certificate_start_seconds: edge.certificate_start_seconds,
            certificate_expiry_seconds: edge.certificate_expiry_seconds,
            software: edge.software,
            groups: edge.health.groups,
            series: edge.health.series,
            sessions: edge.link.sessions,
            resyncs: edge.link.resyncs,
            retired_ns: edge.retired_ns,
        }
    }

    /// The status of an edge that is not connected; `None` if its name or labels are not those of an edge.
    fn status(self) -> Option<(String, EdgeStatus)> {
        let name: EdgeName = self.name.parse().ok()?;
        let site = site_labels(self.site.into_iter().collect()).ok()?;
        let mut edge = EdgeStatus { site: Arc::new(site), address: self.address, ..EdgeStatus::default() };
        edge.link.last_seen_ns = self.last_seen_ns;
        edge.link.last_error = cut(self.last_error);
        edge.missing = MissingChanges::restored(self.missing_since_ns);
        edge.link.sessions = self.sessions;
        edge.link.resyncs = self.resyncs;
        let short = |refusal: Refusal| Refusal { reason: cut(refusal.reason), text: cut(refusal.text), ..refusal };
        edge.refusal = self.refusal.map(short);
        edge.refused = self.refused.into_iter().take(REASONS_MAX).map(|(reason, n)| (cut(reason), n)).collect();
        edge.has_token = self.has_token;
        edge.certificate_start_seconds = self.certificate_start_seconds;
        edge.certificate_expiry_seconds = self.certificate_expiry_seconds;
        edge.software = cut(self.software);
        edge.health = Health { groups: self.groups, series: self.series, ..Health::default() }.into();
        edge.retired_ns = self.retired_ns;
        Some((name.as_str().to_owned(), edge))
    }
}

fn cut(text: String) -> String {
    text[..text.floor_char_boundary(TEXT_BYTES_MAX)].to_owned()
}

/// Parses the file.
///
/// # Errors
/// If it is no roll, or one of a later version.
fn parse(text: &str) -> Result<Vec<RollEntry>, String> {
    let file: RollFile = serde_json::from_str(text).map_err(|error| error.to_string())?;
    match file.version {
        VERSION => Ok(file.edges),
        later => Err(format!("it has version {later}, and this program reads version {VERSION}")),
    }
}

/// Keeps the roll of a hub on its disk.
pub struct Roll {
    edges: Arc<EdgeRegistry>,
    /// The directory of the store; `None` for a store in memory only.
    folder: Option<PathBuf>,
    /// [`EdgeRegistry::changes`] when the roll was last written.
    written: Arc<Mutex<u64>>,
}

impl Roll {
    /// Reads the roll of the last run into `edges`. A roll that cannot be read is set aside and begins anew. The edges bring
    /// its data again, except which of them are retired: an error in the log says so.
    pub fn read(edges: Arc<EdgeRegistry>, folder: Option<PathBuf>) -> Roll {
        if let Some(folder) = &folder {
            restore(&edges, folder);
        }
        Roll { written: Arc::new(Mutex::new(edges.changes())), edges, folder }
    }

    /// Writes the roll, if it has changes that the disk lacks or `always` is set.
    ///
    /// # Errors
    /// If the disk refuses.
    pub async fn save(&self, always: bool) -> io::Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        // The guard goes with the write, which goes on if nobody awaits it any more: no two may write at once.
        let mut written = self.written.clone().lock_owned().await;
        let changes = self.edges.changes();
        if always || *written != changes {
            let (edges, folder) = (self.edges.clone(), folder.clone());
            let writing = tokio::task::spawn_blocking(move || {
                write(&edges, &folder)?;
                *written = changes;
                Ok(())
            });
            writing.await.unwrap_or_else(|error| Err(io::Error::other(error)))?;
        }
        Ok(())
    }

    /// Writes the roll whenever it changes, until the node stops. The last write is [`Roll::save`], after all links
    /// have ended.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let (mut pause, mut refreshed, mut failing) = (INTERVAL, Instant::now(), false);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            let began = Instant::now();
            let is_refresh = began - refreshed >= REFRESH;
            if is_refresh {
                refreshed = began;
            }
            match self.save(is_refresh).await {
                Ok(()) => failing = false,
                Err(error) if !std::mem::replace(&mut failing, true) => {
                    warn!(%error, "the roll of edges cannot be written: a restart would forget what changed since");
                }
                Err(_) => {}
            }
            pause = INTERVAL.max(began.elapsed().saturating_mul(PAUSE_FACTOR));
        }
    }
}

fn restore(edges: &EdgeRegistry, folder: &Path) {
    let path = folder.join(FILE);
    let read = whole::read(&path, FILE_BYTES_MAX).map_err(|error| error.to_string());
    let entries = match read.and_then(|text| text.as_deref().map(parse).transpose()) {
        Ok(Some(entries)) => entries,
        Ok(None) => return,
        Err(reason) => {
            let kept = folder.join(DAMAGED_FILE);
            let renamed = std::fs::rename(&path, &kept);
            error!(
                path = %path.display(),
                reason,
                kept = renamed.is_ok().then(|| kept.display().to_string()),
                "the roll of edges cannot be read and begins anew: retired edges are admitted again"
            );
            return;
        }
    };
    for (name, status) in entries.into_iter().take(EDGES_MAX).filter_map(RollEntry::status) {
        edges.update(&name, |edge| *edge = status);
    }
    info!(edges = edges.count() as u64, "the roll of edges is read");
}

fn write(edges: &EdgeRegistry, folder: &Path) -> io::Result<()> {
    let edges = edges.list().into_iter().map(|(name, edge)| RollEntry::of(name, edge)).collect();
    let content = serde_json::to_vec(&RollFile { version: VERSION, edges }).map_err(io::Error::other)?;
    whole::replace(folder, FILE, &content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::LabelSet;
    use crate::net::testing::TempDir;

    fn read(temp: &TempDir) -> Arc<EdgeRegistry> {
        let edges = Arc::<EdgeRegistry>::default();
        Roll::read(edges.clone(), Some(temp.path().to_owned()));
        edges
    }

    #[test]
    fn the_roll_survives_a_restart() {
        let temp = TempDir::new();
        let edges = read(&temp);
        edges.update("syq-1", |edge| {
            edge.site = Arc::new(LabelSet::new([("IDC", "SYQ")]));
            edge.link.connected = true;
            edge.link.last_seen_ns = 7;
            edge.link.last_error = "silence".into();
            edge.refused.insert("not authorized".into(), 3);
            edge.software = "pushrelay 0.1.0".into();
            edge.health = Health { groups: Some(2), ..Health::default() }.into();
            edge.certificate_expiry_seconds = 9;
        });
        edges.update("bj-1", |edge| {
            edge.retired_ns = 5;
            edge.refusal = Some(Refusal { reason: "a".into(), text: "b".into(), at_ns: 4 });
        });
        write(&edges, temp.path()).unwrap();
        let restored = read(&temp).list();
        let (_, away) = restored.iter().find(|(name, _)| name == "syq-1").unwrap();
        assert!(!away.link.connected);
        assert_eq!((away.link.last_seen_ns, &*away.link.last_error), (7, "silence"));
        assert_eq!((*away.site).clone(), LabelSet::new([("IDC", "SYQ")]));
        assert_eq!(
            (away.refused["not authorized"], &*away.software, away.health.groups),
            (3, "pushrelay 0.1.0", Some(2))
        );
        let (_, retired) = restored.iter().find(|(name, _)| name == "bj-1").unwrap();
        assert_eq!((retired.retired_ns, retired.refusal.as_ref().unwrap().at_ns), (5, 4));
    }

    #[test]
    fn a_roll_that_cannot_be_read_is_kept_aside() {
        for content in ["{", r#"{"version":2,"edges":[]}"#] {
            let temp = TempDir::new();
            temp.write(FILE, content);
            assert_eq!(read(&temp).count(), 0);
            assert_eq!(std::fs::read_to_string(temp.path().join(DAMAGED_FILE)).unwrap(), content);
        }
    }

    #[test]
    fn names_labels_and_texts_of_the_file_are_bounded() {
        let temp = TempDir::new();
        let long = "é".repeat(TEXT_BYTES_MAX);
        let entry = |name: &str, label: &str| RollEntry {
            name: name.into(),
            site: [(label.to_owned(), "x".to_owned())].into(),
            last_error: long.clone(),
            ..RollEntry::default()
        };
        let edges = vec![entry("a", "IDC"), entry("../a", "IDC"), entry("b", "job")];
        temp.write(FILE, &serde_json::to_string(&RollFile { version: 1, edges }).unwrap());
        let read = read(&temp).list();
        assert_eq!(read.iter().map(|(name, _)| &**name).collect::<Vec<_>>(), ["a"]);
        assert!(read[0].1.link.last_error.len() <= TEXT_BYTES_MAX);
    }
}
