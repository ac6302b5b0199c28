//! The purposes of a connection between edge and hub, each with its subprotocol.

/// The path at which a hub accepts edges.
pub const PATH: &str = "/api/v1/relay";
/// The subprotocol of a session of the link.
pub const SUBPROTOCOL: &str = "pushrelay.v1";
/// The subprotocol of a check of the line, which opens no session.
pub const CHECK_SUBPROTOCOL: &str = "pushrelay.check.v1";
/// The subprotocol with which an edge gets a certificate, or a new one in place of the one it has.
pub const ENROL_SUBPROTOCOL: &str = "pushrelay.enrol.v1";
/// The beginning of a hub's answer to an unknown subprotocol.
pub(super) const OTHER_SUBPROTOCOL: &str = "the subprotocol must be";
/// Bytes of a message of a check, at most.
const CHECK_BYTES_MAX: usize = 256 << 10;
/// Bytes of a message of an enrolment, at most: certificates of some authorities.
const ENROL_BYTES_MAX: usize = 256 << 10;

/// The purpose of a connection, by its subprotocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkPurpose {
    /// A session of the link.
    Session,
    /// A check of the line.
    Check,
    /// A certificate for an edge.
    Enrol,
}

impl LinkPurpose {
    /// All purposes.
    pub const ALL: [Self; 3] = [Self::Session, Self::Check, Self::Enrol];

    pub(super) fn subprotocol(self) -> &'static str {
        match self {
            Self::Session => SUBPROTOCOL,
            Self::Check => CHECK_SUBPROTOCOL,
            Self::Enrol => ENROL_SUBPROTOCOL,
        }
    }

    pub(super) fn bytes_max(self, of_session: usize) -> usize {
        match self {
            Self::Session => of_session,
            Self::Check => CHECK_BYTES_MAX,
            Self::Enrol => ENROL_BYTES_MAX,
        }
    }

    /// The reason to refuse a request for this purpose where it is not offered.
    pub fn refusal(self) -> &'static str {
        match self {
            Self::Enrol => {
                "this hub issues no certificates: its configuration has no hub.enrol.dir; make one with `pushrelay pki edge`"
            }
            Self::Session | Self::Check => "this hub does not offer that here",
        }
    }
}
