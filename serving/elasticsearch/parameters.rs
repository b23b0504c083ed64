//! What a request to Elasticsearch's port asks: path, query string and body.

use std::collections::BTreeMap;

use axum::extract::{FromRequest, FromRequestParts, Query, RawPathParams, Request};
use axum::http::Method;
use bytes::Bytes;
use serde_json::{Map, Value};

use super::answer::Failure;
use crate::guard::read_body;
use crate::routes::App;

/// Parameters that change how an answer is printed, or how a cluster works for it, but never what it says:
/// they are taken everywhere and have no effect beyond [`super::print_answer`].
const WITHOUT_EFFECT: &[&str] = &[
    "pretty",
    "human",
    "error_trace",
    "allow_partial_search_results",
    "batched_reduce_size",
    "ccs_minimize_roundtrips",
    "expand_wildcards",
    "flat_settings",
    "ignore_throttled",
    "include_defaults",
    "local",
    "master_timeout",
    "max_concurrent_searches",
    "max_concurrent_shard_requests",
    "pre_filter_shard_size",
    "preference",
    "realtime",
    "refresh",
    "request_cache",
    "source_content_type",
    "timeout",
];

/// Parameters that Elasticsearch knows and this store does not do.
const NOT_SUPPORTED: &[&str] = &[
    "analyze_wildcard",
    "analyzer",
    "docvalue_fields",
    "explain",
    "filter_path",
    "force_synthetic_source",
    "lenient",
    "min_score",
    "routing",
    "scroll",
    "search_type",
    "seq_no_primary_term",
    "stats",
    "stored_fields",
    "suggest_field",
    "suggest_mode",
    "suggest_size",
    "suggest_text",
    "terminate_after",
    "track_scores",
    "typed_keys",
    "version",
];

/// A request, read.
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) parameters: Parameters,
    pub(crate) body: Bytes,
    /// `{index}` of the path.
    pub(crate) index: Option<String>,
    /// `{id}` of the path.
    pub(crate) id: Option<String>,
}

impl FromRequest<App> for Asked {
    type Rejection = Failure;

    async fn from_request(request: Request, app: &App) -> Result<Self, Failure> {
        let (mut parts, body) = request.into_parts();
        let path = RawPathParams::from_request_parts(&mut parts, app).await;
        let path = path.map_err(|cause| Failure::argument(format!("the path cannot be read: {cause}")))?;
        let part = |name| path.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned());
        let (index, id) = (part("index"), part("id"));
        let pairs = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
        let pairs = pairs.map_err(|cause| Failure::argument(format!("the query string cannot be read: {cause}")))?;
        let parameters = Parameters { path: parts.uri.path().to_owned(), values: pairs.0.into_iter().collect() };
        let body = read_body(&parts.headers, body, app.body_limit).await?;
        Ok(Self { method: parts.method, parameters, body, index, id })
    }
}

/// The query string. What nobody took is an error in the end.
#[derive(Debug)]
pub(crate) struct Parameters {
    path: String,
    values: BTreeMap<String, String>,
}

impl Parameters {
    /// Takes a parameter as it is.
    pub(crate) fn take(&mut self, name: &str) -> Option<String> {
        self.values.remove(name)
    }

    /// Takes a parameter that is true or false; alone it is true.
    pub(crate) fn take_boolean(&mut self, name: &str) -> Result<Option<bool>, Failure> {
        match self.take(name).as_deref() {
            None => Ok(None),
            Some("" | "true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(other) => {
                let known = "as only [true] or [false] are allowed";
                Err(Failure::argument(format!("Failed to parse value [{other}] of [{name}] {known}")))
            }
        }
    }

    /// Takes a parameter that is a number from 0.
    pub(crate) fn take_number(&mut self, name: &str) -> Result<Option<u64>, Failure> {
        let parse = |text: String| match text.parse() {
            Ok(number) => Ok(number),
            Err(_) => Err(Failure::argument(format!("Failed to parse int parameter [{name}] with value [{text}]"))),
        };
        self.take(name).map(parse).transpose()
    }

    /// Takes a parameter that is a list with commas.
    pub(crate) fn take_list(&mut self, name: &str) -> Option<Vec<String>> {
        self.take(name).map(|text| split_list(&text))
    }

    /// Refuses what nobody took.
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        self.values.retain(|name, _| !WITHOUT_EFFECT.contains(&name.as_str()));
        if let Some(name) = self.values.keys().find(|name| NOT_SUPPORTED.contains(&name.as_str())) {
            return Err(Failure::argument(format!(
                "request [{}] has parameter [{name}], which is not supported",
                self.path
            )));
        }
        if self.values.is_empty() {
            return Ok(());
        }
        let plural = if self.values.len() == 1 { "" } else { "s" };
        let names: Vec<_> = self.values.keys().map(|name| format!("[{name}]")).collect();
        let names = names.join(", ");
        Err(Failure::argument(format!("request [{}] contains unrecognized parameter{plural}: {names}", self.path)))
    }
}

/// The parts between commas, without empty ones.
pub(crate) fn split_list(text: &str) -> Vec<String> {
    text.split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// A JSON object; an empty text is an empty object.
pub(crate) fn parse_object(text: &[u8]) -> Result<Map<String, Value>, Failure> {
    if text.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    match serde_json::from_slice(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Failure::new(400, "parse_exception", "[1:1] the body must be a JSON object")),
        Err(cause) => {
            let reason = format!("[{}:{}] the body is no JSON: {cause}", cause.line(), cause.column());
            Err(Failure::new(400, "parse_exception", reason))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(pairs: &[(&str, &str)]) -> Parameters {
        let values = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Parameters { path: "/x".to_owned(), values }
    }

    #[test]
    fn what_nobody_takes_is_refused_by_name() {
        let mut taken = parameters(&[("size", "3"), ("pretty", ""), ("human", "false")]);
        assert_eq!(taken.take_number("size"), Ok(Some(3)));
        assert_eq!(taken.finish(), Ok(()));
        let reason = |pairs: &[(&str, &str)]| parameters(pairs).finish().expect_err("not taken").0.reason;
        assert_eq!(reason(&[("y", "1")]), "request [/x] contains unrecognized parameter: [y]");
        assert_eq!(reason(&[("y", "1"), ("z", "")]), "request [/x] contains unrecognized parameters: [y], [z]");
        assert_eq!(reason(&[("scroll", "1m")]), "request [/x] has parameter [scroll], which is not supported");
    }

    #[test]
    fn values_of_a_wrong_type_are_named() {
        assert_eq!(parameters(&[("a", "")]).take_boolean("a"), Ok(Some(true)));
        let wrong = parameters(&[("a", "yes")]).take_boolean("a").expect_err("no boolean").0.reason;
        assert_eq!(wrong, "Failed to parse value [yes] of [a] as only [true] or [false] are allowed");
        let wrong = parameters(&[("size", "-1")]).take_number("size").expect_err("no number").0.reason;
        assert_eq!(wrong, "Failed to parse int parameter [size] with value [-1]");
    }

    #[test]
    fn a_body_is_an_object_or_nothing_and_an_error_has_its_place() {
        assert_eq!(parse_object(b" \n"), Ok(Map::new()));
        let failure = parse_object(b"{\"query\":\n  {]}").expect_err("no JSON").0;
        assert_eq!((failure.status, failure.kind), (400, "parse_exception"));
        assert!(failure.reason.starts_with("[2:4] "), "{}", failure.reason);
        assert!(parse_object(b"[]").is_err());
        assert!(parse_object("[".repeat(100_000).as_bytes()).is_err());
    }
}
