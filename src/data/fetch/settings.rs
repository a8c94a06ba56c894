//! How files are downloaded: patience, proxies, credentials. Read from the environment once, stated outright in tests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::place::shown;

/// The hub, unless `HF_ENDPOINT` says otherwise.
const HUB: &str = "https://huggingface.co";

/// How files are downloaded. Holds credentials: it is not shown.
#[derive(Clone)]
pub struct Settings {
    /// To connect, TLS included.
    pub connect_timeout: Duration,
    /// Between two pieces of an answer, and until its first.
    pub idle_timeout: Duration,
    /// Attempts that bring nothing, in a row, after the first.
    pub retries: u32,
    /// Before the second attempt; it doubles with each that brings nothing.
    pub first_wait: Duration,
    /// The longest of these; a server that asks for more patience is given up.
    pub longest_wait: Duration,
    /// Bytes after which a begun download is made durable.
    pub sync_every: u64,
    /// Proxies.
    pub proxies: Proxies,
    /// The Hugging Face hub.
    pub hub: String,
    /// Says to the hub who asks.
    pub hub_token: Option<String>,
    /// Whether the network is not to be used at all (`HF_HUB_OFFLINE`).
    pub offline: bool,
    /// Settings of buckets, as the environment spells them: `AWS_…`, `GOOGLE_…`, `AZURE_…`.
    pub buckets: BTreeMap<String, String>,
}

/// Which requests take which proxy.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For `http://`.
    pub http: Option<String>,
    /// For `https://`.
    pub https: Option<String>,
    /// Hosts that are reached without: names, domains, addresses and networks, separated by commas.
    pub except: Option<String>,
}

/// Without an environment.
impl Default for Settings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(60),
            retries: 6,
            // 0.5 + 1 + 2 + 4 + 8 + 16: half a minute without a network.
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(300),
            // Seconds of a usual line; fsync costs a fraction of one.
            sync_every: 32 << 20,
            proxies: Proxies::default(),
            hub: HUB.to_owned(),
            hub_token: None,
            offline: false,
            buckets: BTreeMap::new(),
        }
    }
}

impl Settings {
    /// As the process's environment says.
    #[must_use]
    pub fn from_environment() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self::from_variables(&std::env::vars_os().filter_map(text).collect())
    }

    /// As these variables say.
    ///
    /// | variable | what |
    /// |---|---|
    /// | `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY` | proxies, also in lower case, which goes first |
    /// | `HF_ENDPOINT`, `HF_TOKEN` | the hub and who asks it |
    /// | `HF_TOKEN_PATH`, `HF_HOME` | where the token lies that `hf auth login` wrote; else `~/.cache/huggingface/token` |
    /// | `HF_HUB_OFFLINE` | what is not here already is not downloaded |
    /// | `AWS_…`, `GOOGLE_…`, `AZURE_…` | credentials and settings of buckets |
    #[must_use]
    pub fn from_variables(variables: &BTreeMap<String, String>) -> Self {
        let get = |name: &str| {
            let value = variables.get(name).map(|value| value.trim());
            value.filter(|value| !value.is_empty()).map(str::to_owned)
        };
        let proxy = |name: &str| get(&name.to_lowercase()).or_else(|| get(name));
        let all = proxy("ALL_PROXY");
        let default = Self::default();
        Self {
            proxies: Proxies {
                http: proxy("HTTP_PROXY").or_else(|| all.clone()),
                https: proxy("HTTPS_PROXY").or(all),
                except: proxy("NO_PROXY"),
            },
            hub: get("HF_ENDPOINT").map_or(default.hub, |hub| hub.trim_end_matches('/').to_owned()),
            hub_token: get("HF_TOKEN")
                .or_else(|| get("HUGGING_FACE_HUB_TOKEN"))
                .or_else(|| read_token(&token_path(&get)?)),
            offline: get("HF_HUB_OFFLINE")
                .is_some_and(|value| matches!(value.to_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE")),
            buckets: variables
                .iter()
                .filter(|(name, value)| {
                    !value.is_empty()
                        && (["AWS_", "GOOGLE_", "AZURE_"]
                            .iter()
                            .any(|prefix| name.starts_with(prefix)))
                })
                .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
                .collect(),
            ..default
        }
    }

    /// What of the environment has a say in downloads, for those who read a record later: variables by name, and of those
    /// that say where files come from what they say. No credentials.
    #[must_use]
    pub fn shown(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.hub != HUB {
            lines.push(format!("HF_ENDPOINT={}", shown(&self.hub)));
        }
        for (is_set, name) in [
            (self.hub_token.is_some(), "HF_TOKEN"),
            (self.offline, "HF_HUB_OFFLINE"),
            (self.proxies.http.is_some(), "HTTP_PROXY"),
            (self.proxies.https.is_some(), "HTTPS_PROXY"),
            (self.proxies.except.is_some(), "NO_PROXY"),
        ] {
            if is_set {
                lines.push(name.to_owned());
            }
        }
        for (name, value) in &self.buckets {
            let name = name.to_ascii_uppercase();
            if name.contains("ENDPOINT") {
                lines.push(format!("{name}={}", shown(value)));
            } else {
                lines.push(name);
            }
        }
        lines
    }
}

fn token_path(get: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    if let Some(path) = get("HF_TOKEN_PATH") {
        return Some(PathBuf::from(path));
    }
    let home = match (get("HF_HOME"), get("XDG_CACHE_HOME")) {
        (Some(home), _) => PathBuf::from(home),
        (None, Some(cache)) => Path::new(&cache).join("huggingface"),
        (None, None) => Path::new(&get("HOME").or_else(|| get("USERPROFILE"))?).join(".cache/huggingface"),
    };
    Some(home.join("token"))
}

fn read_token(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let token = text.trim();
    (!token.is_empty()).then(|| token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Settings {
        let variables = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Settings::from_variables(&variables.collect())
    }

    #[test]
    fn proxies_are_read_as_curl_reads_them() {
        let proxies = settings(&[
            ("HTTP_PROXY", "http://a"),
            ("http_proxy", "http://b"),
            ("ALL_PROXY", "http://c"),
            ("no_proxy", "x,y"),
        ])
        .proxies;
        assert_eq!(proxies.http.as_deref(), Some("http://b"));
        assert_eq!(proxies.https.as_deref(), Some("http://c"));
        assert_eq!(proxies.except.as_deref(), Some("x,y"));
        assert!(settings(&[("HTTPS_PROXY", " ")]).proxies == Proxies::default());
    }

    /// Servers are shown, credentials are not.
    #[test]
    fn settings_of_the_environment_are_shown_without_secrets() {
        assert_eq!(Settings::default().shown(), [""; 0]);
        let lines = settings(&[
            ("HF_ENDPOINT", "https://me:secret@mirror.example/hub?key=secret"),
            ("HF_TOKEN", "secret"),
            ("HTTPS_PROXY", "http://me:secret@proxy"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_ENDPOINT_URL", "http://me:secret@localhost:9000"),
        ])
        .shown();
        let expected = [
            "HF_ENDPOINT=https://mirror.example/hub",
            "HF_TOKEN",
            "HTTPS_PROXY",
            "AWS_ENDPOINT_URL=http://localhost:9000",
            "AWS_SECRET_ACCESS_KEY",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn hub_token_is_read_from_variable_or_file() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), "from a file\n").unwrap();
        let home = folder.path().to_str().unwrap();
        let token = |variables: &[(&str, &str)]| settings(variables).hub_token;
        assert_eq!(
            token(&[("HF_TOKEN", "a"), ("HF_HOME", home)]).as_deref(),
            Some("a")
        );
        assert_eq!(token(&[("HF_HOME", home)]).as_deref(), Some("from a file"));
        assert_eq!(
            token(&[("HF_TOKEN_PATH", &format!("{home}/token"))]).as_deref(),
            Some("from a file")
        );
        assert_eq!(token(&[("HF_HOME", "/nowhere")]), None);
        let settings = settings(&[
            ("HF_ENDPOINT", "https://hub.example/"),
            ("HF_HUB_OFFLINE", "1"),
            ("AWS_REGION", "x"),
            ("PATH", "y"),
        ]);
        assert_eq!(settings.hub, "https://hub.example");
        assert!(settings.offline);
        assert_eq!(
            settings.buckets.into_iter().collect::<Vec<_>>(),
            [("aws_region".to_owned(), "x".to_owned())]
        );
    }
}
