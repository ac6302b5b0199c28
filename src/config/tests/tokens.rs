//! Tokens of edges, and hubs behind boxes that end TLS.

use super::*;
use crate::node::options::UplinkTls;

const DIGEST: &str = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";

fn hub_edge(name: &str, tokens: &str) -> String {
    format!("[[hub.edge]]\nname = '{name}'\nlabels = {{ IDC = 'BJ' }}\ntoken_sha256 = {tokens}\n")
}

#[test]
fn an_uplink_with_a_token_needs_no_certificate_and_a_hub_behind_a_box_no_tls() {
    let text = "[[uplink]]\nhub = 'hub:443'\ntoken_file = 'token'\npath = '/a/api/v1/relay'\n[uplink.tls]\nca_file = 'ca.pem'\n";
    let uplink = read_text(None, text, &[]).unwrap().node.uplinks.remove(0);
    assert!(matches!(&uplink.tls, UplinkTls::Authorities(file) if file.ends_with("ca.pem") && file.is_absolute()));
    assert!(uplink.token_file.is_some_and(|file| file.is_absolute()) && uplink.path == "/a/api/v1/relay");
    let both = read_text(None, &edge("token_file = 'token'"), &[]).unwrap().node.uplinks.remove(0);
    assert!(both.tls.certificate().is_some() && both.token_file.is_some());
    let clear = "[[uplink]]\nhub = '127.0.0.1:80'\ntoken_file = 'token'\nplaintext = true\n";
    assert_eq!(read_text(None, clear, &[]).unwrap().node.uplinks[0].tls, UplinkTls::Off);

    let text = format!("[hub]\nlisten_address = []\nweb_link = true\n{}", hub_edge("bj-1", &format!("'{DIGEST}'")));
    let configuration = read_text(None, &text, &[]).unwrap();
    assert!(configuration.warnings.is_empty());
    assert!(summary(&configuration.node).contains("edges connect to the gateway's address"));
    let hub = configuration.node.hub.unwrap();
    assert!(hub.web_link && hub.tls.is_none() && hub.listen_addresses.is_empty());
    assert_eq!(hub.edges[0].tokens, [DIGEST.parse().unwrap()]);
    let text = format!("{HUB}{}", hub_edge("bj-1", &format!("['{DIGEST}', '{}']", "a".repeat(64))));
    let hub = read_text(None, &text, &[]).unwrap().node.hub.unwrap();
    assert!(hub.tls.unwrap().anonymous && hub.edges[0].tokens.len() == 2);
    let text = format!("[hub]\nlisten_address = ['127.0.0.1:9443']\nplaintext = true\n{}", hub_edge("bj-1", "[]"));
    let nobody = read_text(None, &text, &[]).unwrap();
    assert!(nobody.warnings[0].to_string().contains("no [[hub.edge]] has a token_sha256"));
    assert!(summary(&nobody.node).contains("127.0.0.1:9443 without TLS"));
}

#[test]
fn a_token_goes_without_tls_only_where_an_operator_says_so() {
    let digest = format!("'{DIGEST}'");
    for (text, mistake) in [
        ("[hub]\nplaintext = true\n", "tokens would come to :9443 without TLS from everywhere"),
        ("[hub]\nlisten_address = ['192.0.2.1:9443']\nplaintext = true\n", "tokens would come to 192.0.2.1:9443"),
        (&format!("[hub]\nplaintext = true\ntrusted_proxies = ['192.0.2.1']\n{HUB}"), "[hub.tls] has no use"),
        (
            "[hub]\nplaintext = true\ntrusted_proxies = ['192.0.2.1']\n[hub.enrol]\ndir = 'certs'\n",
            "certificates are issued over TLS with the hub itself",
        ),
        ("[hub]\nlisten_address = []\n", "at least one address is needed"),
        (&format!("{HUB}{}", hub_edge("a", "'token'")), "this is no SHA-256 digest"),
        (&format!("{HUB}{}{}", hub_edge("a", &digest), hub_edge("b", &digest)), "the edge a has this token"),
        ("[[uplink]]\nhub = 'a:1'\ntoken_file = 't'\n", "uplink.tls.ca_file is not given"),
        ("[[uplink]]\nhub = 'a:1'\nplaintext = true\n", "it needs a token"),
        (&edge("token_file = 't'\nplaintext = true"), "[uplink.tls] has no use with plaintext = true"),
        (&edge("path = 'relay'"), "\"relay\" must be a path like"),
        (
            "[[uplink]]\nhub = 'a:1'\ntoken_file = 't'\n[uplink.tls]\nca_file = 'c'\nrenew = true\n",
            "there is no certificate to renew",
        ),
        (
            "[[uplink]]\nhub = 'a:1'\ntoken_file = 't'\n[uplink.tls]\nca_file = 'c'\ncert_file = 'c'\n",
            "key_file is not given",
        ),
        (&format!("{HUB}[hub.enrol]\ncertificate_lifetime = '24h'\n"), "without dir this hub issues no certificates"),
    ] {
        let found = mistakes(text);
        assert!(found.contains(mistake), "{text}: {found}");
    }
}

#[test]
fn the_files_of_a_token_are_examined() {
    let temp = TempDir::new();
    let text = "[[uplink]]\nhub = 'hub:443'\ntoken_file = 'token'\n[uplink.tls]\nca_file = 'ca.pem'\n";
    let file = temp.write("c.toml", text);
    let check = || {
        let flags = Flags::of_file(file.clone());
        check(&flags, SystemTime::now()).map_err(|mistakes| mistakes.to_string())
    };
    assert!(check().unwrap_err().contains("c.toml:3:14: cannot take the token from"));
    temp.write("token", "short\n");
    assert!(check().unwrap_err().contains("it has no token"));
    temp.write("token", &"t".repeat(40));
    let found = check().unwrap_err();
    assert!(found.contains("c.toml:5:11: ") && found.contains("ca.pem"), "{found}");
}
