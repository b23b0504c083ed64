//! What drivers set and ask when they connect. Nothing of it changes the server; what would promise more than is held is refused.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use datafusion::sql::sqlparser::ast::{Expr, Reset, Set, Statement, Value};
use datafusion_postgres::pgwire::error::PgWireResult;

use super::failure::wrong;

/// The version whose behaviour clients may expect.
pub(crate) const SERVER_VERSION: &str = "16.6";

/// The schema whose tables need no schema's name.
pub(crate) const SEARCH_PATH: &str = "silver";

/// Variables that clients set or ask for, and the values that they begin with.
const KNOWN: &[(&str, &str)] = &[
    ("application_name", ""),
    ("bytea_output", "hex"),
    ("check_function_bodies", "on"),
    ("client_encoding", "UTF8"),
    ("client_min_messages", "notice"),
    ("datestyle", "ISO, YMD"),
    ("default_table_access_method", "heap"),
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_read_only", "on"),
    ("extra_float_digits", "1"),
    ("idle_in_transaction_session_timeout", "0"),
    ("integer_datetimes", "on"),
    ("intervalstyle", "postgres"),
    ("is_superuser", "off"),
    ("jit", "off"),
    ("lc_collate", "C"),
    ("lc_ctype", "C"),
    ("lock_timeout", "0"),
    ("max_identifier_length", "63"),
    ("max_index_keys", "32"),
    ("row_security", "on"),
    ("search_path", SEARCH_PATH),
    ("server_encoding", "UTF8"),
    ("server_version", SERVER_VERSION),
    ("server_version_num", "160006"),
    ("session_authorization", "databroker"),
    ("standard_conforming_strings", "on"),
    ("statement_timeout", "0"),
    ("synchronize_seqscans", "on"),
    ("timezone", "UTC"),
    ("transaction_isolation", "read committed"),
    ("transaction_read_only", "on"),
    ("work_mem", "4MB"),
];

/// Variables whose value is what the server does: another one is refused, or would be believed.
const FIXED: &[(&str, &[&str])] = &[
    ("bytea_output", &["hex"]),
    ("client_encoding", &["UTF8", "UTF-8", "UNICODE"]),
    ("default_transaction_read_only", &["on", "true", "1"]),
    ("standard_conforming_strings", &["on", "true", "1"]),
    ("transaction_read_only", &["on", "true", "1"]),
];

/// Variables of drivers' own, as `myapp.user`, that a connection keeps at the most.
const OWN_MAX: usize = 64;

/// The value that a variable begins with.
pub(crate) fn initial(name: &str) -> Option<&'static str> {
    KNOWN.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
}

/// The variables of a connection.
#[derive(Default)]
pub(crate) struct Variables {
    set: BTreeMap<String, String>,
}

impl Variables {
    /// Takes what the client said when it connected, as far as it is known.
    pub(crate) fn begin(&mut self, said: &HashMap<String, String>) {
        for (name, value) in said {
            // What is not known or cannot be is not worth a connection.
            self.put(&name.to_lowercase(), value).unwrap_or_default();
        }
    }

    /// What a variable is.
    ///
    /// # Errors
    /// For one that there is not.
    pub(crate) fn get(&self, name: &str) -> PgWireResult<&str> {
        let value = self.set.get(name).map(String::as_str).or_else(|| initial(name));
        value.ok_or_else(|| wrong("42704", format!("unrecognized configuration parameter \"{name}\"")))
    }

    /// The schemas to look for tables in, first to last.
    pub(crate) fn search_path(&self) -> Vec<String> {
        let path = self.get("search_path").unwrap_or(SEARCH_PATH);
        path.split(',').map(|name| name.trim().trim_matches(['"', '\'']).to_owned()).collect()
    }

    /// How long statements may take at the most; the server's own limit is another one.
    pub(crate) fn statement_timeout(&self) -> Option<Duration> {
        let text = self.get("statement_timeout").unwrap_or("0");
        duration(text).filter(|timeout| !timeout.is_zero())
    }

    /// Carries out `SET` and `RESET`.
    ///
    /// # Errors
    /// For what is not known or would not be held.
    pub(crate) fn carry_out(&mut self, statement: &Statement) -> PgWireResult<()> {
        match statement {
            Statement::Set(Set::SingleAssignment { variable, values, .. }) => {
                let name = variable.to_string().to_lowercase();
                let value = values.iter().map(plain).collect::<Vec<_>>().join(", ");
                if value.eq_ignore_ascii_case("default") {
                    self.set.remove(&name);
                    return Ok(());
                }
                self.put(&name, &value)
            }
            // Times are UTC whatever is set, and say so; clients convert them.
            Statement::Set(Set::SetTimeZone { .. } | Set::SetTransaction { .. }) => Ok(()),
            Statement::Set(Set::SetNames { charset_name, .. }) => self.put("client_encoding", &charset_name.value),
            Statement::Set(Set::SetNamesDefault {}) => Ok(()),
            Statement::Reset(reset) => {
                match &reset.reset {
                    Reset::ALL => self.set.clear(),
                    Reset::ConfigurationParameter(name) => drop(self.set.remove(&name.to_string().to_lowercase())),
                }
                Ok(())
            }
            other => Err(wrong("0A000", format!("`{other}` is not known here"))),
        }
    }

    fn put(&mut self, name: &str, value: &str) -> PgWireResult<()> {
        if name == "timezone" {
            return Ok(());
        }
        let fixed = FIXED.iter().find(|(fixed, _)| *fixed == name);
        if let Some((_, right)) = fixed.filter(|(_, right)| !right.iter().any(|may| may.eq_ignore_ascii_case(value))) {
            return Err(wrong("22023", format!("\"{name}\" can only be {}", right[0])));
        }
        let is_own = name.contains('.') && !name.starts_with("datafusion.") && self.set.len() < OWN_MAX + KNOWN.len();
        if !is_own && !KNOWN.iter().any(|(known, _)| *known == name) {
            return Err(wrong("42704", format!("unrecognized configuration parameter \"{name}\"")));
        }
        if name == "statement_timeout" && duration(value).is_none() {
            return Err(wrong(
                "22023",
                format!("\"statement_timeout\" cannot be \"{value}\" (should be like 5000 or '5s')"),
            ));
        }
        self.set.insert(name.to_owned(), value.to_owned());
        Ok(())
    }
}

/// The name of the variable that `SHOW` asks for.
pub(crate) fn shown(statement: &Statement) -> Option<String> {
    let Statement::ShowVariable { variable } = statement else { return None };
    let words: Vec<_> = variable.iter().map(|word| word.value.to_lowercase()).collect();
    Some(match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["time", "zone"] => "timezone".to_owned(),
        ["transaction", "isolation", "level"] => "transaction_isolation".to_owned(),
        ["session", "authorization"] => "session_authorization".to_owned(),
        _ => words.join("."),
    })
}

fn plain(value: &Expr) -> String {
    match value {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) | Value::DoubleQuotedString(text) => text.clone(),
            other => other.to_string(),
        },
        Expr::Identifier(name) => name.value.clone(),
        other => other.to_string(),
    }
}

/// `5000`, `'5000ms'`, `'5s'`, `'2min'`, `'1h'`.
fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let millis = match unit.trim() {
        "" | "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    Some(Duration::from_millis(number.parse::<u64>().ok()?.checked_mul(millis)?))
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
    use datafusion::sql::sqlparser::parser::Parser;

    use super::*;

    fn set(variables: &mut Variables, text: &str) -> PgWireResult<()> {
        let statement = Parser::parse_sql(&PostgreSqlDialect {}, text).expect(text).remove(0);
        variables.carry_out(&statement)
    }

    #[test]
    fn what_drivers_set_is_kept_and_what_would_not_hold_is_refused() {
        let mut variables = Variables::default();
        for text in [
            "SET application_name = 'a program'",
            "SET extra_float_digits TO 3",
            "SET search_path TO gold, silver",
            "SET statement_timeout = '5s'",
            "SET client_encoding TO 'utf-8'",
            "SET TIME ZONE 'Europe/Berlin'",
            "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED",
            "SET myapp.user = 'me'",
        ] {
            set(&mut variables, text).expect(text);
        }
        assert_eq!(variables.get("application_name").unwrap(), "a program");
        assert_eq!(variables.search_path(), ["gold", "silver"]);
        assert_eq!(variables.statement_timeout(), Some(Duration::from_secs(5)));
        assert_eq!(variables.get("timezone").unwrap(), "UTC");
        for text in [
            "SET transaction_read_only = off",
            "SET client_encoding = 'LATIN1'",
            "SET datafusion.execution.batch_size = 1",
            "SET nonsense = 1",
            "SET statement_timeout = 'soon'",
            "SET ROLE postgres",
        ] {
            assert!(set(&mut variables, text).is_err(), "{text}");
        }
        set(&mut variables, "RESET ALL").expect("reset");
        assert_eq!(variables.search_path(), [SEARCH_PATH]);
    }

    #[test]
    fn a_variable_is_shown_by_each_of_its_names() {
        let shown = |text: &str| shown(&Parser::parse_sql(&PostgreSqlDialect {}, text).expect(text)[0]).expect(text);
        assert_eq!(shown("SHOW TRANSACTION ISOLATION LEVEL"), "transaction_isolation");
        assert_eq!(shown("SHOW TimeZone"), "timezone");
        let variables = Variables::default();
        assert_eq!(variables.get("standard_conforming_strings").unwrap(), "on");
        assert!(variables.get("nonsense").is_err());
    }
}
