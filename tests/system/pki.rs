//! `pushrelay pki` as a user runs it.

use std::os::unix::fs::PermissionsExt;

use pushrelay_testkit::Folder;
use pushrelay_testkit::process::{bash, run};

#[test]
fn it_makes_what_the_readme_says() {
    let folder = Folder::new();
    for arguments in [
        &["pki", "init"][..],
        &["pki", "hub", "hub.example.org", "127.0.0.1"],
        &["pki", "edge", "syq-1", "--label", "IDC=SYQ"],
    ] {
        let outcome = run(folder.path(), arguments);
        assert_eq!(outcome.code, Some(0), "{arguments:?}: {}", outcome.output);
    }
    let certs = folder.path().join("certs");
    for name in ["ca", "hub", "syq-1"] {
        let cert = std::fs::read_to_string(certs.join(name).with_extension("pem")).unwrap();
        assert!(cert.starts_with("-----BEGIN CERTIFICATE-----"), "{name}");
        let key = certs.join(name).with_extension("key");
        assert!(std::fs::read_to_string(&key).unwrap().contains("PRIVATE KEY"), "{name}");
        assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
    }
}

#[test]
fn other_tools_read_its_certificates() {
    let folder = Folder::new();
    for arguments in [
        &["pki", "init", "--dir", "x"][..],
        &["pki", "hub", "hub.example.org", "10.0.0.1", "--dir", "x"],
        &["pki", "edge", "bj-1", "--label", "IDC=BJ", "--label", "rack=a b&c", "--dir", "x"],
    ] {
        assert_eq!(run(folder.path(), arguments).code, Some(0), "{arguments:?}");
    }
    let path = folder.path().join("x");
    let openssl = |arguments: &str| bash(&format!("cd '{}' && openssl {arguments}", path.display()));
    assert!(openssl("verify -CAfile ca.pem -purpose sslserver hub.pem").contains("hub.pem: OK"));
    assert!(openssl("verify -CAfile ca.pem -purpose sslclient bj-1.pem").contains("bj-1.pem: OK"));
    let hub = openssl("x509 -in hub.pem -noout -ext subjectAltName");
    assert!(hub.contains("DNS:hub.example.org") && hub.contains("IP Address:10.0.0.1"), "{hub}");
    let edge = openssl("x509 -in bj-1.pem -noout -ext subjectAltName");
    assert!(edge.contains("URI:pushrelay://edge/bj-1?IDC=BJ&rack=a%20b%26c"), "{edge}");
}

#[test]
fn nothing_is_overwritten_unless_forced() {
    let folder = Folder::new();
    assert_eq!(run(folder.path(), &["pki", "init"]).code, Some(0));
    let file = folder.path().join("certs/ca.pem");
    let before = std::fs::read(&file).unwrap();
    let again = run(folder.path(), &["pki", "init"]);
    assert!(again.code.is_some_and(|code| code != 0));
    assert!(again.output.contains("ca."), "the file is named: {}", again.output);
    assert_eq!(std::fs::read(&file).unwrap(), before);
    assert_eq!(run(folder.path(), &["pki", "init", "--force"]).code, Some(0));
    assert_ne!(std::fs::read(&file).unwrap(), before);
}

#[test]
fn mistakes_are_explained() {
    let folder = Folder::new();
    let no_authority = run(folder.path(), &["pki", "edge", "a", "--label", "IDC=SYQ"]);
    assert!(no_authority.code.is_some_and(|code| code != 0));
    assert!(no_authority.output.contains("pki init"), "what to do: {}", no_authority.output);
    run(folder.path(), &["pki", "init"]);
    for arguments in [
        &["pki", "edge", "a", "--label", "IDC"][..],
        &["pki", "edge", "../a"],
        &["pki", "edge", ""],
        &["pki", "hub"],
        &["pki"],
    ] {
        let outcome = run(folder.path(), arguments);
        assert!(outcome.code.is_some_and(|code| code != 0), "{arguments:?}: {}", outcome.output);
        assert!(!outcome.output.contains("panicked"), "{}", outcome.output);
    }
    assert!(!folder.path().join("a.pem").exists());
}
