//! Reading the body of a push: decompressed and parsed within the byte budget.

use crate::gateway::adding;
use crate::gateway::body::{BodyReader, Headers, PushError};
use crate::model::{Family, GaugeRule, Group, LabelSet, content_digest};
use crate::net::http::{Body, Exhausted};

/// A push of fewer bytes is parsed on the connection's thread, and its parsed form is not counted in the budget: that
/// is a few megabytes at most.
pub(super) const LARGE_BYTES: usize = 64 << 10;

/// The reasons for which a push cannot be parsed.
pub(super) enum PushReadError {
    /// The push is not valid.
    Refused(PushError),
    /// All requests together exceed the byte budget at the moment.
    Exhausted(Exhausted),
}

impl From<Exhausted> for PushReadError {
    fn from(error: Exhausted) -> Self {
        Self::Exhausted(error)
    }
}

impl From<PushError> for PushReadError {
    fn from(error: PushError) -> Self {
        Self::Refused(error)
    }
}

/// The circumstances in which a push is parsed.
#[derive(Clone, Copy)]
pub(super) struct PushTerms<'a> {
    pub(super) target: &'a LabelSet,
    /// The state of the group, or its sums.
    pub(super) current: Option<&'a Group>,
    /// How gauges are combined, if the push adds.
    pub(super) gauges: Option<GaugeRule>,
    /// Whether a digest of the body is needed.
    pub(super) is_digested: bool,
}

/// A push that was parsed.
pub(super) struct PushRead {
    pub(super) families: Vec<Family>,
    /// The digest of the decompressed body, if it was asked for.
    pub(super) digest: u128,
}

/// Parses a push. Its decompressed form is counted in the budget, and for a large push the parsed form too, which stays
/// in memory until the write.
pub(super) fn read_push(
    reader: &BodyReader,
    headers: Headers<'_>,
    body: &mut Body,
    PushTerms { target, current, gauges, is_digested }: PushTerms<'_>,
) -> Result<PushRead, PushReadError> {
    let decompressed = reader.decompress(headers, body)?;
    if let Some(decompressed) = &decompressed {
        body.grow(decompressed.len() as u64)?;
    }
    let plain = decompressed.as_deref().unwrap_or(body);
    let mut families = reader.read(headers, plain, target, current)?;
    if let Some(gauges) = gauges {
        families = adding::increments(families, gauges).map_err(PushError::Increment)?;
    }
    let digest = if is_digested { content_digest(&[plain]) } else { 0 };
    if plain.len() >= LARGE_BYTES {
        body.grow(families.iter().map(Family::bytes).sum::<usize>() as u64)?;
    }
    Ok(PushRead { families, digest })
}
