//! What needs no question: the page, its style, metrics and health.

use std::fmt::Write;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use serde_json::json;

use crate::routes::App;
use crate::{Door, ROUTES};

/// `GET /`.
pub(crate) async fn page(State(app): State<App>) -> Html<String> {
    let (_, health) = (app.services.health)();
    let status = health["status"].as_str().unwrap_or("unknown");
    let mut text = String::from(concat!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n",
        "<meta name=\"viewport\" content=\"width=device-width\">\n<title>Data Broker</title>\n",
        "<link rel=\"stylesheet\" href=\"/style.css\">\n</head>\n<body>\n<h1>Data Broker ",
        env!("CARGO_PKG_VERSION"),
        "</h1>\n<p>Collects public signals, keeps them searchable, answers questions.</p>\n",
    ));
    text += &format!("<p>State: <a href=\"/health/ready\">{}</a></p>\n", escape(status));
    text += &describe(Door::Http, "On this port");
    text += &describe(Door::Elasticsearch, "On the port of Elasticsearch’s REST (9200 by default)");
    text += "</body>\n</html>\n";
    Html(text)
}

/// `GET /style.css`.
pub(crate) async fn style() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], include_str!("style.css"))
}

/// `GET /metrics`.
pub(crate) async fn metrics(State(app): State<App>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], (app.services.metrics)())
}

/// `GET /health/live`: that this is answered is what it says.
pub(crate) async fn live() -> impl IntoResponse {
    // The process tells itself from another one that got its port, before a token is shown to it.
    Json(json!({"status": "live", "pid": std::process::id()}))
}

/// `GET /health/ready`: 200 or 503, with the reasons.
pub(crate) async fn ready(State(app): State<App>) -> Response {
    let (is_ready, health) = (app.services.health)();
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(health)).into_response()
}

fn describe(door: Door, title: &str) -> String {
    let mut text = format!("<h2>{}</h2>\n<table>\n", escape(title));
    for route in ROUTES.iter().filter(|route| route.door == door) {
        let path = escape(route.path);
        let can_follow = door == Door::Http && route.methods == ["GET"];
        let path = if can_follow { format!("<a href=\"{path}\">{path}</a>") } else { path };
        let row = [route.methods.join(" "), path, escape(route.doc)];
        writeln!(text, "<tr><td>{}</td></tr>", row.join("</td><td>")).expect("a text takes all");
    }
    text + "</table>\n"
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_become_markup() {
        assert_eq!(escape("<a href=\"x\">&"), "&lt;a href=&quot;x&quot;&gt;&amp;");
    }
}
