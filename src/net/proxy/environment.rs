//! The proxy that the environment names, as curl and Go have it: `https_proxy`, `HTTPS_PROXY`, `all_proxy`, `ALL_PROXY`,
//! `no_proxy`, `NO_PROXY`. Of two spellings, the first that is set counts.

use super::login::Secret;
use super::no_proxy::{NoProxy, NoProxyRule};
use super::url::ProxyUrl;

/// The names of variables, in the order in which they are looked for.
const PROXY: [&str; 4] = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
const NO_PROXY: [&str; 2] = ["no_proxy", "NO_PROXY"];

/// The proxy that the environment names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyEnvironment {
    /// Where the proxy is.
    pub url: ProxyUrl,
    /// The user's name and password.
    pub login: Option<(String, Secret)>,
    /// The targets that are dialled without it.
    pub no_proxy: NoProxy,
}

impl ProxyEnvironment {
    /// Reads the variables by `get`. `None` if no proxy is named.
    ///
    /// # Errors
    /// The name of a variable that cannot be used, and the reason; never its value, which may contain a password.
    pub fn read(get: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, String> {
        let first = |names: &[&'static str]| names.iter().find_map(|name| Some((*name, get(name)?)));
        let Some((name, value)) = first(&PROXY).filter(|(_, value)| !value.trim().is_empty()) else { return Ok(None) };
        let read = ProxyUrl::with_login(value.trim());
        let (url, login) = read.map_err(|error| format!("{name} in the environment: {error}"))?;
        let mut rules = Vec::new();
        if let Some((name, value)) = first(&NO_PROXY) {
            for text in value.split([',', ' ']).map(str::trim).filter(|text| !text.is_empty()) {
                let rule: Result<NoProxyRule, _> = text.parse();
                rules.push(rule.map_err(|error| format!("{name} in the environment: {error}"))?);
            }
        }
        Ok(Some(Self { url, login, no_proxy: NoProxy(rules) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Option<ProxyEnvironment>, String> {
        let get = |name: &str| variables.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).to_owned());
        ProxyEnvironment::read(get)
    }

    #[test]
    fn the_variables_of_curl_and_go_are_read() {
        let url = |variables: &[(&str, &str)]| read(variables).unwrap().map(|proxy| proxy.url.to_string());
        assert_eq!(url(&[("http_proxy", "http://a:1"), ("HTTP_PROXY", "http://a:1")]), None);
        assert_eq!(url(&[("HTTPS_PROXY", "http://b:1"), ("https_proxy", "a:1")]).unwrap(), "http://a:1");
        assert_eq!(url(&[("ALL_PROXY", "socks5h://a:1")]).unwrap(), "socks5h://a:1");
        assert_eq!(url(&[("https_proxy", ""), ("ALL_PROXY", "http://a:1")]), None, "set, but empty");
        let all = read(&[("https_proxy", "http://u:p@a:1"), ("NO_PROXY", "localhost, .example.org")]).unwrap().unwrap();
        assert_eq!(all.login, Some(("u".into(), Secret::new("p".into()))));
        assert!(
            all.no_proxy.has(&"localhost:1".parse().unwrap()) && all.no_proxy.has(&"a.example.org:1".parse().unwrap())
        );
    }

    #[test]
    fn a_variable_that_cannot_be_used_is_named_without_its_value() {
        let error = read(&[("HTTPS_PROXY", "http://u:hunter2@a:1/x")]).unwrap_err();
        assert!(error.starts_with("HTTPS_PROXY in the environment: ") && !error.contains("hunter2"), "{error}");
        let error = read(&[("HTTPS_PROXY", "http://a:1"), ("NO_PROXY", "a b/c")]).unwrap_err();
        assert!(error.starts_with("NO_PROXY in the environment: "), "{error}");
    }
}
