//! Enrolment: a new edge runs after two commands, and its certificate renews itself.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use pushrelay_testkit::folder::binary;
use pushrelay_testkit::node::Role;
use pushrelay_testkit::process::{Outcome, bash, run};
use pushrelay_testkit::pushrelay::net::authority::{Authority, EdgeKey, Validity};
use pushrelay_testkit::pushrelay::net::dial::{DialLimits, Dialler};
use pushrelay_testkit::pushrelay::net::identity::EdgeIdentity;
use pushrelay_testkit::pushrelay::net::tls::problem::CertificateUse;
use pushrelay_testkit::pushrelay::net::tls::{Connector, Credentials, TlsFiles};
use pushrelay_testkit::pushrelay::node::link::enrolment::edge::ask;
use pushrelay_testkit::{Node, Process, Site, eventually, http, tls};

/// A hub that issues certificates of 24 hours.
fn hub(site: &Site) -> Node {
    let authority = format!("[hub.enrol]\ndir = {:?}\ncertificate_lifetime = \"24h\"\n", site.cert(""));
    let config = site.hub_config("hub") + &authority;
    let config = config.replace("[hub.tls]\n", &format!("[hub.tls]\ncrl_file = {:?}\n", site.cert("crl.pem")));
    let mut hub = Node::new(Role::Hub, site.path(), "hub", &config);
    hub.start();
    hub
}

/// The word of a new invitation.
fn invite(folder: &Path, arguments: &[&str]) -> String {
    let printed = run(folder, &[&["pki", "invite"], arguments].concat());
    assert_eq!(printed.code, Some(0), "{}", printed.output);
    printed.output.lines().next().unwrap().to_owned()
}

fn join(site: &Site, hub: SocketAddr, word: &str, directory: &str) -> Outcome {
    run(site.path(), &["join", &hub.to_string(), word, "--dir", directory, "--listen", "127.0.0.1:0"])
}

fn enrolments(hub: &Node, result: &str) -> f64 {
    hub.page().values("pushrelay_hub_enrolments_total", &[("result", result)])[0]
}

#[test]
fn a_new_edge_runs_after_two_commands() {
    let site = Site::new();
    let mut hub = hub(&site);
    // One command at the hub, one at the edge.
    let word = invite(site.path(), &["syq-1", "--label", "IDC=SYQ"]);
    let mut edge = Process::spawn(
        Command::new(binary())
            .args(["join", &hub.line().to_string(), &word, "--dir", "new", "--listen", "127.0.0.1:0", "--run"])
            .current_dir(site.path()),
    );
    hub.shows("pushrelay_edge_connected", &[("edge", "syq-1"), ("IDC", "SYQ")], 1.0);
    let web: SocketAddr = edge.line("the gateway's address", |line| {
        line.contains("face=web").then(|| line.rsplit_once("address=")?.1.split(' ').next()?.parse().ok()).flatten()
    });
    let pushed = http::request(web, "POST", "/metrics/job/a", &[], b"x 1\n").unwrap();
    assert_eq!(pushed.status, 200);
    hub.shows("x", &[("job", "a"), ("IDC", "SYQ")], 1.0);
    let own = site.path().join("new/edge.pem");
    assert_eq!(fs::metadata(&own).unwrap().permissions().mode() & 0o777, 0o600);
    hub.process().line("an edge joined", |line| line.contains("an edge joined").then_some(()));
    // A certificate of a day is no trouble.
    hub.shows("pushrelay_edge_healthy", &[("edge", "syq-1")], 1.0);
    let checked = run(site.path(), &["check-config", "new/edge.toml"]);
    assert_eq!(checked.code, Some(0), "{}", checked.output);
    let doctor = run(site.path(), &["doctor", "--config.file", "new/edge.toml"]);
    assert!(doctor.code == Some(0) && doctor.output.contains("renews itself"), "{}", doctor.output);
    // Renewal finds every certificate of the name, and so does a revocation.
    site.pki(&["revoke", "syq-1"]);
    hub.shows("pushrelay_edge_connected", &[("edge", "syq-1")], 0.0);
    edge.line("the reason", |line| line.contains("this end's certificate is revoked").then_some(()));
}

#[test]
fn an_invitation_is_of_one_hub_and_one_key_and_time() {
    let site = Site::new();
    let mut hub = hub(&site);
    let says = |outcome: &Outcome, words: &str| {
        assert!(outcome.code == Some(1) && outcome.output.contains(words), "{words}: {}", outcome.output);
    };
    let word = invite(site.path(), &["syq-1", "--label", "IDC=SYQ"]);
    // A box in between, which ends TLS with a certificate of its own, gets no word.
    let other = Site::new();
    let mut box_between = self::hub(&other);
    says(&join(&site, box_between.line(), &word, "stolen"), "is not the one of the invitation");
    says(&join(&site, box_between.line(), &word, "stolen"), "nothing secret was sent to it");
    assert_eq!(enrolments(&box_between, "unknown"), 0.0);
    box_between.kill();
    // The key of an attempt that failed is used by the next one.
    let key = fs::read_to_string(site.path().join("stolen/edge.pem")).unwrap();
    let joined = join(&site, hub.line(), &word, "stolen");
    assert!(joined.code == Some(0) && joined.output.contains("joined as syq-1"), "{}", joined.output);
    assert!(fs::read_to_string(site.path().join("stolen/edge.pem")).unwrap().starts_with(&key));
    says(&join(&site, hub.line(), &word, "stolen"), "an edge joined here");
    says(&join(&site, hub.line(), &word, "second"), "was used already, with another key");
    let foreign = invite(other.path(), &["bj-1", "--label", "IDC=BJ"]);
    says(&join(&site, hub.line(), &foreign, "foreign"), "is not the one of the invitation");
    says(&join(&site, hub.line(), "abc", "short"), "this is no invitation");
    // An invitation that nobody made, for the right authority: each costs an attempt of this address.
    let mut forged = word.clone();
    forged.replace_range(0..4, if word.starts_with("AAAA") { "BBBB" } else { "AAAA" });
    says(&join(&site, hub.line(), &forged, "forged"), "the hub knows no such invitation");
    assert_eq!((enrolments(&hub, "joined"), enrolments(&hub, "used"), enrolments(&hub, "unknown")), (1.0, 1.0, 1.0));
    for _ in 0..9 {
        join(&site, hub.line(), &forged, "forged");
    }
    says(&join(&site, hub.line(), &forged, "forged"), "too many wrong invitations");
    // Without a certificate, nothing but an enrolment is there.
    let request = "GET /api/v1/relay HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                   Sec-WebSocket-Protocol: pushrelay.v1\r\n\r\n";
    let mut stream = tls::connect(hub.edge_listener(), &site.cert("ca.pem"), b"http/1.1");
    std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answer).ok();
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("a link needs a certificate"), "{answer}");
    // A hub that issues no certificates takes no client without one.
    let (code, _) = hub.stop();
    assert_eq!(code, Some(0));
    let mut plain = site.hub();
    plain.start();
    says(&join(&site, plain.line(), &word, "plain"), "it requires a certificate");
    // A key that others can read signs nothing.
    fs::set_permissions(site.cert("ca.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let config = site.hub_config("hub") + &format!("[hub.enrol]\ndir = {:?}\n", site.cert(""));
    fs::write(site.path().join("open.toml"), config).unwrap();
    says(&run(site.path(), &["check-config", "open.toml"]), "can be read by others");
}

/// The certificate of an edge, valid from ten days ago until tomorrow: its renewal is due.
fn due(site: &Site) -> (PathBuf, PathBuf) {
    let read = |name: &str| fs::read_to_string(site.cert(name)).unwrap();
    let authority = Authority::from_pem(&read("ca.pem"), &read("ca.key")).unwrap();
    let (now, day) = (SystemTime::now(), Duration::from_secs(86_400));
    let identity = EdgeIdentity::from_uri("pushrelay://edge/syq-1?IDC=SYQ").unwrap();
    let issued = authority.edge(&identity, Validity { not_before: now - 10 * day, not_after: now + day / 2 }).unwrap();
    let (cert, key) = (site.path().join("due.pem"), site.path().join("due.key"));
    fs::write(&cert, &issued.certificate_pem).unwrap();
    fs::write(&key, &issued.key_pem).unwrap();
    (cert, key)
}

#[test]
fn a_certificate_renews_itself_under_load_without_a_lost_link() {
    let site = Site::new();
    let hub = hub(&site);
    let (cert, key) = due(&site);
    let before = fs::read_to_string(&key).unwrap();
    let config =
        pushrelay_testkit::site::edge_config(&site.path().join("syq-1"), hub.line(), &site.cert("ca.pem"), &cert, &key);
    let mut edge = Node::new(Role::Edge, site.path(), "syq-1", &format!("{config}renew = true\n"));
    edge.start();
    let mut pushed = 0;
    let renewed = || {
        // Every push is answered, whatever the link does.
        pushed += 1;
        edge.push("job/load", &format!("x {pushed}\n"));
        let page = hub.page();
        let labels = [("edge", "syq-1")];
        let expiry = page.values("pushrelay_edge_certificate_expiry_timestamp_seconds", &labels);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
        (expiry.first().is_some_and(|expiry| *expiry > now + 23.0 * 3_600.0)).then_some(())
    };
    eventually("the link has a certificate of another day", renewed);
    hub.shows("x", &[("job", "load")], f64::from(pushed));
    let edge_metrics =
        |result: &str| edge.page().values("pushrelay_uplink_certificate_renewals_total", &[("result", result)]);
    assert_eq!((edge_metrics("success"), edge_metrics("failure")), (vec![1.0], vec![0.0]));
    assert_eq!(enrolments(&hub, "renewed"), 1.0);
    // The link moved, and was not lost: the second session began before the first one ended, and resumed.
    assert_eq!(hub.page().values("pushrelay_edge_sessions_total", &[("edge", "syq-1")]), [2.0]);
    assert_eq!(hub.page().values("pushrelay_edge_resyncs_total", &[("edge", "syq-1")]), [1.0]);
    let gone = edge.process().output();
    assert!(!gone.contains("no link to the hub"), "{gone}");
    // Two files: the key stays.
    assert_eq!(fs::read_to_string(&key).unwrap(), before);
}

#[test]
fn a_certificate_that_expires_while_its_renewal_is_asked_for_is_not_renewed() {
    let site = Site::new();
    let hub = hub(&site);
    let read = |name: &str| fs::read_to_string(site.cert(name)).unwrap();
    let authority = Authority::from_pem(&read("ca.pem"), &read("ca.key")).unwrap();
    let identity = EdgeIdentity::from_uri("pushrelay://edge/syq-1?IDC=SYQ").unwrap();
    let now = SystemTime::now();
    let not_after = now + Duration::from_secs(3);
    let issued = authority.edge(&identity, Validity { not_before: now - Duration::from_secs(60), not_after }).unwrap();
    let (cert_file, key_file) = (site.path().join("short.pem"), site.path().join("short.key"));
    fs::write(&cert_file, &issued.certificate_pem).unwrap();
    fs::write(&key_file, &issued.key_pem).unwrap();
    let (ca_file, used_by) = (site.cert("ca.pem"), CertificateUse::Edge);
    let files = TlsFiles { ca_file, cert_file, key_file, crl_file: None, anonymous: false, used_by };
    let connector = Connector::new(&Credentials::load(&files).unwrap(), None).unwrap();
    let second = Duration::from_secs(10);
    let limits = DialLimits { connect_timeout: second, handshake_timeout: second, message_bytes_max: 1 << 20 };
    let dialler = Dialler::new(hub.edge_listener().to_string().parse().unwrap(), &[], limits, connector, None);
    let key = EdgeKey::from_pem(&issued.key_pem).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let answer = runtime.block_on(async {
        let dialled = dialler.dial_enrolment(&mut ()).await.unwrap();
        // The hub has sent its offer; the request is sent when the certificate has expired.
        ask(dialled.connection, None, &key, |_| {
            eventually("the certificate expires", || {
                (SystemTime::now() > not_after + Duration::from_secs(1)).then_some(())
            });
            Ok(())
        })
        .await
    });
    let error = answer.unwrap_err().to_string();
    assert!(error.contains("the hub issues no certificate") && error.contains("expired"), "{error}");
    assert_eq!((enrolments(&hub, "refused"), enrolments(&hub, "renewed")), (1.0, 0.0));
}

/// The shell blocks of a section of a page.
fn commands(page: &str, section: &str) -> Vec<String> {
    let page = fs::read_to_string(pushrelay_testkit::folder::project().join("docs/how-to").join(page)).unwrap();
    let rest = page.split(&format!("\n## {section}\n")).nth(1).expect(section);
    let section = rest.split("\n## ").next().unwrap();
    let blocks = section.split("```bash\n").skip(1).map(|block| block.split("```").next().unwrap());
    blocks.map(|block| block.lines().map(str::trim).collect::<Vec<_>>().join("\n")).collect()
}

#[test]
fn everything_is_rotated_as_the_page_says_and_nothing_is_copied_to_an_edge() {
    let site = Site::new();
    let config =
        site.hub_config("hub").replace("ca.pem", "../both.pem") + &format!("[hub.enrol]\ndir = {:?}\n", site.cert(""));
    let lists = site.path().join("both-crl.pem");
    let config = config.replace("[hub.tls]\n", &format!("[hub.tls]\ncrl_file = {lists:?}\n"));
    fs::write(site.path().join("hub.toml"), &config).unwrap();
    let [rotate] = &commands("replace-a-certificate.md", "Rotate everything")[..] else { panic!("one block") };
    let rotate = rotate.replace("hub.example.org", "127.0.0.1").replace("pushrelay ", &format!("{:?} ", binary()));
    bash(&format!("set -e\ncd {:?}\n{rotate}", site.path()));
    let both = [site.cert("crl.pem"), site.path().join("new/crl.pem")].map(|list| fs::read_to_string(list).unwrap());
    fs::write(&lists, both.concat()).unwrap();
    let mut hub = Node::new(Role::Hub, site.path(), "hub", &config);
    hub.start();
    let authorities = |file: &Path| fs::read_to_string(file).unwrap().matches("BEGIN CERTIFICATE").count();
    let (cert, key) = due(&site);
    let ca = site.path().join("own-ca.pem");
    fs::copy(site.cert("ca.pem"), &ca).unwrap();
    let config = pushrelay_testkit::site::edge_config(&site.path().join("syq-1"), hub.line(), &ca, &cert, &key);
    let mut edge = Node::new(Role::Edge, site.path(), "syq-1", &format!("{config}renew = true\n"));
    edge.start();
    edge.push("job/a", "x 1\n");
    eventually("the edge has both authorities", || (authorities(&ca) == 2).then_some(()));
    hub.shows("x", &[("job", "a")], 1.0);

    // The hub signs with the new authority, and has a certificate of it.
    let file = site.path().join("hub.toml");
    let certs = site.cert("").display().to_string();
    let new = format!("{}/", site.path().join("new").display());
    let text = fs::read_to_string(&file).unwrap();
    let text = text.replace(&format!("{certs}hub."), &format!("{new}hub."));
    let text = text.replace(&format!("dir = {:?}", site.cert("")), "dir = \"new\"");
    fs::write(&file, &text).unwrap();
    hub.restart();
    // The next renewal is due.
    edge.stop();
    due(&site);
    edge.start();
    let issuer = || bash(&format!("openssl verify -CAfile '{new}ca.pem' '{}' 2>&1 || true", cert.display()));
    eventually("the edge has a certificate of the new authority", || issuer().contains("OK").then_some(()));
    hub.shows("pushrelay_edge_connected", &[("edge", "syq-1")], 1.0);
    let text = text.replace(&format!("{lists:?}"), &format!("\"{new}crl.pem\""));
    fs::write(&file, text.replace(&format!("{certs}../both.pem"), &format!("{new}ca.pem"))).unwrap();
    let renewed = || hub.page().values("pushrelay_edge_sessions_total", &[("edge", "syq-1")])[0] >= 2.0;
    eventually("its link has that certificate", || renewed().then_some(()));
    hub.process().signal("HUP");
    hub.process().line("the reload", |line| line.contains("configuration and certificates read again").then_some(()));
    edge.push("job/a", "x 2\n");
    hub.shows("x", &[("job", "a")], 2.0);
}
