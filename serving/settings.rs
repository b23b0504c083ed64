//! The section `[serving]`.

use std::net::SocketAddr;

use contract::{Error, Result, Secret};
use serde::{Deserialize, Serialize};

/// What is served where, to whom, and how much at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Address and port of Elasticsearch's REST; port 0 takes a free one. The default is Elasticsearch's own port, on
    /// loopback, so that nobody else on the network sees the data unless told. An address that others reach needs a token.
    /// Empty: it is off.
    pub elasticsearch_listen: String,
    /// Address and port of SQL, commands, `/metrics` and `/health`, as above.
    pub http_listen: String,
    /// What a client must show, except for `/health/*`: `Authorization: Bearer TOKEN`, or the same as the password of Basic
    /// or as an Elasticsearch API key. None asks nobody, which is allowed on loopback only. It travels in clear: beyond
    /// a trusted network, put a proxy with TLS before it.
    pub token: Secret,
    /// Bytes of one request's body, also after it was unpacked. A search with 65,536 terms is below 2 MB.
    pub body_bytes_max: usize,
    /// Seconds until a request is answered, or a SQL result is sent, and else given up. Commands are not limited, and a
    /// webhook has its sender's patience.
    pub request_seconds_max: u64,
    /// Searches, SQL queries and commands at a time; one more is told to come later (429). With `body_bytes_max` it
    /// bounds the memory for their bodies to 128 MB. Metrics and health are always answered, and webhooks have limits
    /// of their own.
    pub concurrent_requests_max: usize,
    /// Connections at a time and port; one more waits. Each costs about 30 KB.
    pub connections_max: usize,
    /// Seconds in which a client must send the head of its next request, or it is cut off.
    pub head_seconds_max: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            elasticsearch_listen: "127.0.0.1:9200".to_owned(),
            http_listen: "127.0.0.1:8080".to_owned(),
            token: Secret::default(),
            body_bytes_max: 4 << 20,
            request_seconds_max: 60,
            concurrent_requests_max: 32,
            connections_max: 512,
            head_seconds_max: 75,
        }
    }
}

impl Settings {
    /// The token, if one is set, for a client of this server; an empty one is none.
    pub fn token(&self) -> Option<String> {
        self.token.reveal().map(str::to_owned)
    }

    /// Refuses limits of zero, with which nothing could be answered.
    pub(crate) fn check(&self) -> Result<()> {
        let limits = [
            ("body_bytes_max", self.body_bytes_max),
            ("request_seconds_max", usize::try_from(self.request_seconds_max).unwrap_or(usize::MAX)),
            ("concurrent_requests_max", self.concurrent_requests_max),
            ("connections_max", self.connections_max),
            ("head_seconds_max", usize::try_from(self.head_seconds_max).unwrap_or(usize::MAX)),
        ];
        match limits.iter().find(|(_, limit)| *limit == 0) {
            Some((name, _)) => Err(Error::change(format!("take `serving.{name}` = 0 (it must be 1 or more)"))),
            None => Ok(()),
        }
    }

    /// Refuses an address that others reach while there is no token.
    pub(crate) fn check_reach(&self, setting: &str, address: SocketAddr) -> Result<()> {
        if address.ip().is_loopback() || self.token().is_some() {
            return Ok(());
        }
        let remedy = "set `serving.token`, or listen on 127.0.0.1";
        Err(Error::change(format!(
            "listen on `{address}` (`serving.{setting}`): others reach it and no token is set; {remedy}"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_but_never_shown() {
        let settings: Settings = toml::from_str("token = 'opensesame'").expect("valid");
        assert_eq!(settings.token().as_deref(), Some("opensesame"));
        let shown = format!("{settings:?} {}", toml::to_string(&settings).unwrap());
        assert!(shown.contains("***") && !shown.contains("opensesame"), "{shown}");
    }

    #[test]
    fn an_address_that_others_reach_needs_a_token() {
        let open: SocketAddr = "0.0.0.0:8080".parse().unwrap();
        let mut settings = Settings { token: String::new().into(), ..Settings::default() };
        let refused = settings.check_reach("http_listen", open).expect_err("an empty token is none").to_string();
        assert_eq!(
            refused,
            "failed to listen on `0.0.0.0:8080` (`serving.http_listen`): others reach it and no token is set; \
             set `serving.token`, or listen on 127.0.0.1"
        );
        settings.check_reach("http_listen", "[::1]:8080".parse().unwrap()).expect("loopback");
        settings.token = "opensesame".to_owned().into();
        settings.check_reach("http_listen", open).expect("with a token");
    }

    #[test]
    fn an_unknown_key_and_a_limit_of_zero_are_refused() {
        assert!(toml::from_str::<Settings>("tokn = 'x'").is_err());
        let zero = Settings { connections_max: 0, ..Settings::default() };
        assert!(zero.check().expect_err("zero").to_string().contains("`serving.connections_max`"));
        Settings::default().check().expect("the defaults are well");
    }
}
