//! Credentials that are renewed on disk: every file of a certificate, key, authority or password is taken without a
//! signal, however it is replaced.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use pushrelay_testkit::node::Role;
use pushrelay_testkit::process::run;
use pushrelay_testkit::{Node, Site, eventually, http, tls};

/// The ways in which programs replace files.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    /// A new file is renamed into place, as ACME clients do.
    Rename,
    /// The file is written in place, as `cp` does.
    Overwrite,
    /// The files are links through a link to a folder, which is swapped, as mounted secrets of Kubernetes are.
    Swap,
}

const WAYS: [Way; 3] = [Way::Rename, Way::Overwrite, Way::Swap];

/// A folder of secrets: `FOLDER/NAME` are the files that a configuration names.
struct Secrets {
    folder: PathBuf,
    way: Way,
    version: u32,
}

impl Secrets {
    fn new(folder: PathBuf, way: Way, files: &[(&str, &Path)]) -> Self {
        fs::create_dir_all(&folder).unwrap();
        let mut secrets = Self { folder, way, version: 0 };
        secrets.put(files);
        if way == Way::Swap {
            for (name, _) in files {
                symlink(Path::new("..data").join(name), secrets.path(name)).unwrap();
            }
        }
        secrets
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Replaces the files: each by a copy of the other one.
    fn put(&mut self, files: &[(&str, &Path)]) {
        self.version += 1;
        let draft = self.folder.join("draft");
        match self.way {
            Way::Rename => {
                for (name, from) in files {
                    fs::copy(from, &draft).unwrap();
                    fs::rename(&draft, self.path(name)).unwrap();
                }
            }
            Way::Overwrite => {
                files.iter().for_each(|(name, from)| fs::write(self.path(name), fs::read(from).unwrap()).unwrap())
            }
            Way::Swap => {
                let folder = self.folder.join(format!("..{}", self.version));
                let before = self.folder.join("..data");
                fs::create_dir(&folder).unwrap();
                // A swap replaces all files; those that are not named stay the same.
                for entry in fs::read_dir(&before).into_iter().flatten() {
                    let entry = entry.unwrap();
                    fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
                }
                for (name, from) in files {
                    let _ = fs::remove_file(folder.join(name));
                    fs::copy(from, folder.join(name)).unwrap();
                }
                symlink(&folder, &draft).unwrap();
                fs::rename(&draft, before).unwrap();
            }
        }
    }
}

/// A hub and an edge whose link and gateways use secrets that can be replaced.
struct Nodes {
    site: Site,
    hub_secrets: Secrets,
    edge_secrets: Secrets,
    hub: Node,
    edge: Node,
}

/// The configuration of a gateway with TLS, with the hub's certificate.
fn web_tls(secrets: &Secrets) -> String {
    let [cert, key] = ["tls.pem", "tls.key"].map(|name| secrets.path(name));
    format!("[web.tls]\ncert_file = {cert:?}\nkey_file = {key:?}\n")
}

impl Nodes {
    fn start(way: Way) -> Self {
        let site = Site::new();
        site.pki(&["edge", "syq-1", "--label", "IDC=SYQ", "--days", "10"]);
        let [ca, cert, key] = ["ca.pem", "hub.pem", "hub.key"].map(|name| site.cert(name));
        let files = [("ca.pem", &*ca), ("tls.pem", &*cert), ("tls.key", &*key)];
        let hub_secrets = Secrets::new(site.path().join("hub-secrets"), way, &files);
        let (cert, key) = (site.cert("syq-1.pem"), site.cert("syq-1.key"));
        let files = [("ca.pem", &*ca), ("tls.pem", &*cert), ("tls.key", &*key)];
        let edge_secrets = Secrets::new(site.path().join("edge-secrets"), way, &files);

        let certs = site.cert("").display().to_string();
        let config = site.hub_config("hub").replace(&certs, &format!("{}/", hub_secrets.folder.display()));
        let config = config.replace("hub.pem", "tls.pem").replace("hub.key", "tls.key");
        let mut hub = Node::new(Role::Hub, site.path(), "hub", &config);
        hub.start();
        let path = |name: &str| edge_secrets.path(name);
        let store = site.path().join("syq-1");
        let config = pushrelay_testkit::site::edge_config(
            &store,
            hub.line(),
            &path("ca.pem"),
            &path("tls.pem"),
            &path("tls.key"),
        );
        let mut edge = Node::new(Role::Edge, site.path(), "syq-1", &config);
        edge.start();
        hub.shows("pushrelay_edge_connected", &[("edge", "syq-1")], 1.0);
        Self { site, hub_secrets, edge_secrets, hub, edge }
    }

    /// Issues the edge's certificate again, valid for that many days, and puts it in place.
    fn renew_edge(&mut self, days: &str) {
        self.site.pki(&["edge", "syq-1", "--label", "IDC=SYQ", "--force", "--days", days]);
        let (cert, key) = (self.site.cert("syq-1.pem"), self.site.cert("syq-1.key"));
        self.edge_secrets.put(&[("tls.pem", &*cert), ("tls.key", &*key)]);
    }

    fn edge_expiry(&self) -> f64 {
        self.hub.page().values("pushrelay_edge_certificate_expiry_timestamp_seconds", &[("edge", "syq-1")])[0]
    }

    /// Waits until a node says whether it could read the credentials of that user.
    fn says(&self, node: &Node, used_by: &str, readable: f64) {
        node.shows("pushrelay_credentials_last_read_successful", &[("used_by", used_by)], readable);
    }
}

fn hub_certificate(nodes: &Nodes) -> Vec<u8> {
    tls::certificate(&tls::connect(nodes.hub.edge_listener(), &nodes.site.cert("ca.pem"), b"http/1.1"))
}

#[test]
fn an_edges_renewed_certificate_moves_the_link_without_a_signal() {
    for way in WAYS {
        let mut nodes = Nodes::start(way);
        nodes.edge.push("job/a", "x 1\n");
        nodes.hub.shows("x", &[("job", "a")], 1.0);
        let before = nodes.edge_expiry();
        nodes.renew_edge("90");
        eventually(&format!("{way:?}: the link has the new certificate"), || {
            (nodes.edge_expiry() > before).then_some(())
        });
        nodes.edge.push("job/a", "x 2\n");
        nodes.hub.shows("x", &[("job", "a")], 2.0);
        assert_eq!(
            nodes.hub.page().values("pushrelay_edge_resyncs_total", &[]),
            [1.0],
            "{way:?}: only the first contact"
        );
        let own = nodes.edge.page().values("pushrelay_certificate_expiry_timestamp_seconds", &[]);
        assert!(own.contains(&nodes.edge_expiry()), "{way:?}: {own:?}");
        nodes.says(&nodes.edge, &format!("uplink {}", nodes.hub.line()), 1.0);
    }
}

#[test]
fn a_hubs_renewed_certificate_and_authorities_are_taken_without_a_signal() {
    for way in WAYS {
        let mut nodes = Nodes::start(way);
        let first = hub_certificate(&nodes);
        nodes.site.pki(&["hub", "127.0.0.1", "--force"]);
        let (cert, key) = (nodes.site.cert("hub.pem"), nodes.site.cert("hub.key"));
        nodes.hub_secrets.put(&[("tls.pem", &*cert), ("tls.key", &*key)]);
        eventually(&format!("{way:?}: the new certificate"), || (hub_certificate(&nodes) != first).then_some(()));

        // An edge of another authority gets in as soon as the file has that authority too.
        let elsewhere = nodes.site.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        for arguments in [&["pki", "init"][..], &["pki", "edge", "bj-1", "--label", "IDC=BJ"]] {
            assert_eq!(run(&elsewhere, arguments).code, Some(0));
        }
        let (cert, key) = (elsewhere.join("certs/bj-1.pem"), elsewhere.join("certs/bj-1.key"));
        let mut other = nodes.site.edge_with("bj-1", nodes.hub.line(), &cert, &key);
        other.start();
        other.process().line("a refusal", |line| line.contains("not signed by an authority").then_some(()));
        let both = nodes.site.path().join("both.pem");
        let authorities =
            [nodes.site.cert("ca.pem"), elsewhere.join("certs/ca.pem")].map(|path| fs::read(path).unwrap());
        fs::write(&both, authorities.concat()).unwrap();
        nodes.hub_secrets.put(&[("ca.pem", &*both)]);
        nodes.hub.shows("pushrelay_edge_connected", &[("edge", "bj-1")], 1.0);
        nodes.hub.shows("pushrelay_edge_connected", &[("edge", "syq-1")], 1.0);
    }
}

#[test]
fn bad_files_keep_the_old_ones_and_are_reported_once() {
    let mut nodes = Nodes::start(Way::Rename);
    let uplink = format!("uplink {}", nodes.hub.line());
    let junk = nodes.site.path().join("junk");
    fs::write(&junk, "no key\n").unwrap();
    nodes.edge_secrets.put(&[("tls.key", &*junk)]);
    nodes.hub_secrets.put(&[("ca.pem", &*junk)]);
    let refused = |line: &str| line.contains("credentials have changed, but cannot be used").then_some(());
    nodes.edge.process().line("a line about the edge's key", refused);
    nodes.hub.process().line("a line about the hub's authorities", refused);
    nodes.says(&nodes.edge, &uplink, 0.0);
    nodes.says(&nodes.hub, "hub", 0.0);
    // The old credentials are used for new connections too.
    nodes.hub.break_connections();
    nodes.edge.push("job/a", "x 1\n");
    nodes.hub.shows("x", &[("job", "a")], 1.0);
    // A certificate that has expired takes the place of none.
    let (cert, key) = short_lived(&nodes.site);
    nodes.edge_secrets.put(&[("tls.pem", &*cert), ("tls.key", &*key)]);
    nodes.edge.process().line("a line about the expired certificate", |line| {
        (line.contains("cannot be used") && line.contains("is valid until")).then_some(())
    });
    nodes.hub.shows("pushrelay_edge_connected", &[("edge", "syq-1")], 1.0);

    let ca = nodes.site.cert("ca.pem");
    nodes.hub_secrets.put(&[("ca.pem", &*ca)]);
    nodes.renew_edge("90");
    nodes.says(&nodes.edge, &uplink, 1.0);
    nodes.says(&nodes.hub, "hub", 1.0);
    let count = |node: &mut Node| node.process().output().matches("credentials have changed, but").count();
    assert_eq!((count(&mut nodes.edge), count(&mut nodes.hub)), (2, 1), "each reason once");
}

/// An edge's certificate that expired yesterday, made with openssl.
fn short_lived(site: &Site) -> (PathBuf, PathBuf) {
    let folder = site.path().display();
    pushrelay_testkit::process::bash(&format!(
        "cd '{folder}' && openssl ecparam -name prime256v1 -genkey -noout -out short.key && \
         openssl req -new -key short.key -subj /CN=syq-1 -out short.csr && \
         printf 'extendedKeyUsage=clientAuth\nsubjectAltName=URI:pushrelay://edge/syq-1?IDC=SYQ\n' > short.ext && \
         openssl x509 -req -in short.csr -CA certs/ca.pem -CAkey certs/ca.key -CAcreateserial -days -1 \
         -extfile short.ext -out short.pem"
    ));
    (site.path().join("short.pem"), site.path().join("short.key"))
}

#[test]
fn a_certificate_that_the_hub_refuses_ends_no_link() {
    let mut nodes = Nodes::start(Way::Rename);
    let elsewhere = nodes.site.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    for arguments in [&["pki", "init"][..], &["pki", "edge", "syq-1", "--label", "IDC=SYQ"]] {
        assert_eq!(run(&elsewhere, arguments).code, Some(0));
    }
    let (cert, key) = (elsewhere.join("certs/syq-1.pem"), elsewhere.join("certs/syq-1.key"));
    nodes.edge_secrets.put(&[("tls.pem", &*cert), ("tls.key", &*key)]);
    nodes.edge.process().line("a warning", |line| {
        (line.contains("no link with the renewed certificate") && line.contains("not signed by")).then_some(())
    });
    nodes.edge.push("job/a", "x 1\n");
    nodes.hub.shows("x", &[("job", "a")], 1.0);
    assert_eq!(nodes.hub.page().values("pushrelay_edge_sessions_total", &[]), [1.0], "it is the first session still");
    let before = nodes.edge_expiry();
    nodes.renew_edge("90");
    eventually("the link moves to a certificate that the hub accepts", || (nodes.edge_expiry() > before).then_some(()));
}

#[test]
fn passwords_and_certificates_in_any_file_of_the_gateway_are_taken() {
    let hash = |password: &str| bcrypt::hash(password, 4).unwrap();
    for way in WAYS {
        let site = Site::new();
        let [cert, key] = ["hub.pem", "hub.key"].map(|name| site.cert(name));
        let yaml = site.path().join("web.yml");
        let write_yaml =
            |password: &str| fs::write(&yaml, format!("basic_auth_users: {{alice: {}}}\n", hash(password))).unwrap();
        write_yaml("first");
        let toml = |password: &str| {
            let web = "[web]\nlisten_address = ['127.0.0.1:0']\n";
            let file = site.path().join("inline.new");
            fs::write(
                &file,
                format!("{web}[web.basic_auth_users]\nalice = '{}'\n[storage]\npath = ''\n", hash(password)),
            )
            .unwrap();
            file
        };
        let first = toml("first");
        let files = [("tls.pem", &*cert), ("tls.key", &*key), ("web.yml", &*yaml), ("inline.toml", &*first)];
        let mut secrets = Secrets::new(site.path().join("secrets"), way, &files);

        let plain = "[web]\nlisten_address = ['127.0.0.1:0']\n";
        let web_file = format!("config_file = {:?}\n[storage]\npath = ''\n", secrets.path("web.yml"));
        let mut by_yaml = Node::new(Role::Edge, site.path(), "yaml", &format!("{plain}{web_file}"));
        let tls_part = web_tls(&secrets);
        let mut by_tls = Node::new(Role::Edge, site.path(), "tls", &format!("{plain}{tls_part}[storage]\npath = ''\n"));
        // The configuration file itself has the passwords.
        let config = fs::read_to_string(&first).unwrap();
        let mut inline = Node::new(Role::Edge, &secrets.folder, "inline", &config);
        for node in [&mut by_yaml, &mut by_tls, &mut inline] {
            node.start_listening();
        }
        let status = |node: &Node, header: &str| {
            http::request(node.web(), "GET", "/-/ready", &[("Authorization", header)], b"").unwrap().status
        };
        let (old, new) = ("Basic YWxpY2U6Zmlyc3Q=", "Basic YWxpY2U6c2Vjb25k");
        assert_eq!((status(&by_yaml, old), status(&inline, old)), (200, 200));
        let shown = || tls::certificate(&tls::connect(by_tls.web(), &site.cert("ca.pem"), b"http/1.1"));
        let certificate = shown();
        site.pki(&["hub", "127.0.0.1", "--force"]);
        write_yaml("second");
        let second = toml("second");
        secrets.put(&[("tls.pem", &*cert), ("tls.key", &*key), ("web.yml", &*yaml), ("inline.toml", &*second)]);
        eventually(&format!("{way:?}: the password of the YAML file"), || (status(&by_yaml, new) == 200).then_some(()));
        eventually(&format!("{way:?}: the password of the configuration"), || {
            (status(&inline, new) == 200).then_some(())
        });
        eventually(&format!("{way:?}: the gateway's certificate"), || (shown() != certificate).then_some(()));
        assert_eq!((status(&by_yaml, old), status(&inline, old)), (401, 401));
    }
}
