//! Planted mistakes: they prove that the oracle finds such mistakes. The product has no switches for them. The
//! simulation alters the commands, records, messages and effects that pass between the product's parts.

/// A planted mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    AnswerBeforeSync,
    AckBeforeSync,
    CursorApart,
    TombstoneDroppedEarly,
    HeldToldEarly,
    RetentionIgnored,
    ResyncWithoutTombstones,
    HalfTakenForWhole,
    WallClockStamps,
    HeldBackBlocks,
    EpochKept,
    ForgottenNotSaid,
    StalePosition,
    DictionaryKept,
    LostWakeUp,
    FailureIgnored,
    DamagedStoreKeepsIdentity,
    MemoryStoreKeepsIdentity,
    ReplacedWithoutWaiting,
    OtherSiteResumed,
}

impl Bug {
    /// All of them, each with what it is.
    pub const ALL: &'static [(Bug, &'static str)] = &[
        (Bug::AnswerBeforeSync, "a push is answered before its sync"),
        (Bug::AckBeforeSync, "an update is acknowledged before the receiver's sync"),
        (Bug::CursorApart, "the cursor is made durable before the groups it covers, in a transaction of its own"),
        (Bug::TombstoneDroppedEarly, "an edge drops a tombstone when one of its hubs has it"),
        (Bug::HeldToldEarly, "a tombstone goes at the ack, while older changes from the peer are being committed"),
        (Bug::RetentionIgnored, "a hub drops tombstones without regard to storage.tombstone_retention"),
        (Bug::ResyncWithoutTombstones, "a resync leaves out what is deleted, and so revives it"),
        (Bug::HalfTakenForWhole, "a real cursor is kept after the hub's half of a resync"),
        (Bug::WallClockStamps, "stamps are the wall clock's, later than nothing"),
        (Bug::HeldBackBlocks, "an update with a family that must be held back is refused"),
        (Bug::EpochKept, "a store keeps its epoch when it is opened again"),
        (Bug::ForgottenNotSaid, "a store does not say which tombstones it dropped"),
        (Bug::StalePosition, "a position is resumed although the peer's lineage does not have it"),
        (Bug::DictionaryKept, "the encoder's dictionary outlives its connection"),
        (Bug::LostWakeUp, "changes between the handshake's state and the subscription wake no link"),
        (Bug::FailureIgnored, "a commit that failed is published and answered all the same"),
        (Bug::DamagedStoreKeepsIdentity, "a store that lost something to damage keeps its identity"),
        (Bug::MemoryStoreKeepsIdentity, "a store in memory comes back under its old identity and epoch"),
        (Bug::ReplacedWithoutWaiting, "a session that replaces one reads the hub's state before that one's commits"),
        (Bug::OtherSiteResumed, "a cursor of one site is resumed at another"),
    ];
}
