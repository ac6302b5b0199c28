//! Passwords of HTTP basic authentication, hashed with bcrypt as in Prometheus's exporter-toolkit.
//!
//! bcrypt is slow by design: about 70 ms of CPU time at cost 10. So one hash is computed at a time, while another thread
//! serves the other connections, with a limit on waiting requests. The outcome is cached: for each user the right password,
//! and the last few wrong ones. The cache contains keyed digests that are worthless outside this process. A client without
//! a password cannot evict a right one.
//!
//! An unknown user costs as much time as a known one with a wrong password, so that the time does not reveal which
//! users exist.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use bcrypt::HashParts;
use tokio::sync::Semaphore;

/// The highest accepted cost. A higher one takes seconds per attempt, so that clients could saturate the processor.
const COST_MAX: u32 = 18;
const COST_MIN: u32 = 4;
/// The cost of an unknown user if no user is configured.
const COST_DEFAULT: u32 = 10;
/// Wrong passwords in the cache, at most: a client that repeats one costs no CPU time.
const WRONG_MAX: usize = 256;
/// Requests that wait for bcrypt, at most.
const WAITING_MAX: usize = 64;

/// Bytes of a password that bcrypt looks at.
const PASSWORD_BYTES_MAX: usize = 72;

/// A bcrypt hash of a password.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(String);

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

impl PasswordHash {
    /// The text of a password's hash, with 16 bytes of salt.
    ///
    /// # Errors
    /// The password is empty, or longer than bcrypt looks at.
    pub fn of(password: &str, salt: &[u8]) -> Result<String, String> {
        if password.is_empty() || password.len() > PASSWORD_BYTES_MAX {
            return Err(format!("a password has from 1 to {PASSWORD_BYTES_MAX} bytes, not {}", password.len()));
        }
        let salt = salt.try_into().map_err(|_| "the salt has not 16 bytes".to_owned())?;
        let hash = bcrypt::non_truncating_hash_with_salt(password, COST_DEFAULT, salt);
        hash.map(|parts| parts.format_for_version(bcrypt::Version::TwoY)).map_err(|error| format!("no hash: {error}"))
    }

    /// Parses a hash in the format of `htpasswd -B`. Error texts do not contain the hash.
    ///
    /// # Errors
    /// If it is not a bcrypt hash, or its cost is out of bounds.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parts: HashParts = text.parse().map_err(|error| {
            format!("this is no bcrypt hash, such as `htpasswd -nBC 10 \"\" | tr -d ':\\n'` makes one ({error})")
        })?;
        let cost = parts.get_cost();
        match cost {
            COST_MIN..=COST_MAX => Ok(Self(text.into())),
            _ => Err(format!("the cost of this bcrypt hash is {cost}: it must be from {COST_MIN} to {COST_MAX}")),
        }
    }

    fn cost(&self) -> u32 {
        self.0.parse::<HashParts>().map_or(COST_DEFAULT, |parts| parts.get_cost())
    }
}

/// The users and their password hashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Users {
    hashes: BTreeMap<String, PasswordHash>,
    /// A hash that unknown users are compared with.
    dummy_hash: PasswordHash,
}

impl Users {
    /// Users with these password hashes.
    pub fn new(hashes: BTreeMap<String, PasswordHash>) -> Self {
        let cost = hashes.values().map(PasswordHash::cost).max().unwrap_or(COST_DEFAULT);
        let dummy_hash = PasswordHash(format!("$2b${cost:02}${}", ".".repeat(53)));
        Self { hashes, dummy_hash }
    }

    /// Whether there is a user of that name.
    pub fn has(&self, name: &str) -> bool {
        self.hashes.contains_key(name)
    }

    /// Whether there are no users, so that authentication is off.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }
}

/// The outcome of verifying a name and a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthOutcome {
    /// The password is right.
    Right,
    /// The user is unknown or the password is wrong.
    Wrong,
    /// Too many requests wait for verification; the client should retry.
    Busy,
}

/// Verifies passwords, with a cache.
pub struct Verifier {
    key: hmac::Key,
    cache: Mutex<VerifiedCache>,
    /// Held while bcrypt runs.
    hashing: Semaphore,
    waiting: Semaphore,
}

#[derive(Default)]
struct VerifiedCache {
    /// The right password by user; entries are never more than the users there were.
    right: HashMap<String, hmac::Tag>,
    /// The wrong passwords, the latest at the end.
    wrong: VecDeque<hmac::Tag>,
}

impl VerifiedCache {
    fn get(&self, name: &str, tag: &hmac::Tag) -> Option<AuthOutcome> {
        let same = |other: &hmac::Tag| verify_slices_are_equal(other.as_ref(), tag.as_ref()).is_ok();
        if self.right.get(name).is_some_and(same) {
            return Some(AuthOutcome::Right);
        }
        self.wrong.iter().any(same).then_some(AuthOutcome::Wrong)
    }

    fn put(&mut self, name: &str, tag: hmac::Tag, right: bool) {
        if right {
            self.right.insert(name.into(), tag);
        } else {
            if self.wrong.len() >= WRONG_MAX {
                self.wrong.pop_front();
            }
            self.wrong.push_back(tag);
        }
    }
}

impl Verifier {
    /// A verifier with an empty cache. `secret` is the key of its digests: it must be random and must not be stored.
    pub fn new(secret: [u8; 32]) -> Self {
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &secret),
            cache: Mutex::default(),
            hashing: Semaphore::new(1),
            waiting: Semaphore::new(WAITING_MAX),
        }
    }

    /// Removes users from the cache who are not configured any more.
    pub fn retain(&self, users: &Users) {
        self.cache().right.retain(|name, _| users.hashes.contains_key(name));
    }

    /// Verifies a user's password.
    pub async fn verify(&self, users: &Users, name: &str, password: &[u8]) -> AuthOutcome {
        let known_user = users.hashes.get(name);
        let hash = known_user.unwrap_or(&users.dummy_hash);
        let tag = self.tag(name, hash, password);
        if let Some(outcome) = self.get(name, &tag) {
            return outcome;
        }
        let Ok(_waiting) = self.waiting.try_acquire() else { return AuthOutcome::Busy };
        let Ok(_permit) = self.hashing.acquire().await else { return AuthOutcome::Busy };
        // The request that had the permit before may have verified the same password.
        if let Some(outcome) = self.get(name, &tag) {
            return outcome;
        }
        // Another thread serves the other connections meanwhile. If the operating system has no other thread, they wait
        // for this hash; a task for it would wait for a thread, perhaps for ever.
        tokio::task::block_in_place(|| {
            let right = bcrypt::verify(password, &hash.0).unwrap_or(false) && known_user.is_some();
            self.cache().put(name, tag, right);
            if right { AuthOutcome::Right } else { AuthOutcome::Wrong }
        })
    }

    /// A digest of everything that decides the outcome, so that a changed hash is verified anew.
    fn tag(&self, name: &str, hash: &PasswordHash, password: &[u8]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.key);
        for part in [name.as_bytes(), hash.0.as_bytes(), password] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        context.sign()
    }

    fn get(&self, name: &str, tag: &hmac::Tag) -> Option<AuthOutcome> {
        self.cache().get(name, tag)
    }

    fn cache(&self) -> MutexGuard<'_, VerifiedCache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn users(pairs: &[(&str, &str)]) -> Users {
        let hash = |password: &str| PasswordHash::parse(&bcrypt::hash(password, 4).unwrap()).unwrap();
        Users::new(pairs.iter().map(|(name, password)| (name.to_string(), hash(password))).collect())
    }

    fn verifier() -> Verifier {
        Verifier::new([7; 32])
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn only_the_right_password_of_a_known_user_is_right() {
        let (users, verifier) = (users(&[("alice", "correct"), ("bob", "")]), verifier());
        for _ in 0..2 {
            for (name, password, outcome) in [
                ("alice", "correct", AuthOutcome::Right),
                ("alice", "wrong", AuthOutcome::Wrong),
                ("alice", "", AuthOutcome::Wrong),
                ("bob", "", AuthOutcome::Right),
                ("bob", "correct", AuthOutcome::Wrong),
                ("carol", "correct", AuthOutcome::Wrong),
                ("", "", AuthOutcome::Wrong),
            ] {
                assert_eq!(verifier.verify(&users, name, password.as_bytes()).await, outcome, "{name} {password}");
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn hashes_of_other_programs_are_taken() {
        // A hash from `htpasswd -B`, and the toolkit's own example of "fakepassword".
        let hash = "$2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi";
        let users = Users::new([("a".to_string(), PasswordHash::parse(hash).unwrap())].into());
        assert_eq!(verifier().verify(&users, "a", b"fakepassword").await, AuthOutcome::Right);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn wrong_passwords_do_not_evict_a_right_one() {
        let (users, verifier) = (users(&[("alice", "correct")]), verifier());
        verifier.verify(&users, "alice", b"correct").await;
        for i in 0..WRONG_MAX + 10 {
            verifier.cache().put("alice", verifier.tag("alice", &users.dummy_hash, &i.to_be_bytes()), false);
        }
        let cache = verifier.cache();
        assert_eq!((cache.right.len(), cache.wrong.len()), (1, WRONG_MAX));
        let tag = verifier.tag("alice", &users.hashes["alice"], b"correct");
        assert_eq!(cache.get("alice", &tag), Some(AuthOutcome::Right));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_changed_or_removed_user_is_asked_anew() {
        let verifier = verifier();
        let before = users(&[("alice", "old")]);
        assert_eq!(verifier.verify(&before, "alice", b"old").await, AuthOutcome::Right);
        let after = users(&[("alice", "new")]);
        assert_eq!(verifier.verify(&after, "alice", b"old").await, AuthOutcome::Wrong);
        assert_eq!(verifier.verify(&after, "alice", b"new").await, AuthOutcome::Right);
        let nobody = users(&[("bob", "x")]);
        verifier.retain(&nobody);
        assert!(verifier.cache().right.is_empty());
        assert_eq!(verifier.verify(&nobody, "alice", b"new").await, AuthOutcome::Wrong);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn waiting_requests_are_limited() {
        let (users, verifier) = (users(&[("alice", "correct")]), Arc::new(verifier()));
        let permit = verifier.hashing.acquire().await.unwrap();
        let mut waiting = tokio::task::JoinSet::new();
        for _ in 0..WAITING_MAX + 5 {
            let (users, verifier) = (users.clone(), verifier.clone());
            waiting.spawn(async move { verifier.verify(&users, "alice", b"correct").await });
        }
        for _ in 0..5 {
            assert_eq!(waiting.join_next().await.unwrap().unwrap(), AuthOutcome::Busy);
        }
        drop(permit);
        while let Some(outcome) = waiting.join_next().await {
            assert_eq!(outcome.unwrap(), AuthOutcome::Right);
        }
    }

    #[test]
    fn a_bad_hash_is_explained_and_not_shown() {
        for bad in ["", "secret", "$2y$31$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi", "$1$abc$def"] {
            let error = PasswordHash::parse(bad).unwrap_err();
            assert!(error.contains("bcrypt") && (bad.is_empty() || !error.contains(bad)), "{error}");
        }
        let hash = PasswordHash::parse(&bcrypt::hash("x", 4).unwrap()).unwrap();
        assert_eq!(format!("{:?}", Users::new([("a".into(), hash)].into())).matches("<secret>").count(), 2);
    }

    #[test]
    fn an_unknown_user_costs_as_much_as_the_most_expensive_known_one() {
        let hash = |cost| PasswordHash::parse(&bcrypt::hash("x", cost).unwrap()).unwrap();
        let users = Users::new([("a".to_string(), hash(4)), ("b".to_string(), hash(5))].into());
        assert_eq!(users.dummy_hash.cost(), 5);
        assert!(bcrypt::verify("x", &users.dummy_hash.0).is_ok(), "the decoy is a hash");
    }
}
