//! Planted mistakes: they prove that the oracle finds such mistakes. The product has no switches for them. The
//! simulation alters the commands, records, messages and effects that pass between the product's parts.

/// Defines the mistakes, each with its description.
macro_rules! bugs {
    ($($name:ident: $text:literal,)*) => {
        /// A planted mistake.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Bug {
            $(#[doc = concat!("Planted: ", $text, ".")] $name,)*
        }

        impl Bug {
            /// All of them, each with its description.
            pub const ALL: &'static [(Bug, &'static str)] = &[$((Bug::$name, $text),)*];
        }
    };
}

bugs! {
    AnswerBeforeSync: "a push is answered before its sync",
    AckBeforeSync: "an update is acknowledged before the receiver's sync",
    CursorApart: "the cursor is made durable before the groups it covers, in a transaction of its own",
    TombstoneDroppedEarly: "an edge drops a tombstone when one of its hubs has it",
    AckReportedEarly: "a tombstone is dropped at the ack, while older changes from the peer wait to be committed",
    RetentionIgnored: "a hub drops tombstones without regard to storage.tombstone_retention",
    ResyncWithoutTombstones: "a resync leaves out deleted groups, and so revives them",
    HalfResyncCounts: "a real cursor is kept after the hub's half of a resync",
    WallClockStamps: "write timestamps are the wall clock's, not later than earlier writes",
    ConflictRefusesUpdate: "an update with a family that must be held back is refused",
    EpochKept: "a store keeps its epoch when it is opened again",
    WatermarkHidden: "a store does not say which tombstones it dropped",
    StalePosition: "a position is resumed although the peer's lineage does not have it",
    DictionaryKept: "the encoder's dictionary outlives its connection",
    LostWakeUp: "changes between the peer info and the subscription wake no link",
    FailureIgnored: "a commit that failed is published and answered all the same",
    DamagedStoreKeepsIdentity: "a store that lost something to damage keeps its identity",
    MemoryStoreKeepsIdentity: "a store in memory comes back under its old identity and epoch",
    ReplacedWithoutWaiting: "a session that replaces one reads the hub's peer info before that one's commits",
    ProgressKept: "a node that was started again continues the resync that it began before",
    HealthLeftOut: "a heartbeat leaves out the health that changed",
    ExpiryStampedLate: "an expiry has the write timestamp of the sweep, not the one after the push",
    RefusedPushProlongs: "a refused push prolongs the life of its group",
    ContributionMixed: "a peer's contribution is merged into the receiver's own",
    ContributionReused: "a store that was rolled back goes on with its former contribution",
    ContributionAddedAgain: "a contribution that arrives again is added once more",
    KeyForgotten: "idempotency keys are forgotten at a restart",
    DeleteSparesContributions: "a delete leaves the contributions that began before it",
    BirthsNotMoved: "a corrected clock moves a delete past the contributions that began after it",
    OtherSiteResumed: "a cursor of one site is resumed at another",
}
