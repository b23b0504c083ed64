//! Which server it is.

use std::fmt;

use contract::{Error, Result};
use reqwest::Method;
use serde_json::Value;

use super::client::{Body, Client};

/// Whose REST it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Maker {
    Elasticsearch,
    OpenSearch,
}

/// A server that is known to do what the store needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Server {
    maker: Maker,
    version: String,
}

impl Server {
    /// Asks what it is.
    ///
    /// # Errors
    /// `Change` where it is none of those that the store was made for, `Retry` when it is away.
    pub(super) async fn detect(client: &Client) -> Result<Self> {
        let doing = format!("ask `{}` what it is", client.hosts());
        Self::understand(&client.ask_json(Method::GET, "", Body::None, &doing).await?)
    }

    /// Whether its maker has lifecycle policies; where they are left out, it says so itself when it is asked for one.
    pub(super) fn has_policies(&self) -> bool {
        self.maker == Maker::Elasticsearch
    }

    /// Source: <https://www.elastic.co/guide/en/elasticsearch/reference/8.19/rest-api-root.html>; OpenSearch says so in
    /// `version.distribution`: <https://docs.opensearch.org/docs/2.19/getting-started/communicate/>.
    fn understand(info: &Value) -> Result<Self> {
        let text = |path: &str| info.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        let version = text("/version/number");
        let maker = match (text("/version/distribution").as_str(), text("/tagline").as_str()) {
            ("opensearch", _) => Maker::OpenSearch,
            ("", "You Know, for Search") => Maker::Elasticsearch,
            _ => return Err(unknown("it is neither Elasticsearch nor OpenSearch")),
        };
        let server = Self { maker, version };
        let major = server.version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        match (maker, major) {
            (Maker::Elasticsearch, Some(8 | 9)) | (Maker::OpenSearch, Some(2)) => Ok(server),
            _ => Err(unknown(&format!("it is {server}, which this store was not made for"))),
        }
    }
}

fn unknown(reason: &str) -> Error {
    Error::change(format!("use `elasticsearch.hosts`: {reason} (known: Elasticsearch 8 and 9, OpenSearch 2)"))
}

impl fmt::Display for Server {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?} {}", self.maker, self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn said(info: &Value) -> String {
        Server::understand(info).map_or_else(|error| error.to_string(), |server| server.to_string())
    }

    #[test]
    fn known_servers_are_named_and_others_refused_with_the_reason() {
        let elastic = |number: &str| json!({"version": {"number": number}, "tagline": "You Know, for Search"});
        let open = |number: &str| {
            json!({"version": {"number": number, "distribution": "opensearch"},
            "tagline": "The OpenSearch Project: https://opensearch.org/"})
        };
        assert_eq!(said(&elastic("8.19.0")), "Elasticsearch 8.19.0");
        assert_eq!(said(&elastic("9.1.2")), "Elasticsearch 9.1.2");
        assert_eq!(said(&open("2.19.1")), "OpenSearch 2.19.1");
        assert!(said(&elastic("7.17.9")).contains("it is Elasticsearch 7.17.9, which this store was not made for"));
        assert!(said(&open("1.3.0")).contains("it is OpenSearch 1.3.0"));
        for other in [json!({}), json!([]), json!({"version": {"number": "8.0.0"}, "tagline": "You know"})] {
            assert!(said(&other).contains("neither Elasticsearch nor OpenSearch"), "{other}");
        }
    }
}
