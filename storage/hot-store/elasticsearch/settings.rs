//! What can be set about a real Elasticsearch.

use contract::{Error, Result, Secret};
use reqwest::Url;
use serde::{Deserialize, Serialize};

/// Bytes of one bulk request at the least: below it the requests cost more than what they carry.
const BULK_BYTES_MIN: usize = 64 << 10;

/// Bytes of one bulk request at the most: Elasticsearch's own `http.max_content_length`.
const BULK_BYTES_LIMIT: usize = 100 << 20;

/// The section `[elasticsearch]` of the settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ElasticsearchSettings {
    /// Addresses of one cluster's nodes with commas between them; `http` unless they say `https`. While one is away the next
    /// is asked. Empty: the embedded hot store. Also `ELASTICSEARCH_HOSTS`.
    pub hosts: String,
    /// An API key in its encoded form. Also `ELASTICSEARCH_API_KEY`.
    pub api_key: Secret,
    /// A file that holds the API key.
    pub api_key_file: String,
    /// A user, where there is no API key. Also `ELASTICSEARCH_USERNAME`.
    pub username: String,
    /// The user's password. Also `ELASTICSEARCH_PASSWORD`.
    pub password: Secret,
    /// A file that holds the password.
    pub password_file: String,
    /// A file of certificates (PEM) that are trusted in the stead of the system's.
    pub ca_file: String,
    /// The SHA-256 fingerprint, in hexadecimal digits, of the one certificate that is trusted: the server's own, or one
    /// of its chain that signed it.
    pub ca_fingerprint: String,
    /// Primary shards of a new index. A day of a source is some GB at the most, which one shard holds.
    pub shards: u16,
    /// Copies of each shard beside the primary; 0 for a cluster of one node.
    pub replicas: u16,
    /// Seconds until a request is given up, to be sent again.
    pub request_seconds_max: u64,
    /// Bytes of one bulk request at the most. How many there are below it follows from the answers: slow ones and those
    /// that say "too many requests" make it smaller.
    pub bulk_bytes_max: usize,
}

impl Default for ElasticsearchSettings {
    fn default() -> Self {
        Self {
            hosts: String::new(),
            api_key: Secret::default(),
            api_key_file: String::new(),
            username: String::new(),
            password: Secret::default(),
            password_file: String::new(),
            ca_file: String::new(),
            ca_fingerprint: String::new(),
            shards: 1,
            replicas: 1,
            request_seconds_max: 60,
            bulk_bytes_max: 16 << 20,
        }
    }
}

/// Who asks.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Login {
    Nobody,
    ApiKey(String),
    Basic { username: String, password: String },
}

impl ElasticsearchSettings {
    /// Whether a real Elasticsearch is to be used.
    pub fn is_set(&self) -> bool {
        !self.hosts.trim().is_empty()
    }

    /// The hosts' addresses for messages: without what logs in.
    pub fn hosts_shown(&self) -> String {
        let urls = self.urls().unwrap_or_default();
        urls.iter().map(|url| url.as_str().trim_end_matches('/')).collect::<Vec<_>>().join(", ")
    }

    /// The hosts' addresses; what logs in within them is taken out.
    pub(super) fn urls(&self) -> Result<Vec<Url>> {
        let hosts = self.hosts.split(',').map(str::trim).filter(|host| !host.is_empty());
        hosts.map(|host| Ok(self.parsed(host)?.0)).collect()
    }

    /// Reads what logs in, from the settings, a file or the first host's address.
    pub(super) fn login(&self) -> Result<Login> {
        let api_key = secret("api_key", &self.api_key, &self.api_key_file)?;
        let password = secret("password", &self.password, &self.password_file)?;
        let first = self.hosts.split(',').next().unwrap_or_default().trim();
        let within = if first.is_empty() { None } else { self.parsed(first)?.1 };
        match (api_key, self.username.is_empty(), password) {
            (Some(key), true, None) => Ok(Login::ApiKey(key)),
            (None, false, Some(password)) => Ok(Login::Basic { username: self.username.clone(), password }),
            (None, true, None) => {
                Ok(within.map_or(Login::Nobody, |(username, password)| Login::Basic { username, password }))
            }
            (Some(_), ..) => {
                Err(Error::change("use the settings `elasticsearch`: both an API key and a user are set (one of them)"))
            }
            _ => Err(Error::change("use the settings `elasticsearch`: a user needs both `username` and `password`")),
        }
    }

    /// Names the first setting that is out of its range.
    pub(super) fn check(&self) -> Result<()> {
        let wrong = |what: String| Err(Error::change(format!("use the settings `elasticsearch`: {what}")));
        if !(BULK_BYTES_MIN..=BULK_BYTES_LIMIT).contains(&self.bulk_bytes_max) {
            let given = self.bulk_bytes_max;
            return wrong(format!("`bulk_bytes_max` is {given} ({BULK_BYTES_MIN} to {BULK_BYTES_LIMIT})"));
        }
        if self.shards == 0 || self.request_seconds_max == 0 {
            return wrong("`shards` and `request_seconds_max` are at least 1".to_owned());
        }
        if !self.ca_file.is_empty() && !self.ca_fingerprint.is_empty() {
            return wrong("both `ca_file` and `ca_fingerprint` are set (one of them)".to_owned());
        }
        Ok(())
    }

    /// The address, and who logs in with which password.
    fn parsed(&self, host: &str) -> Result<(Url, Option<(String, String)>)> {
        let whole = if host.contains("://") { host.to_owned() } else { format!("http://{host}") };
        // The address is not repeated: a password may stand in it.
        let wrong = || {
            Error::change(
                "use `elasticsearch.hosts`: an address is like `https://search.example:9200`, with commas between",
            )
        };
        let mut url = Url::parse(&whole).map_err(|_| wrong())?;
        if !["http", "https"].contains(&url.scheme()) || !url.has_host() {
            return Err(wrong());
        }
        if url.port().is_none() && !whole.trim_end_matches('/').ends_with(":443") {
            url.set_port(Some(9200)).map_err(|()| wrong())?;
        }
        let login = url.password().map(|password| (url.username().to_owned(), password.to_owned()));
        url.set_username("").and_then(|()| url.set_password(None)).map_err(|()| wrong())?;
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        Ok((url, login))
    }
}

fn secret(name: &str, value: &Secret, file: &str) -> Result<Option<String>> {
    if file.is_empty() {
        return Ok(value.reveal().map(str::to_owned));
    }
    let read = std::fs::read_to_string(file);
    let text =
        read.map_err(|cause| Error::change(format!("read `elasticsearch.{name}_file` `{file}`")).because(cause))?;
    Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(hosts: &str) -> ElasticsearchSettings {
        ElasticsearchSettings { hosts: hosts.to_owned(), ..ElasticsearchSettings::default() }
    }

    #[test]
    fn hosts_have_a_scheme_and_a_port_and_keep_no_password() {
        let urls = |hosts: &str| of(hosts).urls().unwrap().iter().map(Url::to_string).collect::<Vec<_>>();
        assert_eq!(urls("localhost:9200, a.example,"), ["http://localhost:9200/", "http://a.example:9200/"]);
        assert_eq!(urls("https://elastic:se%3Acret@b.example/path"), ["https://b.example:9200/path/"]);
        assert_eq!(urls("https://b.example:443"), ["https://b.example/"]);
        let error = of("ftp://elastic:secret@b.example").urls().unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }

    #[test]
    fn a_login_is_an_api_key_or_a_user_and_may_stand_in_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "c2VjcmV0\n").unwrap();
        let path = file.path().to_str().unwrap().to_owned();
        let key = ElasticsearchSettings { api_key_file: path.clone(), ..of("localhost") };
        assert_eq!(key.login().unwrap(), Login::ApiKey("c2VjcmV0".to_owned()));
        let both = ElasticsearchSettings { username: "elastic".to_owned(), ..key };
        assert!(both.login().is_err());
        let user = ElasticsearchSettings { username: "elastic".to_owned(), password_file: path, ..of("localhost") };
        let basic = Login::Basic { username: "elastic".to_owned(), password: "c2VjcmV0".to_owned() };
        assert_eq!(user.login().unwrap(), basic);
        assert!(ElasticsearchSettings { username: "elastic".to_owned(), ..of("localhost") }.login().is_err());
        let within = Login::Basic { username: "elastic".to_owned(), password: "x".to_owned() };
        assert_eq!(of("https://elastic:x@a.example").login().unwrap(), within);
        assert_eq!(of("localhost").login().unwrap(), Login::Nobody);
    }
}
