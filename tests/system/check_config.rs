//! `pushrelay check-config` as a user runs it: it accepts a valid configuration and explains every error.

use std::path::Path;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};

use pushrelay_testkit::Site;
use pushrelay_testkit::process::{Outcome, bash, run};
use pushrelay_testkit::site::edge_config;

fn check(site: &Site, config: &str) -> Outcome {
    std::fs::write(site.path().join("checked.toml"), config).unwrap();
    run(site.path(), &["check-config", "checked.toml"])
}

/// A site with an edge's certificate, and the configuration of that edge.
fn edge_site() -> (Site, String) {
    let site = Site::new();
    site.pki(&["edge", "syq-1", "--label", "IDC=SYQ"]);
    let hub = "127.0.0.1:9443".parse().unwrap();
    let (cert, key) = (site.cert("syq-1.pem"), site.cert("syq-1.key"));
    let config = edge_config(&site.path().join("store"), hub, &site.cert("ca.pem"), &cert, &key);
    (site, config)
}

#[track_caller]
fn explains(outcome: &Outcome, words: &[&str]) {
    assert_eq!(outcome.code, Some(1), "{}", outcome.output);
    for word in words {
        assert!(outcome.output.contains(word), "no {word:?} in: {}", outcome.output);
    }
    assert!(!outcome.output.contains("panicked"), "{}", outcome.output);
}

#[test]
fn the_gateways_protection_is_checked() {
    let (site, edge) = edge_site();
    let yaml = |text: &str| std::fs::write(site.path().join("web.yml"), text).unwrap();
    let config = edge.replacen("[storage]", "config_file = 'web.yml'\n[storage]", 1);
    let hash = bcrypt::hash("x", 4).unwrap();
    yaml(&format!(
        "tls_server_config: {{cert_file: certs/hub.pem, key_file: certs/hub.key}}\nbasic_auth_users: {{a: {hash}}}\n"
    ));
    let outcome = check(&site, &config);
    assert_eq!(outcome.code, Some(0), "{}", outcome.output);
    assert!(outcome.output.contains("in TLS with passwords"), "{}", outcome.output);
    yaml("tls_server_config:\n  cert_file: certs/hub.pem\n  key_file: certs/ca.key\n");
    explains(&check(&site, &config), &["web.yml:3:13: ", "does not match"]);
    yaml("tls_server_config:\n  cert_file: certs/none.pem\n  key_file: certs/hub.key\n");
    explains(&check(&site, &config), &["web.yml:2:14: ", "none.pem"]);
    let tls = "[web.tls]\ncert_file = 'certs/hub.pem'\nkey_file = 'certs/hub.key'\nclient_auth_type = 'Nonsense'\n";
    let config = edge.replacen("[storage]", &format!("{tls}[storage]"), 1);
    explains(&check(&site, &config), &["checked.toml:6:20: ", "RequireAndVerifyClientCert"]);
}

#[test]
fn good_files_are_accepted() {
    let (site, edge) = edge_site();
    for config in [edge, site.hub_config("hub")] {
        let outcome = check(&site, &config);
        assert_eq!(outcome.code, Some(0), "{}", outcome.output);
        assert!(outcome.output.contains("OK"), "{}", outcome.output);
    }
}

/// The commented files of the repository, with the certificates that the README creates beside them.
#[test]
fn the_files_of_the_repository_are_accepted() {
    let site = Site::new();
    site.pki(&["edge", "syq-1", "--label", "IDC=SYQ"]);
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    for name in ["edge.toml", "hub.toml"] {
        let config = std::fs::read_to_string(repository.join(name)).unwrap();
        // The files may expect certificates beside themselves or under certs/.
        bash(&format!("cd '{}' && cp certs/*.* .", site.path().display()));
        let outcome = check(&site, &config);
        assert_eq!(outcome.code, Some(0), "{name}: {}", outcome.output);
    }
}

#[test]
fn unknown_keys_name_the_nearest_known_one() {
    let (site, config) = edge_site();
    let wrong = config.replace("listen_address", "listen_adress");
    explains(&check(&site, &wrong), &["checked.toml", "listen_adress", "listen_address"]);
    let wrong = config.replace("[storage]", "[storrage]");
    explains(&check(&site, &wrong), &["storrage", "storage"]);
}

#[test]
fn wrong_values_are_explained() {
    let (site, config) = edge_site();
    explains(&check(&site, &config.replace("127.0.0.1:0", "127.0.0.1:port")), &["127.0.0.1:port"]);
    explains(&check(&site, &config.replace("127.0.0.1:9443", "127.0.0.1")), &["127.0.0.1", "port"]);
    explains(&check(&site, "this is not TOML"), &["checked.toml"]);
    explains(&run(site.path(), &["check-config", "no-such-file.toml"]), &["no-such-file.toml"]);
}

#[test]
fn every_mistake_is_listed_not_only_the_first() {
    let (site, config) = edge_site();
    let wrong = config.replace("127.0.0.1:0", "nonsense").replace("syq-1.pem", "missing.pem");
    explains(&check(&site, &wrong), &["nonsense", "missing.pem"]);
}

#[test]
fn certificates_are_looked_into() {
    let (site, config) = edge_site();
    explains(&check(&site, &config.replace("syq-1.key", "hub.key")), &["syq-1.pem", "hub.key"]);
    explains(&check(&site, &config.replace("syq-1.pem", "syq-1.key")), &["certificate"]);
    explains(&check(&site, &config.replace("ca.pem", "nothing.pem")), &["nothing.pem"]);

    let key = KeyPair::generate().unwrap();
    let mut old = CertificateParams::new(vec![String::from("old")]).unwrap();
    (old.not_before, old.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2020, 2, 1));
    std::fs::write(site.cert("old.pem"), old.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(site.cert("old.key"), key.serialize_pem()).unwrap();
    explains(&check(&site, &config.replace("syq-1.", "old.")), &["old.pem", "is valid until 2020-02-01", "replace it"]);
}

/// A configuration that a node starts with, but that hardly does what it should.
#[test]
fn doubtful_files_and_labels_are_warned_of() {
    use std::os::unix::fs::PermissionsExt;
    let (site, config) = edge_site();
    let warned = |config: &str, words: &[&str]| {
        let outcome = check(&site, config);
        assert_eq!(outcome.code, Some(0), "{}", outcome.output);
        let warnings: Vec<&str> = outcome.output.lines().filter(|line| line.starts_with("warning: ")).collect();
        assert_eq!(warnings.len(), words.len(), "{}", outcome.output);
        for (warning, word) in warnings.iter().zip(words) {
            assert!(warning.starts_with("warning: checked.toml:") && warning.contains(word), "{warning}: {word}");
        }
    };
    warned(&config, &[]);
    let claims = |config: &str| config.replace("backoff_min", "labels = { IDC = 'BJ' }\nbackoff_min");
    warned(&claims(&config), &["the labels are ignored: the certificate names the site {IDC=\"SYQ\"}"]);
    site.pki(&["edge", "homeless"]);
    let homeless = config.replace("syq-1", "homeless");
    warned(&homeless, &["the certificate of the edge homeless names no site"]);
    warned(&claims(&homeless), &["only if it has trust_edge_labels = true"]);
    std::fs::set_permissions(site.cert("hub.key"), std::fs::Permissions::from_mode(0o644)).unwrap();
    warned(&site.hub_config("hub"), &["(mode 0644): chmod 600"]);
    std::fs::set_permissions(site.cert("syq-1.key"), std::fs::Permissions::from_mode(0o640)).unwrap();
    let web = "[web.tls]\ncert_file = 'certs/hub.pem'\nkey_file = 'certs/hub.key'\n[storage]";
    warned(&config.replacen("[storage]", web, 1), &["hub.key (mode 0644)"]);
    site.pki(&["hub", "127.0.0.1", "--days", "13", "--force"]);
    std::fs::set_permissions(site.cert("hub.key"), std::fs::Permissions::from_mode(0o600)).unwrap();
    warned(&config.replacen("[storage]", web, 1), &["days from now: renew it"]);
}

#[test]
fn a_misspelt_flag_gets_a_hint() {
    let site = Site::new();
    let hub = run(site.path(), &["hub", "-config.file", "hub.toml"]);
    assert_eq!(hub.code, Some(2));
    assert!(hub.output.contains("hint: flags have two dashes: --config.file"), "{}", hub.output);
}
