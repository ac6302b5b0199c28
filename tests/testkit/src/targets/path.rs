//! Paths of requests, and the grouping keys in them: an accepted key has a path that leads to it, and can cross a link.

use pushrelay::exposition::NameValidation;
use pushrelay::gateway::path::{AddressedGroup, group_path, grouping_key};
use pushrelay::gateway::{Route, RouteConfig, Router};

use super::conversation;

/// The first byte selects how the rest is read: the allowed names, whether the job is base64, whether it is a whole
/// path.
pub fn run(data: &[u8]) {
    let Some((mode, rest)) = data.split_first() else { return };
    let names = if mode & 1 == 0 { NameValidation::Legacy } else { NameValidation::Utf8 };
    let router = Router::new(&RouteConfig { names, admin_api: true, lifecycle: true, ..RouteConfig::default() });
    if mode & 4 == 0 {
        let method = ["GET", "PUT", "POST", "DELETE", "OPTIONS", "HEAD"][usize::from(mode >> 3) % 6];
        let uri = String::from_utf8_lossy(rest);
        let (path, query) = uri.split_once('?').map_or((&*uri, None), |(path, query)| (path, Some(query)));
        let _ = router.route(method, path, query);
        return;
    }
    let is_encoded = mode & 2 != 0;
    let Ok(target) = grouping_key(rest, is_encoded, names) else {
        // A group with such a key may exist, sent by an edge with another rule for names.
        let Ok(group) = AddressedGroup::read(rest, is_encoded, names) else { return };
        if let Ok(target) = group.find(|_| true) {
            let path = format!("/metrics/{}", group_path(&target, names));
            let Route::Delete { group } = router.route("DELETE", &path, None) else { panic!("{path} is no group") };
            assert_eq!(group.find(|key| *key == target).as_ref(), Ok(&target), "{path}");
        }
        return;
    };
    conversation::cross(&target, &[]);
    let path = format!("/metrics/{}", group_path(&target, names));
    assert_eq!(
        router.route("PUT", &path, None),
        Route::Push { target: target.clone(), replace: true, adds: false },
        "{path}"
    );
    let Route::Delete { group } = router.route("DELETE", &path, None) else { panic!("{path} is no group") };
    assert_eq!(group.find(|_| false), Ok(target), "{path}");
}
