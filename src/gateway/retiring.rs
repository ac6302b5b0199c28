//! The path and the query of a request that retires an edge.

/// The name of the edge, and whether to delete the groups of its site: `NAME/retire?groups=delete`.
///
/// # Errors
/// The form that the request should have.
pub(super) fn read(rest: &[u8], query: &str) -> Result<(String, bool), &'static str> {
    let rest = String::from_utf8_lossy(rest);
    let name = rest.strip_suffix("/retire");
    let name = name.ok_or("write PUT /api/v1/edges/NAME/retire, or DELETE /api/v1/edges/NAME")?;
    match query {
        "" | "groups=keep" => Ok((name.to_owned(), false)),
        "groups=delete" => Ok((name.to_owned(), true)),
        _ => Err("write groups=keep or groups=delete after the question mark"),
    }
}
