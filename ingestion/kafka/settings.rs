//! The settings of the client, section `[kafka]`.

use std::time::Duration;

use contract::{Error, Result, Secret};
use serde::{Deserialize, Serialize};

/// Section `[kafka]`. Without bootstrap servers the embedded log is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// `HOST:PORT,…` of some brokers of the cluster; empty uses the embedded log.
    pub bootstrap_servers: String,
    /// Begins the names of all topics and transactional ids, so that several installations share a cluster.
    pub topic_prefix: String,
    /// A file in place of the built-in `topics.toml`; empty takes that.
    pub topics_file: String,
    /// How the brokers' logs and quotas know the program.
    pub client_id: String,
    /// The consumer group whose offsets say how far both stores are, and whose members share the partitions.
    pub group_id: String,
    /// Milliseconds until a broker must have accepted a connection.
    pub connect_timeout_ms: u64,
    /// Milliseconds until a broker must have answered a request.
    pub request_timeout_ms: u64,
    /// Milliseconds after which brokers undo a transaction whose collector has died. Until then readers wait.
    pub transaction_timeout_ms: u64,
    /// Milliseconds without a heartbeat after which a `process` counts as dead and others get its partitions. Brokers take 6,000 to
    /// 1,800,000 unless they are told otherwise.
    pub session_timeout_ms: u64,
    /// Milliseconds between two heartbeats; a third of the above or less.
    pub heartbeat_interval_ms: u64,
    /// Milliseconds within which a `process` must have written what it had read of partitions that others are to get.
    pub rebalance_timeout_ms: u64,
    /// Whether connections are encrypted.
    pub tls: bool,
    /// PEM file of the authorities that may vouch for brokers; empty takes the system's.
    pub tls_ca_file: String,
    /// PEM file of this client's certificate chain, where brokers ask for one.
    pub tls_certificate_file: String,
    /// PEM file of its key.
    pub tls_key_file: String,
    /// `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`; empty does not log in.
    pub sasl_mechanism: String,
    /// Who logs in.
    pub sasl_username: String,
    /// The password; better in the environment than in a file that others read.
    pub sasl_password: Secret,
    /// A file that holds the password, read anew for each connection.
    pub sasl_password_file: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            bootstrap_servers: String::new(),
            topic_prefix: String::new(),
            topics_file: String::new(),
            client_id: "databroker".to_owned(),
            group_id: "databroker".to_owned(),
            connect_timeout_ms: 10_000,
            request_timeout_ms: 30_000,
            transaction_timeout_ms: 60_000,
            session_timeout_ms: 15_000,
            heartbeat_interval_ms: 3_000,
            rebalance_timeout_ms: 60_000,
            tls: false,
            tls_ca_file: String::new(),
            tls_certificate_file: String::new(),
            tls_key_file: String::new(),
            sasl_mechanism: String::new(),
            sasl_username: String::new(),
            sasl_password: Secret::default(),
            sasl_password_file: String::new(),
        }
    }
}

impl Settings {
    /// Whether Kafka is the log.
    pub fn is_set(&self) -> bool {
        !self.bootstrap_servers.trim().is_empty()
    }

    pub(crate) fn checked(&self) -> Result<()> {
        let within = |name: &str, value: u64, least: u64, most: u64| {
            let refused = || Error::change(format!("use `kafka.{name} = {value}` ({least} to {most})"));
            (least..=most).contains(&value).then_some(()).ok_or_else(refused)
        };
        within("connect_timeout_ms", self.connect_timeout_ms, 100, 600_000)?;
        within("request_timeout_ms", self.request_timeout_ms, 1_000, 600_000)?;
        within("transaction_timeout_ms", self.transaction_timeout_ms, 1_000, 900_000)?;
        within("session_timeout_ms", self.session_timeout_ms, 1_000, 1_800_000)?;
        within("heartbeat_interval_ms", self.heartbeat_interval_ms, 50, self.session_timeout_ms / 3)?;
        within("rebalance_timeout_ms", self.rebalance_timeout_ms, 1_000, 1_800_000)?;
        if self.tls_certificate_file.is_empty() != self.tls_key_file.is_empty() {
            return Err(Error::change(
                "use one of `kafka.tls_certificate_file` and `kafka.tls_key_file` without the other",
            ));
        }
        let names_a_place = !self.sasl_password_file.is_empty() || self.sasl_password.reveal().is_some();
        if !self.sasl_mechanism.is_empty() && (self.sasl_username.is_empty() || !names_a_place) {
            return Err(Error::change(
                "log in to Kafka: `kafka.sasl_mechanism` is set, and `kafka.sasl_username` or the password is not \
                 (`kafka.sasl_password_file`, or DATABROKER_KAFKA_SASL_PASSWORD in the environment)",
            ));
        }
        self.bootstrap().map(drop)
    }

    /// Hosts and ports of the bootstrap servers.
    pub(crate) fn bootstrap(&self) -> Result<Vec<(String, u16)>> {
        let parse = |server: &str| {
            let (host, port) = server.rsplit_once(':')?;
            let host = host.trim_start_matches('[').trim_end_matches(']');
            (!host.is_empty()).then_some((host.to_owned(), port.parse().ok()?))
        };
        let servers = self.bootstrap_servers.split(',').map(str::trim).filter(|server| !server.is_empty());
        servers
            .map(|server| {
                parse(server).ok_or_else(|| {
                    Error::change(format!("understand Kafka's bootstrap server `{server}` (it should be HOST:PORT)"))
                })
            })
            .collect()
    }

    pub(crate) fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms)
    }

    pub(crate) fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }

    pub(crate) fn session_timeout(&self) -> Duration {
        Duration::from_millis(self.session_timeout_ms)
    }

    pub(crate) fn heartbeat_interval(&self) -> Duration {
        Duration::from_millis(self.heartbeat_interval_ms)
    }

    pub(crate) fn rebalance_timeout(&self) -> Duration {
        Duration::from_millis(self.rebalance_timeout_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(change: impl FnOnce(&mut Settings)) -> Settings {
        let mut settings = Settings { bootstrap_servers: "a:9092".to_owned(), ..Settings::default() };
        change(&mut settings);
        settings
    }

    #[test]
    fn bootstrap_servers_are_hosts_with_ports() {
        let settings = with(|settings| settings.bootstrap_servers = "a:1, [::1]:2,b.example:3,".to_owned());
        let expected = [("a", 1), ("::1", 2), ("b.example", 3)].map(|(host, port)| (host.to_owned(), port));
        assert_eq!(settings.bootstrap().unwrap(), expected);
        for wrong in ["a", "a:", ":9092", "a:99999", "a:1,b"] {
            let settings = with(|settings| settings.bootstrap_servers = wrong.to_owned());
            assert!(settings.checked().unwrap_err().to_string().contains("HOST:PORT"), "{wrong}");
        }
    }

    #[test]
    fn what_cannot_work_is_refused_by_name() {
        type Change = fn(&mut Settings);
        let wrong: [(Change, &str); 4] = [
            (|settings| settings.request_timeout_ms = 1, "`kafka.request_timeout_ms = 1` (1000 to 600000)"),
            (|settings| settings.session_timeout_ms = 6_000, "`kafka.heartbeat_interval_ms = 3000` (50 to 2000)"),
            (|settings| settings.tls_key_file = "key.pem".to_owned(), "`kafka.tls_certificate_file`"),
            (|settings| settings.sasl_mechanism = "PLAIN".to_owned(), "`kafka.sasl_username`"),
        ];
        for (change, named) in wrong {
            let error = with(change).checked().unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
        assert!(with(|_| ()).checked().is_ok());
    }

    #[test]
    fn a_password_is_printed_nowhere() {
        let settings = with(|settings| settings.sasl_password = Secret::from("hunter2".to_owned()));
        assert!(!format!("{settings:?}").contains("hunter2"));
    }
}
