//! The section `[sql]`.

use std::net::SocketAddr;

use contract::{Error, Result};
use serde::{Deserialize, Serialize};

/// Where SQL is answered in other protocols than HTTP, and how much at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Address and port of PostgreSQL's protocol; port 0 takes a free one, empty is off. One beside PostgreSQL's own 5432,
    /// which may be taken.
    pub postgres_listen: String,
    /// Address and port of Arrow Flight SQL, as above.
    pub flight_listen: String,
    /// Connections at a time and port; one more waits. BI programs keep some open for each of their users.
    pub connections_max: usize,
    /// Statements that run at a time, over both protocols; one more waits its turn. They share the memory for queries.
    pub statements_max: usize,
    /// Seconds from a statement's start until its client has taken the last row.
    pub statement_seconds_max: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            postgres_listen: "127.0.0.1:5433".to_owned(),
            flight_listen: "127.0.0.1:8815".to_owned(),
            connections_max: 128,
            statements_max: 16,
            statement_seconds_max: 300,
        }
    }
}

impl Settings {
    /// Refuses limits of zero, with which nothing could be answered.
    pub(crate) fn check(&self) -> Result<()> {
        let limits = [
            ("connections_max", self.connections_max),
            ("statements_max", self.statements_max),
            ("statement_seconds_max", usize::try_from(self.statement_seconds_max).unwrap_or(usize::MAX)),
        ];
        match limits.iter().find(|(_, limit)| *limit == 0) {
            Some((name, _)) => Err(Error::change(format!("take `sql.{name}` = 0 (it must be 1 or more)"))),
            None => Ok(()),
        }
    }
}

/// Refuses an address that others reach while there is no token.
pub(crate) fn check_reach(setting: &str, address: SocketAddr, has_token: bool) -> Result<()> {
    if address.ip().is_loopback() || has_token {
        return Ok(());
    }
    Err(Error::change(format!(
        "listen on `{address}` (`sql.{setting}`): others reach it and no token is set; set `serving.token`, or listen on \
         127.0.0.1"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_others_reach_needs_a_token() {
        let open: SocketAddr = "0.0.0.0:5433".parse().unwrap();
        let refused = check_reach("postgres_listen", open, false).expect_err("no token").to_string();
        assert!(refused.contains("`sql.postgres_listen`") && refused.contains("`serving.token`"), "{refused}");
        check_reach("postgres_listen", open, true).expect("with a token");
        check_reach("postgres_listen", "[::1]:5433".parse().unwrap(), false).expect("loopback");
    }

    #[test]
    fn an_unknown_key_and_a_limit_of_zero_are_refused() {
        assert!(toml::from_str::<Settings>("postgres = 'x'").is_err());
        let zero = Settings { statements_max: 0, ..Settings::default() };
        assert!(zero.check().expect_err("zero").to_string().contains("`sql.statements_max`"));
        Settings::default().check().expect("the defaults are well");
    }
}
