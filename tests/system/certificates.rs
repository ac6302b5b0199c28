//! Certificates and keys that no peer would accept: `check-config`, the start and the page of problems say what is wrong.

use std::fs;

use pushrelay_testkit::Site;
use pushrelay_testkit::node::Role;
use pushrelay_testkit::process::{bash, run};
use pushrelay_testkit::site::edge_config;
use pushrelay_testkit::{Node, folder};

/// The end whose files are wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Edge,
    Hub,
    Gateway,
}
use End::{Edge, Gateway, Hub};

/// Whether `check-config` fails, warns, or the node does not even start.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Mistake,
    Doubt,
    NoStart,
}
use Kind::{Doubt, Mistake, NoStart};

/// What is said; the files, made by a script in the folder of the authority `ca.pem` and `ca.key`: it writes `own.pem`
/// and `own.key`, and can replace `ca.pem`.
type Row = (&'static str, End, Kind, &'static str);

/// Shell functions for the scripts. `issue EXTENSIONS [ARGUMENTS]` signs `own.pem` for `own.key`.
const FUNCTIONS: &str = r#"
set -e
key() { openssl ecparam -name "${1:-prime256v1}" -genkey -noout -out own.key; }
issue() {
  [ -f own.key ] || key
  openssl req -new -key own.key -subj "${SUBJECT:-/CN=syq-1}" -out own.csr
  printf "$1" > own.ext
  openssl x509 -req -in own.csr -CA "${CA:-ca}.pem" -CAkey "${CA:-ca}.key" -CAcreateserial -out own.pem \
    -days 30 -sha256 -extfile own.ext $2
}
authority() { # NAME SUBJECT [SIGNER EXTENSIONS]
  openssl ecparam -name prime256v1 -genkey -noout -out "$1.key"
  if [ -z "$3" ]; then
    openssl req -x509 -new -key "$1.key" -subj "$2" -days 30 -out "$1.pem"
  else
    openssl req -new -key "$1.key" -subj "$2" -out "$1.csr"
    printf "$4" > "$1.ext"
    openssl x509 -req -in "$1.csr" -CA "$3.pem" -CAkey "$3.key" -CAcreateserial -days 30 -out "$1.pem" -extfile "$1.ext"
  fi
}
EDGE='extendedKeyUsage=clientAuth\n'
HUB='extendedKeyUsage=serverAuth\nsubjectAltName=DNS:hub.example.org,IP:127.0.0.1\n'
"#;

const ROWS: &[Row] = &[
    (
        "the key is encrypted with a passphrase",
        Edge,
        NoStart,
        r#"issue "$EDGE"; openssl pkey -in own.key -aes128 -passout pass:x -out new.key; mv new.key own.key"#,
    ),
    (
        "the key is encrypted with a passphrase",
        Hub,
        NoStart,
        r#"openssl genrsa -aes128 -passout pass:x -traditional -out secret.key 2048; openssl rsa -in secret.key -passin pass:x -out own.key; issue "$HUB"; mv secret.key own.key"#,
    ),
    ("does not match the certificate in", Edge, NoStart, r#"issue "$EDGE"; key"#),
    ("it has a certificate and no private key", Edge, NoStart, r#"issue "$EDGE"; cp own.pem own.key"#),
    (
        "it has a key in OpenSSH's form and no private key",
        Edge,
        NoStart,
        r#"issue "$EDGE"; printf -- '-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n' > own.key"#,
    ),
    (
        "it has binary data (DER or PKCS #12) and no private key",
        Edge,
        NoStart,
        r#"issue "$EDGE"; openssl pkcs12 -export -in own.pem -inkey own.key -passout pass:x -out new.key; mv new.key own.key"#,
    ),
    ("it has a request for a certificate and no certificate", Edge, NoStart, r#"issue "$EDGE"; cp own.csr own.pem"#),
    (
        "it has binary data (DER or PKCS #12) and no certificate",
        Hub,
        NoStart,
        r#"issue "$HUB"; openssl x509 -in own.pem -outform der -out new.pem; mv new.pem own.pem"#,
    ),
    (
        "the certificate is X.509 version 1",
        Edge,
        NoStart,
        r#"key; openssl req -new -key own.key -subj /CN=syq-1 -out own.csr; openssl x509 -req -in own.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out own.pem -days 30"#,
    ),
    (
        "the certificate is X.509 version 1",
        Gateway,
        NoStart,
        r#"key; openssl req -new -key own.key -subj /CN=a -out own.csr; openssl x509 -req -in own.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out own.pem -days 30"#,
    ),
    (
        "the certificate is for serverAuth only (extendedKeyUsage), and an edge needs clientAuth",
        Edge,
        Mistake,
        r#"issue 'extendedKeyUsage=serverAuth\n'"#,
    ),
    (
        "the certificate is for clientAuth only (extendedKeyUsage), and a hub needs serverAuth",
        Hub,
        Mistake,
        r#"issue 'extendedKeyUsage=clientAuth\nsubjectAltName=DNS:hub.example.org\n'"#,
    ),
    (
        "the certificate is for clientAuth only (extendedKeyUsage), and the gateway needs serverAuth",
        Gateway,
        Mistake,
        r#"issue 'extendedKeyUsage=clientAuth\nsubjectAltName=DNS:hub.example.org\n'"#,
    ),
    ("the certificate has no subject alternative name", Hub, Mistake, r#"issue 'extendedKeyUsage=serverAuth\n'"#),
    ("the certificate has no subject alternative name", Gateway, Doubt, r#"issue 'extendedKeyUsage=serverAuth\n'"#),
    (
        "the certificate is for hub.example.org, not for other.example.org (hub.listen_address)",
        Hub,
        Doubt,
        r#"issue 'extendedKeyUsage=serverAuth\nsubjectAltName=DNS:hub.example.org\n'"#,
    ),
    (
        "(web.external_url): clients that use this name will refuse it",
        Gateway,
        Doubt,
        r#"issue 'extendedKeyUsage=serverAuth\nsubjectAltName=DNS:hub.example.org\n'"#,
    ),
    (
        "hubs refuse the certificate: no subject alternative name begins with",
        Edge,
        Mistake,
        r#"SUBJECT=/O=nobody issue "$EDGE""#,
    ),
    (
        "is that of an authority (basicConstraints CA:TRUE)",
        Edge,
        Mistake,
        r#"issue "${EDGE}basicConstraints=CA:TRUE\n""#,
    ),
    ("is that of an authority (basicConstraints CA:TRUE)", Hub, Mistake, r#"issue "${HUB}basicConstraints=CA:TRUE\n""#),
    (
        "the key usage of the certificate is without digitalSignature",
        Edge,
        Mistake,
        r#"issue "${EDGE}keyUsage=critical,keyEncipherment\n""#,
    ),
    (
        "the key usage of the certificate is without digitalSignature",
        Gateway,
        Doubt,
        r#"issue "${HUB}keyUsage=critical,keyEncipherment\n""#,
    ),
    ("the certificate is signed with SHA-1, which TLS peers refuse", Edge, Mistake, r#"issue "$EDGE" -sha1"#),
    (
        "the certificate is signed with SHA-1, which TLS peers refuse",
        Hub,
        Mistake,
        r#"openssl genrsa -out ca.key 2048; openssl req -x509 -new -key ca.key -subj /CN=ca -days 30 -out ca.pem; issue "$HUB" -sha1"#,
    ),
    (
        "the certificate is signed with MD5, which TLS peers refuse",
        Edge,
        Mistake,
        r#"openssl genrsa -out ca.key 2048; openssl req -x509 -new -key ca.key -subj /CN=ca -days 30 -out ca.pem; issue "$EDGE" -md5"#,
    ),
    (
        "the key of the certificate is RSA of 1024 bits",
        Edge,
        NoStart,
        r#"openssl genrsa -out own.key 1024; issue "$EDGE""#,
    ),
    ("the key of the certificate is ECDSA on the curve 1.3.132.0.10", Hub, NoStart, r#"key secp256k1; issue "$HUB""#),
    ("only: replace it", Edge, Mistake, r#"issue "$EDGE" "-days -1""#),
    ("only: replace it", Gateway, Mistake, r#"issue "$HUB" "-days -1""#),
    (
        "only: check the clock",
        Hub,
        Mistake,
        r#"
        printf '[ca]\ndefault_ca=d\n[d]\ndatabase=index\nserial=serial\nnew_certs_dir=.\npolicy=p\ndefault_md=sha256\n[p]\ncommonName=supplied\n' > ca.cnf
        : > index; echo 01 > serial; key; printf "$HUB" > own.ext; openssl req -new -key own.key -subj /CN=hub -out own.csr
        openssl ca -batch -config ca.cnf -in own.csr -cert ca.pem -keyfile ca.key -startdate 20900101000000Z -enddate 20910101000000Z -extfile own.ext -notext -out own.pem"#,
    ),
    ("which is neither in this file nor in", Edge, Doubt, r#"authority other /CN=other; CA=other issue "$EDGE""#),
    (
        "which is neither in this file nor in",
        Hub,
        Doubt,
        r#"authority middle /CN=middle ca 'basicConstraints=critical,CA:TRUE\n'; CA=middle issue "$HUB""#,
    ),
    (
        "which does not follow in the file",
        Hub,
        Doubt,
        r#"authority a /CN=a; authority b /CN=b; CA=a issue "$HUB"; cat b.pem >> own.pem"#,
    ),
    (
        "but another key signed the certificate",
        Edge,
        Doubt,
        r#"name=$(openssl x509 -in ca.pem -noout -subject -nameopt RFC2253 | cut -d= -f2-); authority other "/$name"; CA=other issue "$EDGE""#,
    ),
    ("is no authority (it has no basicConstraints CA:TRUE)", Edge, Mistake, r#"issue "$EDGE"; cat own.pem >> ca.pem"#),
    (
        "an authority of the chain may not sign other authorities (pathlen)",
        Edge,
        Mistake,
        r#"authority a /CN=a ca 'basicConstraints=critical,CA:TRUE,pathlen:0\n'; authority b /CN=b a 'basicConstraints=critical,CA:TRUE\n'; CA=b issue "$EDGE"; cat b.pem a.pem >> own.pem"#,
    ),
];

/// The configuration of a node whose end has the files `own.pem` and `own.key`.
fn config(site: &Site, end: End, said: &str) -> String {
    let certs = site.cert("");
    let path = |name: &str| certs.join(name);
    match end {
        Edge => {
            let hub = "127.0.0.1:9".parse().unwrap();
            edge_config(&site.path().join("store"), hub, &path("ca.pem"), &path("own.pem"), &path("own.key"))
        }
        Hub => {
            let config = site.hub_config("store").replace("hub.pem", "own.pem").replace("hub.key", "own.key");
            match said.contains("hub.listen_address") {
                true => config.replacen(
                    "[hub]\nlisten_address = [\"127.0.0.1:0\"]",
                    "[hub]\nlisten_address = [\"other.example.org:0\"]",
                    1,
                ),
                false => config,
            }
        }
        Gateway => {
            let url =
                if said.contains("web.external_url") { "external_url = 'https://other.example.org/x'\n" } else { "" };
            format!(
                "[web]\nlisten_address = ['127.0.0.1:0']\n{url}[web.tls]\ncert_file = {:?}\nkey_file = {:?}\n\
                 [storage]\npath = ''\n",
                path("own.pem"),
                path("own.key"),
            )
        }
    }
}

#[test]
fn each_problem_of_a_certificate_has_its_sentence() {
    let page = fs::read_to_string(folder::project().join("docs/reference/certificates.md")).unwrap();
    let documented = page
        .lines()
        .filter(|line| line.starts_with("| ") && line.contains("| mistake") || line.contains("| doubt"))
        .count();
    let mut sentences: Vec<&str> = ROWS.iter().map(|(said, ..)| *said).collect();
    sentences.sort_unstable();
    sentences.dedup();
    assert_eq!(documented, sentences.len(), "a row of the page without a row here, or the other way round");
    let mut failures = Vec::new();
    for (said, end, kind, script) in ROWS {
        let mut complain = |text: String| failures.push(format!("{end:?}, {said:?}: {text}"));
        if !page.contains(&format!("`{said}")) {
            complain("not on the page".into());
        }
        let site = Site::new();
        bash(&format!("cd '{}'\n{FUNCTIONS}\n{{ {script}\n}} >&2", site.cert("").display()));
        let config = config(&site, *end, said);
        fs::write(site.path().join("checked.toml"), &config).unwrap();
        let outcome = run(site.path(), &["check-config", "checked.toml"]);
        let code = if *kind == Doubt { 0 } else { 1 };
        let words = ["OtherError", "panicked", "invalid peer certificate", "Error("];
        if outcome.code != Some(code)
            || !outcome.output.contains(said)
            || words.iter().any(|word| outcome.output.contains(word))
        {
            complain(format!("check-config ended with {:?}: {}", outcome.code, outcome.output));
        }
        // One problem has one line: nothing follows from it.
        let lines = outcome
            .output
            .lines()
            .filter(|line| line.contains("checked.toml:") && line.contains("cannot be used"))
            .count();
        if lines > 1 {
            complain(format!("{lines} lines: {}", outcome.output));
        }
        if said.contains("hub.listen_address") || said.contains("web.external_url") {
            continue;
        }
        let role = if *end == Hub { Role::Hub } else { Role::Edge };
        let mut node = Node::new(role, site.path(), "node", &config);
        if *kind == NoStart {
            let status = node.spawn().wait();
            let output = node.process().output();
            if status.success() || !output.contains(said) {
                complain(format!("the start ended with {status}: {output}"));
            }
            continue;
        }
        node.start_listening();
        let level = if *kind == Mistake { "level=ERROR" } else { "level=WARN" };
        let escaped = said.replace('"', "\\\"");
        let output = node.process().output();
        if !output.lines().any(|line| line.contains(level) && line.contains(&escaped)) {
            complain(format!("not logged at {level}: {output}"));
        }
    }
    assert!(failures.is_empty(), "{} of {} rows:\n{}", failures.len(), ROWS.len(), failures.join("\n"));
}
