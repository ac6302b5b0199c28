//! Random numbers of the operating system: identities of stores, sessions and epochs, and secrets.

/// A random number that is not zero.
///
/// # Errors
/// If the operating system gives no random numbers.
pub fn random_id() -> Result<u64, getrandom::Error> {
    loop {
        let id = getrandom::u64()?;
        if id != 0 {
            return Ok(id);
        }
    }
}

/// Random bytes for a secret.
///
/// # Errors
/// If the operating system gives no random numbers.
pub fn secret() -> Result<[u8; 32], getrandom::Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

/// Random bytes, which do not compress.
///
/// # Errors
/// If the operating system gives no random numbers.
pub fn random_bytes(len: usize) -> Result<Vec<u8>, getrandom::Error> {
    let mut bytes = vec![0; len];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}
