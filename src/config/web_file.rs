//! `--web.config.file`: the YAML file that configures TLS and passwords of programs of the Prometheus family
//! (exporter-toolkit's `docs/web-configuration.md`), so that Pushgateway's unit file works unchanged.
//!
//! Every mistake is reported with its line, as in TOML files. YAML's syntax errors end the reading.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde_saphyr::Spanned;

use super::file::read_file;
use super::mistake::{KeySpans, Mistake, SourceSpan};
use super::value::ConfigValue;
use super::web_checks::{self, TlsSection};
use crate::net::tls::web::Pem;
use crate::node::http::auth::guard::{ExtraHeader, GuardRules};
use crate::node::http::auth::passwords::Users;
use crate::node::http::auth::tokens::Tokens;
use crate::node::options::WebSecurity;

type Text = Spanned<String>;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WebFile {
    tls_server_config: Option<Tls>,
    http_server_config: Option<Http>,
    rate_limit: Option<Rate>,
    basic_auth_users: Option<BTreeMap<String, Text>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Tls {
    cert: Option<Text>,
    key: Option<Text>,
    client_ca: Option<Text>,
    cert_file: Option<Text>,
    key_file: Option<Text>,
    client_ca_file: Option<Text>,
    client_auth_type: Option<Text>,
    client_allowed_sans: Option<Vec<Text>>,
    min_version: Option<Text>,
    max_version: Option<Text>,
    cipher_suites: Option<Vec<Text>>,
    prefer_server_cipher_suites: Option<bool>,
    curve_preferences: Option<Vec<Text>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Http {
    http2: Option<bool>,
    headers: Option<BTreeMap<String, Text>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Rate {
    interval: Option<Text>,
    burst: Option<usize>,
}

/// Reads the file; also returns the positions of the keys that name files.
///
/// # Errors
/// Every mistake that was found.
pub(super) fn read(file: &Path) -> Result<(WebSecurity, KeySpans), Vec<Mistake>> {
    let text = read_file(file).map_err(|text| vec![whole(file, text)])?;
    let mut options = serde_saphyr::Options::default();
    options.with_snippet = false;
    let parsed: Result<Option<WebFile>, _> = serde_saphyr::from_str_with_options(&text, options);
    let parsed = parsed.map_err(|error| {
        let at = error.location().map(|location| at(location.line(), location.column()));
        vec![Mistake {
            span: at.map_or(SourceSpan::Key(name(file)), |at| SourceSpan::in_file(file, at)),
            text: explain(&error),
        }]
    })?;
    let mut checker = Checker { file, mistakes: Vec::new(), spans: KeySpans::new() };
    let security = checker.security(parsed.unwrap_or_default());
    if checker.mistakes.is_empty() { Ok((security, checker.spans)) } else { Err(checker.mistakes) }
}

/// The first line of the library's message, without the position, which is printed before it.
fn explain(error: &impl Display) -> String {
    let text = error.to_string();
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let line = line.strip_prefix("error: ").unwrap_or(line);
    let end = line.find(" at line ").unwrap_or(line.len());
    format!("this cannot be read: {}", &line[..end])
}

fn name(file: &Path) -> String {
    file.display().to_string()
}

fn at(line: u64, column: u64) -> (usize, usize) {
    (usize::try_from(line).unwrap_or(1), usize::try_from(column).unwrap_or(1))
}

fn whole(file: &Path, text: String) -> Mistake {
    Mistake { span: SourceSpan::Key(name(file)), text }
}

struct Checker<'a> {
    file: &'a Path,
    mistakes: Vec<Mistake>,
    spans: KeySpans,
}

impl Checker<'_> {
    fn security(&mut self, file: WebFile) -> WebSecurity {
        let http = file.http_server_config.unwrap_or_default();
        let rate = file.rate_limit.unwrap_or_default();
        let headers = http.headers.unwrap_or_default();
        let headers = headers.iter().filter_map(|(name, value)| self.note(value, ExtraHeader::new(name, &value.value)));
        let headers = headers.collect();
        let users = file.basic_auth_users.unwrap_or_default().into_iter();
        let users: BTreeMap<_, _> = users
            .filter_map(|(name, hash)| {
                Some((name.clone(), self.note(&hash, web_checks::user(&name, hash.value.trim()))?))
            })
            .collect();
        let interval = rate.interval.filter(|text| !matches!(text.value.as_str(), "" | "0" | "0s"));
        let wait = interval.as_ref().and_then(|text| self.value::<Duration>(text));
        let rate_limit = match (web_checks::rate_limit(wait, rate.burst), &interval) {
            (Ok(limit), _) => limit,
            (Err(error), Some(at)) => self.note(at, Err(error)),
            (Err(_), None) => None,
        };
        WebSecurity {
            tls: file.tls_server_config.and_then(|tls| self.tls(tls)),
            http2: http.http2.unwrap_or(WebSecurity::default().http2),
            guard: GuardRules { headers, users: Users::new(users), tokens: Tokens::default(), rate_limit },
            config_file: None,
        }
    }

    fn tls(&mut self, tls: Tls) -> Option<crate::net::tls::web::WebTls> {
        let before = self.mistakes.len();
        let raw = TlsSection {
            cert: self.pem("cert_file", tls.cert_file, "cert", tls.cert),
            key: self.pem("key_file", tls.key_file, "key", tls.key),
            client_ca: self.pem("client_ca_file", tls.client_ca_file, "client_ca", tls.client_ca),
            client_auth: tls.client_auth_type.and_then(|text| self.value(&text)),
            client_allowed_sans: tls.client_allowed_sans.into_iter().flatten().map(|text| text.value).collect(),
            min_version: tls.min_version.and_then(|text| self.value(&text)),
            max_version: tls.max_version.and_then(|text| self.value(&text)),
            cipher_suites: self.values(tls.cipher_suites),
            prefer_server_cipher_suites: tls.prefer_server_cipher_suites,
            curve_preferences: self.values(tls.curve_preferences),
        };
        raw.build().unwrap_or_else(|(key, text)| {
            if self.mistakes.len() == before {
                let span = self.spans.get(key).map(|at| SourceSpan::in_file(self.file, *at));
                let span = span.unwrap_or(SourceSpan::Key(name(self.file)));
                self.mistakes.push(Mistake { span, text: format!("tls_server_config: {text}") });
            }
            None
        })
    }

    fn pem(
        &mut self,
        file_key: &'static str,
        file: Option<Text>,
        inline_key: &'static str,
        inline: Option<Text>,
    ) -> Option<Pem> {
        let file = file.filter(|text| !text.value.is_empty());
        let inline = inline.filter(|text| !text.value.is_empty());
        for (key, text) in [(file_key, &file), (inline_key, &inline)] {
            if let Some(text) = text {
                self.spans.insert(key, span(text));
            }
        }
        if let (Some(_), Some(inline)) = (&file, &inline) {
            let error = format!("{inline_key} and {file_key} are both given: keep one");
            self.note::<()>(inline, Err(error));
        }
        let folder = self.file.parent().unwrap_or(Path::new(""));
        file.map(|text| Pem::File(folder.join(text.value)))
            .or(inline.map(|text| Pem::Inline { key: inline_key, text: text.value }))
    }

    fn values<T: ConfigValue>(&mut self, texts: Option<Vec<Text>>) -> Vec<T> {
        texts.into_iter().flatten().filter_map(|text| self.value(&text)).collect()
    }

    fn value<T: ConfigValue>(&mut self, text: &Text) -> Option<T> {
        self.note(text, T::from_text(&text.value))
    }

    fn note<T>(&mut self, text: &Text, outcome: Result<T, String>) -> Option<T> {
        outcome
            .map_err(|error| {
                self.mistakes.push(Mistake { span: SourceSpan::in_file(self.file, span(text)), text: error })
            })
            .ok()
    }
}

fn span(text: &Text) -> (usize, usize) {
    at(text.referenced.line(), text.referenced.column())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::TempDir;

    const HASH: &str = "$2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi";

    fn read_text(text: &str) -> Result<WebSecurity, String> {
        let temp = TempDir::new();
        let file = temp.write("web.yml", text);
        let folder = format!("{}/", temp.path().display());
        let shown = |mistake: &Mistake| mistake.to_string().replace(&folder, "");
        read(&file).map(|(security, _)| security).map_err(|all| all.iter().map(shown).collect::<Vec<_>>().join("\n"))
    }

    #[test]
    fn everything_the_toolkit_has_can_be_said() {
        let text = format!(
            "# A comment.\ntls_server_config:\n  cert_file: server.crt\n  key_file: /etc/server.key\n\
             \x20 client_auth_type: \"RequireAndVerifyClientCert\"\n  client_ca_file: ca.pem\n\
             \x20 client_allowed_sans:\n    - example.org\n    - 10.0.0.1\n  min_version: TLS12\n  max_version: TLS13\n\
             \x20 cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_AES_128_GCM_SHA256]\n\
             \x20 prefer_server_cipher_suites: false\n  curve_preferences:\n  - CurveP256\n\
             http_server_config:\n  http2: no\n  headers:\n    X-Frame-Options: deny\n\
             \x20   Strict-Transport-Security: max-age=31536000\n\
             basic_auth_users:\n  alice: {HASH}\n  \"bob\": '{HASH}'\n\
             rate_limit:\n  interval: 1s\n  burst: 20\n"
        );
        let security = read_text(&text).unwrap();
        let tls = security.tls.as_ref().unwrap();
        assert!(tls.cert.path().is_absolute() && tls.cert.path().ends_with("server.crt"), "relative to the file");
        assert_eq!(tls.key, Pem::File("/etc/server.key".into()));
        assert_eq!(tls.client_allowed_sans, ["example.org", "10.0.0.1"]);
        assert_eq!((tls.cipher_suites.len(), tls.curve_preferences.len()), (2, 1));
        assert!(!tls.prefer_server_cipher_suites && !security.http2);
        assert_eq!(security.guard.headers.len(), 2);
        assert!(!security.guard.users.is_empty());
        assert_eq!(security.guard.rate_limit.map(|limit| (limit.interval.as_secs(), limit.burst)), Some((1, 20)));
    }

    #[test]
    fn an_empty_file_asks_for_no_protection() {
        for text in ["", "---\n", "tls_server_config:\nbasic_auth_users:\n", "rate_limit:\n  interval: 0\n", "{}"] {
            assert_eq!(read_text(text).unwrap(), WebSecurity::default(), "{text:?}");
        }
    }

    #[test]
    fn mistakes_have_their_positions() {
        let text = "tls_server_config:\n  cert_file: a\n  min_version: TLS10\n  curve_preferences: [CurveP521]\n\
                    http_server_config:\n  headers:\n    Server: x\nbasic_auth_users:\n  a: secret\n";
        let shown = read_text(text).unwrap_err();
        for (span, what) in
            [(":3:16: ", "RFC 8996"), (":4:23: ", "CurveP384"), (":7:13: ", "cannot be set"), (":9:6: ", "bcrypt")]
        {
            assert!(
                shown.lines().any(|line| line.starts_with(&format!("web.yml{span}")) && line.contains(what)),
                "{shown}"
            );
        }
        for (text, what) in [
            ("tls_server_config:\n  cert_file: a\n", "key_file"),
            ("tls_server_config:\n  key_file: a\n", "cert_file"),
            ("tls_server_config:\n  certfile: a\n", "certfile"),
            ("tls_server_config:\n  cert_file: a\n  cert_file: b\n", "uplicate"),
            ("tls_server_config:\n  cert_file: a\n  key_file: b\n  client_ca_file: c\n", "client_auth_type"),
            ("tls_server_config: 1\n", "cannot be read"),
            ("basic_auth_users: {a: b", "cannot be read"),
            ("a: &a [x,x]\nb: *a\n", "cannot be read"),
            ("rate_limit:\n  interval: 1s\n", "burst"),
        ] {
            let shown = read_text(text).unwrap_err();
            assert!(
                shown.contains(what) && shown.starts_with("web.yml") && shown.lines().count() == 1,
                "{text}: {shown}"
            );
        }
    }
}
