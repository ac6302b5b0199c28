//! Paths in which clients lose values, from the outside: the answer, the log, and the page of the group.

use pushrelay_testkit::process::logfmt;
use pushrelay_testkit::{Site, eventually};

/// The values of a field in the log lines with that message.
fn logged(lines: &[String], message: &str, field: &str) -> Vec<String> {
    let fields = lines.iter().map(|line| logfmt(line));
    let of = |fields: &[(String, String)], name: &str| {
        fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone())
    };
    fields
        .filter(|fields| of(fields, "msg").as_deref() == Some(message))
        .filter_map(|fields| of(&fields, field))
        .collect()
}

#[test]
fn an_odd_path_is_answered_as_ever_and_named_where_a_person_looks() {
    let (_site, _hub, mut edge) = Site::with_one_edge();
    let push = |path: &str| edge.request("PUT", path, &[], b"m 1\n");
    // These redirect to no group.
    assert_eq!(push("/static//metrics/job/x").status, 301);
    assert_eq!(push("//status?path=/metrics/job/x").status, 301);
    // As prom-client writes the value `a/b/c`: it becomes `x="a"` and `b="c"`.
    assert_eq!(push("/metrics/job/odd/x/a%2Fb%2Fc").status, 200);
    assert_eq!(push("/metrics/job/odd/x/a%2Fb%2Fd").status, 200);
    let redirected = push("/metrics/job/odd/x//y/z");
    assert_eq!((redirected.status, redirected.header("location")), (301, Some("/metrics/job/odd/x/y/z")));
    assert!(redirected.text().starts_with("nothing was pushed or deleted"), "{}", redirected.text());
    assert!(redirected.text().contains("the path has an empty part"), "{}", redirected.text());
    assert_eq!(push("/metrics/job/nightly+backup").status, 200);

    let page = edge.get("/status/group/job/odd/x/a/b/c").text();
    assert!(page.contains("probably meant another group: the path has an escaped slash"), "{page}");
    let page = edge.get("/status/group/job/nightly+backup").text();
    assert!(page.contains("The value of job has a plus"), "{page}");

    let message = "the path of a push or delete probably loses values";
    let paths = eventually("both patterns are logged", || {
        let paths = logged(&edge.process().lines(), message, "path");
        (paths.len() >= 2).then_some(paths)
    });
    assert_eq!(paths, ["/metrics/job/odd/x/a%2Fb%2Fc", "/metrics/job/odd/x//y/z"], "each pattern once");
    let harmless = logged(&edge.process().lines(), "the path of a push or delete may lose values", "path");
    assert_eq!(harmless, ["/metrics/job/nightly+backup"]);
}

#[test]
fn the_curl_line_of_a_groups_page_addresses_exactly_this_group() {
    let (_site, _hub, edge) = Site::with_one_edge();
    // The job `it's a+b`, a path, an empty value, and one of dots.
    let path = "job/it%27s%20a+b/path@base64/L3Zhci90bXA/empty@base64/=/dots@base64/Li4";
    edge.put(path, "m 1\n");
    let page = edge.get(&format!("/status/group/{path}")).text();
    let line = page.split("curl --data-binary @FILE '").nth(1).expect(&page).split('\'').next().unwrap();
    let url = line.replace("<span data-base>", "").replace("</span>", "");
    let target = url.strip_prefix(&format!("http://{}", edge.web())).expect(&url);
    assert_eq!(edge.request("POST", target, &[], b"n 2\n").status, 200);
    let labels = [("job", "it's a+b"), ("path", "/var/tmp"), ("empty", ""), ("dots", ".."), ("instance", "")];
    assert_eq!(edge.page().value("n", &labels), Some(2.0));
    assert_eq!(edge.page().values("push_time_seconds", &[]).len(), 1, "no other group came to be");
}
