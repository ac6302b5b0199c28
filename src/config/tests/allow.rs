//! `[[allow]]` and `web.tokens`.

use super::*;
use crate::gateway::rights::Right;

const DIGEST: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
const OTHER_DIGEST: &str = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";
/// Of no bytes.
const EMPTY_DIGEST: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const USERS: &str =
    "[web]\nbasic_auth_users = { alice = '$2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi' }\n";

fn rule(keys: &str) -> String {
    format!("[[allow]]\n{keys}\n")
}

fn warnings(text: &str) -> Vec<String> {
    let warnings = read_text(None, text, &[]).unwrap().warnings;
    warnings.iter().map(|warning| warning.to_string().rsplit('/').next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn a_rule_says_who_may_do_what() {
    let rules = rule(
        "user = 'alice'\nmay = ['push', 'delete', 'push']\nmatch = '{team=\"a\"}'\ngroups_max = 3\npushes_per_second = 9",
    ) + &rule("anonymous = true\nmay = 'read'");
    let options = read_text(None, &(USERS.to_owned() + &rules), &[]).unwrap();
    assert_eq!(options.warnings, []);
    let rules: Vec<_> = options.node.allow.iter().collect();
    let first = &rules[0];
    assert_eq!(first.to_string(), "[[allow]] rule 1 (user \"alice\")");
    assert_eq!(
        (&first.rights[..], first.groups_max, first.series_max),
        (&[Right::Push, Right::Delete][..], Some(3), None)
    );
    assert_eq!((first.pushes_per_second, rules[1].to_string()), (Some(9), "[[allow]] rule 2 (anonymous)".to_owned()));
    assert!(load(None, &Flags::default()).unwrap().node.allow.is_empty());
}

#[test]
fn a_rule_that_cannot_be_meant_is_a_mistake() {
    for (keys, at, what) in [
        ("may = 'read'", "1:1", "one subject"),
        ("user = 'a'\ntoken = 'b'\nmay = 'read'", "1:1", "one subject"),
        ("user = 'a'", "1:1", "allow.may is not given"),
        ("user = 'a'\nmay = []", "3:7", "allow.may is not given"),
        ("user = 'a'\nmay = ['write']", "3:8", "admin"),
        ("user = 'a'\nmay = ['admin']\nmatch = '{team=\"a\"}'", "3:7", "whole node"),
        ("user = 'a'\nmay = ['read']\nmatch = 'm{team=\"a\"}'", "4:9", "name of a metric"),
        ("user = 'a'\nmay = ['read']\nmatch = '{team'", "4:9", "column"),
        ("user = 'a'\nmay = ['read']\ngroups_max = 1", "4:14", "allows none"),
        ("user = 'a'\nmay = ['push']\npushes_per_second = 0", "4:21", "from 1"),
        ("user = 'a'\nmay = ['push']\npushes_per_second = 1000001", "4:21", "1000000"),
    ] {
        let shown = mistakes(&rule(keys));
        assert!(shown.starts_with(&format!("c.toml:{at}: ")) && shown.contains(what), "{keys}: {shown}");
    }
    let shown = mistakes("[web.tokens]\nci = 'my secret'\n");
    assert!(shown.contains("sha256sum") && !shown.contains("my secret"), "{shown}");
    let shown = mistakes(&format!("[web.tokens]\nci = '{DIGEST}'\nops = '{DIGEST}'\n"));
    assert!(shown.contains("the tokens \"ci\" and \"ops\" are the same"), "{shown}");
    let shown = mistakes(&format!("[web.tokens]\nci = '{EMPTY_DIGEST}'\n"));
    assert!(shown.contains("the SHA-256 of an empty token"), "{shown}");
}

#[test]
fn rules_without_effect_and_unknown_subjects_are_explained() {
    let read = "may = ['read', 'push']";
    let text = USERS.to_owned()
        + &format!("tokens = {{ ci = '{DIGEST}', old = '{OTHER_DIGEST}' }}\n")
        + &rule(&format!("user = 'alice'\n{read}\nmatch = '{{team=~\"a|b\"}}'"))
        + &rule("user = 'alice'\nmay = 'read'\nmatch = '{team=\"a\",job=\"x\"}'")
        + &rule("user = 'alice'\nmay = 'read'\nmatch = '{job=\"\",team=\"a\"}'")
        + &rule("user = 'bob'\nmay = 'read'")
        + &rule("token = 'ci'\nmay = 'read'")
        + &rule("token = 'cd'\nmay = 'read'")
        + &rule("certificate = 'x'\nmay = 'read'");
    let expected = [
        "c.toml:3:10: the token \"old\" allows nothing: no [[allow]] rule names it",
        "c.toml:9:8: this rule has no effect: [[allow]] rule 1 (user \"alice\") in line 4 allows all that it allows, and \
         comes first",
        "c.toml:15:9: {job=\"\",team=\"a\"} matches no group: every group has a job that is not empty",
        "c.toml:17:8: nobody can be the user \"bob\": web.basic_auth_users, or the file of web.config_file, has none",
        "c.toml:23:9: nobody can have the token \"cd\": web.tokens has none of that name",
        "c.toml:26:15: no certificate counts: set web.tls.client_auth_type to one that verifies, such as \
         VerifyClientCertIfGiven",
    ];
    assert_eq!(warnings(&text), expected);
}

#[test]
fn the_rules_of_the_how_to_are_right() {
    let page = include_str!("../../../docs/how-to/give-teams-their-own-groups.md");
    let blocks: Vec<&str> = page.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(blocks.len(), 2);
    for block in blocks {
        let warnings = warnings(block);
        assert!(warnings.iter().all(|warning| warning.contains("nobody can be the user \"operator\"")), "{warnings:?}");
    }
}
