//! Settings: the file, then the environment over it. An unknown name stops the start and is answered with
//! the nearest known one.

use std::path::Path;

use contract::{Error, Result, nearest};
use toml::{Table, Value};

/// The commented reference of all settings, which is also what is known.
pub(crate) const REFERENCE: &str = include_str!("../../databroker.toml");

/// Prefix of the environment's form of a setting: `DATABROKER_HOT_RETENTION_DAYS`.
const PREFIX: &str = "DATABROKER_";
/// Names with the prefix that are flags, not settings.
const FLAGS: &[&str] = &["DATABROKER_CONFIG", "DATABROKER_DATA"];
/// Engines that are named in the environment, and what serves in their place for now.
const ENGINES: &[(&str, &str)] =
    &[("DATABRICKS_HOST", "Delta tables on this disk"), ("DATABRICKS_TOKEN", "Delta tables on this disk")];

/// Names by which engines are known beyond this program, and the settings that they are.
const OTHER_NAMES: &[(&str, &str)] = &[
    ("ELASTICSEARCH_HOSTS", "DATABROKER_ELASTICSEARCH_HOSTS"),
    ("ELASTICSEARCH_API_KEY", "DATABROKER_ELASTICSEARCH_API_KEY"),
    ("ELASTICSEARCH_USERNAME", "DATABROKER_ELASTICSEARCH_USERNAME"),
    ("ELASTICSEARCH_PASSWORD", "DATABROKER_ELASTICSEARCH_PASSWORD"),
    ("KAFKA_BOOTSTRAP_SERVERS", "DATABROKER_KAFKA_BOOTSTRAP_SERVERS"),
];

/// All settings, a section a stage.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub(crate) struct Settings {
    pub(crate) backfill: Backfill,
    /// A section a source.
    #[serde(flatten)]
    pub(crate) acquisition: acquisition::Settings,
    pub(crate) log: embedded_log::Settings,
    pub(crate) kafka: kafka_log::Settings,
    pub(crate) processing: processing::Settings,
    pub(crate) hot: hot_store::Settings,
    pub(crate) elasticsearch: hot_store::ElasticsearchSettings,
    pub(crate) cold: cold_store::Settings,
    pub(crate) serving: serving::Settings,
    pub(crate) sql: sql_wire::Settings,
    pub(crate) monitoring: monitoring::Settings,
}

/// How much of a file goes into the log at once.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Backfill {
    /// Records.
    pub(crate) records_max: usize,
    /// Bytes of records; one larger record may exceed it.
    pub(crate) bytes_max: usize,
}

impl Default for Backfill {
    fn default() -> Self {
        Self { records_max: contract::limits::HARVEST_RECORDS_MAX, bytes_max: contract::limits::HARVEST_BYTES_MAX }
    }
}

impl Settings {
    /// Reads the file, if there is one, and the environment.
    pub(crate) fn load(file: Option<&Path>, environment: impl Iterator<Item = (String, String)>) -> Result<Self> {
        let mut table = read_file(file)?;
        let environment: Vec<_> = environment.collect();
        let credentials = cold_store::Credentials::from_environment(environment.iter().cloned());
        let known = known();
        check(&table, &known, file.unwrap_or(Path::new("databroker.toml")))?;
        for (name, value) in environment {
            if let Some((_, instead)) = ENGINES.iter().find(|(engine, _)| *engine == name && !value.is_empty()) {
                let doing = format!("use `{name}`: this version has only {instead}; unset the variable to use that");
                return Err(Error::change(doing));
            }
            let setting =
                OTHER_NAMES.iter().find(|(other, _)| *other == name).map(|(_, setting)| (*setting).to_owned());
            let name = setting.unwrap_or(name);
            if name.starts_with(PREFIX) && !FLAGS.contains(&name.as_str()) {
                set(&mut table, &known, &name, &value)?;
            }
        }
        let understood: Result<Self, _> = table.try_into();
        let mut settings = understood.map_err(|cause| Error::change("understand the settings").because(cause))?;
        settings.cold.credentials = credentials;
        Ok(settings)
    }

    /// What is served. With a real Elasticsearch its REST here is off, since that answers itself, by rule at the same port;
    /// an address of the user's own has it read through.
    pub(crate) fn serving_in_force(&self) -> serving::Settings {
        let mut serving = self.serving.clone();
        if self.elasticsearch.is_set()
            && serving.elasticsearch_listen == serving::Settings::default().elasticsearch_listen
        {
            serving.elasticsearch_listen = String::new();
        }
        serving
    }

    /// The settings in force as TOML; secrets print as `***`.
    pub(crate) fn to_toml(&self) -> Result<String> {
        toml::to_string_pretty(self).map_err(|cause| Error::stop("print the settings").because(cause))
    }
}

fn read_file(file: Option<&Path>) -> Result<Table> {
    let path = file.unwrap_or(Path::new("databroker.toml"));
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && file.is_none() => return Ok(Table::new()),
        Err(error) => return Err(Error::change(format!("read settings `{}`", path.display())).because(error)),
    };
    text.parse().map_err(|cause| Error::change(format!("read settings `{}`", path.display())).because(cause))
}

/// Every `section.key` of the reference, whose settings stand as comments `#key = value`.
fn known() -> Vec<(String, String)> {
    let mut section = "";
    let mut known = Vec::new();
    for line in REFERENCE.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name;
        } else if let Some((key, _)) = line.strip_prefix('#').and_then(|line| line.split_once(" = ")) {
            let is_key = !key.is_empty()
                && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
            if is_key {
                known.push((section.to_owned(), key.to_owned()));
            }
        }
    }
    known
}

fn check(table: &Table, known: &[(String, String)], path: &Path) -> Result<()> {
    for (section, keys) in table {
        let sections = known.iter().map(|(section, _)| section.as_str());
        if !known.iter().any(|(name, _)| name == section) {
            let doing = format!(
                "read settings `{}`: there is no section `[{section}]`{}",
                path.display(),
                nearest(section, sections)
            );
            return Err(Error::change(doing));
        }
        let Value::Table(keys) = keys else {
            return Err(Error::change(format!(
                "read settings `{}`: `{section}` is a section, should read `[{section}]`",
                path.display()
            )));
        };
        let is_known = |key: &str| known.iter().any(|(name, known)| name == section && known == key);
        if let Some(key) = keys.keys().find(|key| !is_known(key)) {
            let of_section = known.iter().filter(|(name, _)| name == section).map(|(_, key)| key.as_str());
            let near = nearest(key, of_section);
            return Err(Error::change(format!(
                "read settings `{}`: `[{section}]` has no `{key}`{near}",
                path.display()
            )));
        }
    }
    Ok(())
}

fn set(table: &mut Table, known: &[(String, String)], name: &str, text: &str) -> Result<()> {
    let variable = |(section, key): &(String, String)| format!("{PREFIX}{section}_{key}").to_uppercase();
    let Some((section, key)) = known.iter().find(|setting| variable(setting) == name) else {
        let names: Vec<_> = known.iter().map(variable).collect();
        let doing = format!(
            "read the environment: there is no setting `{name}`{}",
            nearest(name, names.iter().map(String::as_str))
        );
        return Err(Error::change(doing));
    };
    let section = table.entry(section.clone()).or_insert_with(|| Value::Table(Table::new()));
    let section = section.as_table_mut().expect("checked to be a section");
    // A text needs no quotes in the environment; where the default is a text, it is taken as it is.
    let is_text = REFERENCE.lines().any(|line| line.starts_with(&format!("#{key} = \"")));
    let value = if is_text {
        None
    } else {
        format!("value = {text}").parse::<Table>().ok().and_then(|mut table| table.remove("value"))
    };
    section.insert(key.clone(), value.unwrap_or_else(|| Value::String(text.to_owned())));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, environment: &[(&str, &str)]) -> Result<Settings> {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), text).expect("writable");
        let environment = environment.iter().map(|(name, value)| (String::from(*name), String::from(*value)));
        Settings::load(Some(file.path()), environment)
    }

    #[test]
    fn the_environment_wins_over_the_file() {
        let settings = load("[hot]\nretention_days = 3", &[("DATABROKER_HOT_RETENTION_DAYS", "0")]).expect("valid");
        assert_eq!(settings.hot.retention_days, 0);
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_nearest() {
        let says = |outcome: Result<Settings>| outcome.expect_err("refused").to_string();
        assert!(says(load("[hto]\nretention_days = 3", &[])).ends_with("did you mean `hot`?"));
        assert!(says(load("[hot]\nretention_day = 3", &[])).ends_with("did you mean `retention_days`?"));
        assert!(
            says(load("", &[("DATABROKER_HOT_RETENTION", "3")]))
                .ends_with("did you mean `DATABROKER_HOT_RETENTION_DAYS`?")
        );
    }

    #[test]
    fn a_value_of_the_wrong_type_names_the_setting() {
        let error = load("[hot]\nretention_days = \"ten\"", &[]).expect_err("refused").to_string();
        assert!(error.contains("retention_days"), "{error}");
    }

    #[test]
    fn an_engine_that_is_not_there_yet_is_refused_and_not_ignored() {
        let error = load("", &[("DATABRICKS_HOST", "localhost")]).expect_err("refused").to_string();
        assert!(error.contains("DATABRICKS_HOST") && error.contains("Delta tables on this disk"), "{error}");
    }

    #[test]
    fn one_variable_chooses_kafka() {
        let settings = load("[kafka]\nclient_id = \"lab\"", &[("KAFKA_BOOTSTRAP_SERVERS", "a:9092")]).expect("valid");
        assert_eq!((settings.kafka.bootstrap_servers.as_str(), settings.kafka.client_id.as_str()), ("a:9092", "lab"));
        assert!(settings.kafka.is_set() && !load("", &[]).expect("valid").kafka.is_set());
    }

    #[test]
    fn elasticsearch_is_set_by_the_names_it_is_known_by() {
        let environment = [("ELASTICSEARCH_HOSTS", "a:9200,b:9200"), ("ELASTICSEARCH_API_KEY", "a2V5")];
        let settings = load("[elasticsearch]\nhosts = \"c\"\nreplicas = 0", &environment).expect("valid");
        assert_eq!((settings.elasticsearch.hosts.as_str(), settings.elasticsearch.replicas), ("a:9200,b:9200", 0));
        assert!(!settings.to_toml().expect("TOML").contains("a2V5"));
        assert_eq!(settings.serving_in_force().elasticsearch_listen, "");
        let default = Settings::default();
        assert!(!default.elasticsearch.is_set());
        assert_eq!(default.serving_in_force().elasticsearch_listen, "127.0.0.1:9200");
    }

    #[test]
    fn the_reference_states_every_setting_with_its_default() {
        let written: String = REFERENCE
            .lines()
            .filter_map(|line| {
                if line.starts_with('[') {
                    Some(line)
                } else {
                    line.strip_prefix('#').filter(|line| !line.starts_with(' '))
                }
            })
            .flat_map(|line| [line, "\n"])
            .collect();
        let written: Table = written.parse().expect("the reference is TOML once uncommented");
        let defaults = Table::try_from(Settings::default()).expect("settings are TOML");
        assert_eq!(written, defaults);
    }
}
