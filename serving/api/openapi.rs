//! `GET /api/openapi.json`: this port for programs, made from [`ROUTES`] and what each endpoint takes and answers.
//! Source: <https://spec.openapis.org/oas/v3.1.0>.

use axum::Json;
use serde_json::{Map, Value, json};

use crate::rows::Format;
use crate::{Door, ROUTES, Route};

/// What an endpoint takes and answers beside what its route says.
struct Shape {
    path: &'static str,
    /// Names of parameters in the query, and what they say.
    query: &'static [(&'static str, &'static str)],
    /// Media types of the body; none where there is none.
    takes: &'static [&'static str],
    /// Statuses beside those that every endpoint has, and what they mean.
    answers: &'static [(&'static str, &'static str)],
    /// Media types of the answer 200.
    gives: &'static [&'static str],
}

const JSON: &str = "application/json";
const HTML: &str = "text/html";
const TEXT: &str = "text/plain";
const NDJSON: &str = "application/x-ndjson";

const SHAPES: &[Shape] = &[
    Shape { path: "/", query: &[], takes: &[], answers: &[], gives: &[HTML] },
    Shape { path: "/style.css", query: &[], takes: &[], answers: &[], gives: &["text/css"] },
    Shape { path: "/health/live", query: &[], takes: &[], answers: &[], gives: &[JSON] },
    Shape {
        path: "/health/ready",
        query: &[],
        takes: &[],
        answers: &[("503", "It does not work, with the reasons.")],
        gives: &[JSON],
    },
    Shape { path: "/metrics", query: &[], takes: &[], answers: &[], gives: &[TEXT] },
    Shape { path: "/api/status", query: &[], takes: &[], answers: &[], gives: &[JSON] },
    Shape { path: "/api/openapi.json", query: &[], takes: &[], answers: &[], gives: &[JSON] },
    Shape {
        path: "/api/sql",
        query: &[("format", "The format of the rows; by default what `Accept` names, else JSON.")],
        takes: &[TEXT, JSON],
        answers: &[("413", "The query is too long.")],
        gives: &[],
    },
    Shape { path: "/api/views", query: &[], takes: &[], answers: &[], gives: &[JSON] },
    Shape {
        path: "/api/views/{view}",
        query: &[
            ("from", "Only rows at or after this time: RFC 3339, a date, `now`, `now-6h`."),
            ("to", "Only rows before this time."),
            ("filter", "Only rows for which this SQL expression over the answer's columns is true."),
            ("top", "The first so many rows."),
        ],
        takes: &[],
        answers: &[],
        gives: &[JSON],
    },
    Shape {
        path: "/api/tail/{source}",
        query: &[
            ("filter", "A condition in SQL over the row's columns."),
            ("after", "The id of the event to go on after, as the header `Last-Event-ID`."),
        ],
        takes: &[],
        answers: &[],
        gives: &["text/event-stream"],
    },
    Shape {
        path: "/api/commands/{name}",
        query: &[],
        takes: &[JSON],
        answers: &[("413", "The arguments are too long.")],
        gives: &[NDJSON],
    },
    Shape {
        path: "/webhooks/{path}",
        query: &[],
        takes: &[JSON],
        answers: &[
            ("202", "It is taken, and on disk."),
            ("404", "No source takes webhooks there."),
            ("405", "It is to be sent otherwise."),
            ("413", "It is too long."),
        ],
        gives: &[TEXT],
    },
];

/// `GET /api/openapi.json`.
pub(crate) async fn openapi() -> Json<Value> {
    Json(describe())
}

fn describe() -> Value {
    let mut paths = Map::new();
    for route in ROUTES.iter().filter(|route| route.door == Door::Http) {
        let path = route.path.replace("{*", "{");
        let operations = route.methods.iter().map(|method| (method.to_lowercase(), operation(route, &path, method)));
        paths.insert(path.clone(), Value::Object(operations.collect()));
    }
    let fault = |description: &str| json!({"type": "integer", "minimum": 1, "description": description});
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Data Broker",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "SQL, commands, metrics and health. Elasticsearch's REST, on its own port, is as Elasticsearch describes it.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "security": [{}, {"token": []}],
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": "The setting `serving.token`, where it is set."}},
            "schemas": {
                "Error": {
                    "type": "object",
                    "required": ["error"],
                    "properties": {"error": {
                        "type": "object",
                        "required": ["message", "exit_code"],
                        "properties": {
                            "message": {"type": "string", "description": "What is wrong, and what would be right."},
                            "exit_code": {"type": "integer", "description": "That of the command line: 64 wrong use, 69 a peer is away, 70 a defect."},
                            "sqlstate": {"type": "string", "description": "Of a query."},
                            "line": fault("Of a query: where it is wrong."),
                            "column": fault("Of a query: where it is wrong, in characters."),
                        },
                    }},
                },
                "Query": {
                    "type": "object",
                    "required": ["query"],
                    "properties": {"query": {"type": "string"}},
                    "additionalProperties": false,
                },
            },
        },
    })
}

fn operation(route: &Route, path: &str, method: &str) -> Value {
    let shape = SHAPES.iter().find(|shape| shape.path == path);
    let in_path = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let mut parameters: Vec<_> = in_path
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "minLength": 1}}))
        .collect();
    for (name, says) in shape.map_or(&[][..], |shape| shape.query) {
        let schema = match *name {
            "format" => json!({"type": "string", "enum": Format::ALL.map(Format::name)}),
            "top" => json!({"type": "integer", "minimum": 0}),
            _ => json!({"type": "string"}),
        };
        parameters.push(json!({"name": name, "in": "query", "description": says, "schema": schema}));
    }
    let mut operation = json!({
        "operationId": format!("{}{}", method.to_lowercase(), path.replace(['/', '.', '{', '}'], "_")),
        "summary": route.doc,
        "parameters": parameters,
        "responses": responses(path, shape),
    });
    let takes = shape.map_or(&[][..], |shape| shape.takes);
    if method != "GET" && !takes.is_empty() {
        let content = takes.iter().map(|media| ((*media).to_owned(), json!({"schema": body(path, media)})));
        operation["requestBody"] = json!({"required": path == "/api/sql", "content": Map::from_iter(content)});
    }
    operation
}

fn body(path: &str, media: &str) -> Value {
    match (path, media) {
        ("/api/sql", JSON) => json!({"$ref": "#/components/schemas/Query"}),
        ("/api/sql", _) => json!({"type": "string", "minLength": 1, "description": "A query in SQL."}),
        _ => json!({"type": "object"}),
    }
}

fn responses(path: &str, shape: Option<&Shape>) -> Value {
    let error = |says: &str| {
        let content = json!({JSON: {"schema": {"$ref": "#/components/schemas/Error"}}});
        json!({"description": says, "content": content})
    };
    let mut responses = Map::new();
    let gives: Vec<&str> = match path {
        "/api/sql" => Format::ALL.map(Format::content_type).to_vec(),
        _ => shape.map_or(&[][..], |shape| shape.gives).to_vec(),
    };
    let content = gives.iter().map(|media| ((*media).to_owned(), json!({})));
    responses.insert("200".to_owned(), json!({"description": "As asked.", "content": Map::from_iter(content)}));
    for (status, says) in [
        ("400", "What was asked is wrong."),
        ("401", "The token is missing or another one."),
        ("403", "It was asked from another site, or for a name that is none of this machine."),
        ("408", "It took too long."),
        ("429", "Too much is asked at the same time; ask again later."),
        ("500", "A defect, or a disk that failed."),
        ("503", "It cannot be answered now; ask again later."),
    ] {
        responses.insert(status.to_owned(), error(says));
    }
    for (status, says) in shape.map_or(&[][..], |shape| shape.answers) {
        let is_error = *status != "202" && path != "/health/ready";
        let described = if is_error && path != "/webhooks/{path}" {
            error(says)
        } else {
            let content = gives.iter().chain(&[JSON]).map(|media| ((*media).to_owned(), json!({})));
            json!({"description": says, "content": Map::from_iter(content)})
        };
        responses.insert((*status).to_owned(), described);
    }
    Value::Object(responses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_endpoint_of_the_port_is_described_and_nothing_else() {
        let described = describe();
        let paths = described["paths"].as_object().expect("paths");
        let routes: Vec<_> = ROUTES.iter().filter(|route| route.door == Door::Http).collect();
        assert_eq!(paths.len(), routes.len());
        for route in routes {
            let path = route.path.replace("{*", "{");
            assert!(SHAPES.iter().any(|shape| shape.path == path), "`{path}` has no shape");
            for method in route.methods {
                let operation = &paths[&path][method.to_lowercase()];
                assert_eq!(operation["summary"], route.doc);
                let parameters = operation["parameters"].as_array().expect("parameters");
                let in_path = parameters.iter().filter(|parameter| parameter["in"] == "path").count();
                assert_eq!(in_path, path.matches('{').count(), "{path}");
            }
        }
        assert!(SHAPES.iter().all(|shape| paths.contains_key(shape.path)), "a shape without an endpoint");
    }
}
