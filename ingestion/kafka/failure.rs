//! What goes wrong between a client and brokers, and what is to be done about it.

use contract::{Error, Remedy};
use kafka_protocol::ResponseError;

/// A failed request.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// No answer came: whether the broker did what was asked is not known.
    Unheard(String),
    /// The broker answered with an error.
    Answered(ResponseError, String),
    /// What the user must change: a certificate, a password, a version.
    Refused(String),
}

pub(crate) type Outcome<T> = Result<T, Failure>;

/// The failure that a code of an answer stands for; none for 0.
pub(crate) fn check(code: i16, what: impl FnOnce() -> String) -> Outcome<()> {
    ResponseError::try_from_code(code).map_or(Ok(()), |error| Err(Failure::Answered(error, what())))
}

impl Failure {
    pub(crate) fn unheard(text: impl Into<String>) -> Self {
        Self::Unheard(text.into())
    }

    /// The broker's error, if it is one of these.
    pub(crate) fn is(&self, errors: &[ResponseError]) -> bool {
        matches!(self, Self::Answered(error, _) if errors.contains(error))
    }

    /// Another instance with the same transactional id has taken over, or a transaction took too long.
    pub(crate) fn is_fenced(&self) -> bool {
        self.is(&[ResponseError::ProducerFenced, ResponseError::InvalidProducerEpoch])
    }

    /// Whether asking again, perhaps another broker, may help.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Unheard(_) => true,
            Self::Answered(error, _) => error.is_retriable() || *error == ResponseError::ConcurrentTransactions,
            Self::Refused(_) => false,
        }
    }

    fn remedy(&self) -> Remedy {
        use ResponseError as Code;
        match self {
            Self::Refused(_) => Remedy::Change,
            Self::Answered(
                Code::TopicAuthorizationFailed
                | Code::GroupAuthorizationFailed
                | Code::ClusterAuthorizationFailed
                | Code::TransactionalIdAuthorizationFailed
                | Code::SaslAuthenticationFailed
                | Code::InvalidTopicException
                | Code::InvalidPartitions
                | Code::InvalidReplicationFactor
                | Code::InvalidConfig
                | Code::InvalidTransactionTimeout
                | Code::PolicyViolation
                | Code::MessageTooLarge
                | Code::RecordListTooLarge
                | Code::UnsupportedVersion,
                _,
            ) => Remedy::Change,
            // Also what no retry of the same request mends: the next one is made by a new producer or on new metadata.
            Self::Unheard(_) | Self::Answered(..) => Remedy::Retry,
        }
    }

    /// The error of who was `doing` something.
    pub(crate) fn while_doing(self, doing: impl Into<String>) -> Error {
        Error::new(self.remedy(), doing).because(self.to_string())
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unheard(text) | Self::Refused(text) => out.write_str(text),
            Self::Answered(error, what) => write!(out, "{what}: Kafka answered {error} ({})", error.code()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_of_the_brokers_that_fails_is_named_and_waited_for() {
        let failure =
            check(ResponseError::KafkaStorageError.code(), || "writing to `github.raw`".to_owned()).unwrap_err();
        assert!(failure.may_pass());
        let error = failure.while_doing("append to the log");
        assert_eq!(error.remedy(), Remedy::Retry);
        let text = error.to_string();
        assert!(text.contains("writing to `github.raw`: Kafka answered KafkaStorageError (56)"), "{text}");
    }
}
