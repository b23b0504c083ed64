//! Requests that a source's servers send: deliveries of events, answers to subscriptions.

use async_trait::async_trait;

/// Answers requests below one path. Whoever serves HTTP limits their number and time, and asks for no token: a webhook
/// checks the sender itself, by a signature.
#[async_trait]
pub trait Webhook: Send + Sync {
    /// The path below `/webhooks/`, and of all that is asked below it: `github`, `news`.
    fn path(&self) -> &'static str;

    /// Looks at a request whose body is not read yet and empty here: how many bytes of it are taken.
    ///
    /// # Errors
    /// The answer that refuses the request, so that whoever is plainly no sender fills no memory.
    fn admit(&self, head: &WebhookRequest) -> Result<usize, WebhookAnswer>;

    /// Answers a request. A status of success is said only when what the request brought is on disk.
    async fn receive(&self, request: WebhookRequest) -> WebhookAnswer;
}

/// A request, whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebhookRequest {
    /// `GET`, `POST`.
    pub method: String,
    /// What follows the webhook's path, without the slash between: `3f2a`; empty when nothing does.
    pub path: String,
    /// Pairs of the query in order, percent-decoded.
    pub query: Vec<(String, String)>,
    /// Headers in order, names in lower case; those whose value is no text are left out.
    pub headers: Vec<(String, String)>,
    /// The body, at most as long as [`Webhook::admit`] said.
    pub body: bytes::Bytes,
}

impl WebhookRequest {
    /// The value of a header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The value of the query's first pair of a name.
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookAnswer {
    /// The HTTP status.
    pub status: u16,
    /// Plain text.
    pub body: String,
}
