//! The files under `/static/`: the style sheet and the script of the pages.
//!
//! The pages link to them with a digest of their content, so that a browser caches them forever and requests a new
//! version under a new URL.

use std::sync::LazyLock;

use xxhash_rust::xxh3::xxh3_64;

use super::super::reply::HttpReply;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The digest of all assets, as in their URLs (`?v=…`).
pub(super) static VERSION: LazyLock<String> =
    LazyLock::new(|| format!("{:016x}", xxh3_64(&[STYLE.as_bytes(), SCRIPT.as_bytes()].concat())));

/// The reply to a request for the asset `name` with that query.
pub(in super::super) fn asset(name: &[u8], query: &str) -> HttpReply {
    let (content_type, body) = match name {
        b"page.css" => ("text/css; charset=utf-8", STYLE),
        b"page.js" => ("text/javascript; charset=utf-8", SCRIPT),
        _ => return HttpReply::not_found(),
    };
    let is_current = query.strip_prefix("v=") == Some(&**VERSION);
    // Without the digest the browser must revalidate: a new page must not use an old script.
    let cache_control = if is_current { "max-age=31536000, immutable" } else { "no-cache" };
    HttpReply::new(200, content_type, body)
        .with("X-Content-Type-Options", "nosniff")
        .with("Cache-Control", cache_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assets_are_served_and_nothing_else() {
        let caching = |name: &[u8], query: &str| {
            let reply = asset(name, query);
            let cache = reply.headers.iter().find(|(name, _)| *name == "Cache-Control");
            (reply.status, cache.is_some_and(|(_, value)| value.contains("immutable")))
        };
        let current = format!("v={}", *VERSION);
        for name in [b"page.css".as_slice(), b"page.js"] {
            assert_eq!(
                [caching(name, ""), caching(name, "v=0"), caching(name, &current)],
                [(200, false), (200, false), (200, true)]
            );
        }
        for name in [b"../mod.rs".as_slice(), b""] {
            assert_eq!(caching(name, &current), (404, false));
        }
    }
}
