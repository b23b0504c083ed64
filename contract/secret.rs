//! A setting that is never shown.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

/// A token or password. Debug and serialization show `***`; empty means that there is none.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The secret itself, for a request's header.
    pub fn reveal(&self) -> Option<&str> {
        Some(self.0.trim()).filter(|secret| !secret.is_empty())
    }
}

impl From<String> for Secret {
    fn from(secret: String) -> Self {
        Self(secret)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(if self.reveal().is_some() { "***" } else { "none" })
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if self.reveal().is_some() { "***" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_shown_nowhere() {
        let secret = Secret::from("ghp_0123".to_owned());
        assert_eq!(secret.reveal(), Some("ghp_0123"));
        assert_eq!(format!("{secret:?}"), "***");
        assert_eq!(serde_json::to_string(&secret).unwrap(), r#""***""#);
        assert_eq!(serde_json::to_string(&Secret::default()).unwrap(), r#""""#);
    }
}
