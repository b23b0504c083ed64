//! Every endpoint, listed once: the routers, the page at `/` and the tests read this list.

use std::sync::Arc;

use axum::Router;
use axum::http::Method;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{MethodFilter, MethodRouter, on};
use contract::limits::{TAILS_MAX, WEBHOOK_REQUESTS_MAX};
use tokio::sync::Semaphore;

use crate::guard::{self, BodyLimit, Guard};
use crate::{Services, Settings, api, elasticsearch};

/// One of the two ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// 9200: Elasticsearch's REST.
    Elasticsearch,
    /// 8080: SQL, commands, metrics, health.
    Http,
}

/// One endpoint.
#[derive(Debug)]
pub struct Route {
    /// The port it is on.
    pub door: Door,
    /// The methods it answers; `HEAD` with every `GET`.
    pub methods: &'static [&'static str],
    /// Its path, with `{names}` for what the client chooses.
    pub path: &'static str,
    /// What it answers.
    pub doc: &'static str,
    handler: fn(MethodFilter) -> MethodRouter<App>,
}

/// What handlers are given.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) services: Services,
    pub(crate) body_limit: BodyLimit,
    /// As many slots as each of `services.webhooks` has, in their order.
    pub(crate) webhook_slots: Arc<[Semaphore]>,
    pub(crate) tail_slots: Arc<Semaphore>,
}

const GET: &[&str] = &["GET"];
const POST: &[&str] = &["POST"];
const BOTH: &[&str] = &["GET", "POST"];

macro_rules! routes {
    ($($door:ident $methods:ident $path:literal $handler:path, $doc:literal;)*) => {
        /// Every endpoint of both ports.
        pub const ROUTES: &[Route] = &[$(Route {
            door: Door::$door, methods: $methods, path: $path, doc: $doc, handler: |methods| on(methods, $handler),
        }),*];
    };
}

routes! {
    Elasticsearch GET "/" elasticsearch::info, "Name and version.";
    Elasticsearch BOTH "/_search" elasticsearch::search, "Search all indices.";
    Elasticsearch BOTH "/{index}/_search" elasticsearch::search, "Search indices, patterns or aliases.";
    Elasticsearch BOTH "/_count" elasticsearch::count, "Count in all indices.";
    Elasticsearch BOTH "/{index}/_count" elasticsearch::count, "Count in indices, patterns or aliases.";
    Elasticsearch BOTH "/_msearch" elasticsearch::search_many, "Several searches in one request, as NDJSON.";
    Elasticsearch BOTH "/{index}/_msearch" elasticsearch::search_many, "The same, with a default for the indices.";
    Elasticsearch GET "/{index}/_doc/{id}" elasticsearch::document, "One document by its id.";
    Elasticsearch GET "/{index}/_source/{id}" elasticsearch::document_source, "One document's source by its id.";
    Elasticsearch GET "/_mapping" elasticsearch::mapping, "The fields of all indices.";
    Elasticsearch GET "/{index}/_mapping" elasticsearch::mapping, "The fields of indices.";
    Elasticsearch GET "/_alias" elasticsearch::aliases, "The aliases of all indices.";
    Elasticsearch GET "/{index}/_alias" elasticsearch::aliases, "The aliases of indices.";
    Elasticsearch GET "/{index}" elasticsearch::index, "Aliases and fields of indices; HEAD says whether there is one.";
    Elasticsearch GET "/_cat/indices" elasticsearch::list_indices, "The indices as a table.";
    Elasticsearch GET "/_cat/indices/{index}" elasticsearch::list_indices, "Some of the indices as a table.";
    Elasticsearch GET "/_cluster/health" elasticsearch::cluster_health, "Green while it answers.";
    Elasticsearch GET "/_cluster/health/{index}" elasticsearch::cluster_health, "The same, for some of the indices.";
    Http GET "/" api::page, "This page.";
    Http GET "/style.css" api::style, "How this page looks.";
    Http GET "/health/live" api::live, "Whether the process answers.";
    Http GET "/health/ready" api::ready, "Whether it works, and if not, why.";
    Http GET "/metrics" api::metrics, "Metrics for Prometheus.";
    Http GET "/api/status" api::status, "What `databroker status` says.";
    Http GET "/api/views" api::list_views, "All views, when each was stored, and which are refused and why.";
    Http GET "/api/views/{view}" api::view, "A view's rows, and how far they reach; ?from= ?to= (RFC 3339, a date, now-6h) ?filter= (SQL) ?top=.";
    Http POST "/api/sql" api::sql, "Answers SQL: the query as text or as {\"query\":…}; a JSON array, or what `?format=` or Accept names: ndjson, csv, arrow, parquet.";
    Http GET "/api/tail/{source}" api::tail, "A source's rows as they are made, as server-sent events; `?filter=` is a condition in SQL.";
    Http GET "/api/openapi.json" api::openapi, "This port described for programs (OpenAPI 3.1).";
    Http POST "/api/commands/{name}" api::command, "Runs a command with JSON arguments; NDJSON of progress and a last result or error.";
    Http BOTH "/webhooks/{*path}" api::webhook, "What a source's servers send, such as GitHub's deliveries at `/webhooks/github`.";
}

/// The endpoints of one port behind their guard.
pub(crate) fn router(door: Door, settings: &Settings, services: Services, slots: Arc<Semaphore>) -> Router {
    let guard = Arc::new(Guard::new(door, settings, slots));
    let app = App {
        body_limit: BodyLimit { bytes: settings.body_bytes_max, name: "`serving.body_bytes_max`" },
        webhook_slots: services.webhooks.iter().map(|_| Semaphore::new(WEBHOOK_REQUESTS_MAX)).collect(),
        tail_slots: Arc::new(Semaphore::new(TAILS_MAX)),
        services,
    };
    let routes = ROUTES.iter().filter(|route| route.door == door);
    let router =
        routes.fold(Router::new(), |router, route| router.route(route.path, (route.handler)(filter(route.methods))));
    match door {
        Door::Elasticsearch => router
            .fallback(elasticsearch::no_handler)
            .method_not_allowed_fallback(elasticsearch::no_handler)
            .layer(from_fn_with_state(guard, guard::watch))
            .layer(from_fn(elasticsearch::print_answer)),
        Door::Http => router
            .fallback(api::no_handler)
            .method_not_allowed_fallback(api::no_handler)
            .layer(from_fn_with_state(guard, guard::watch))
            .layer(from_fn(api::protect)),
    }
    .with_state(app)
}

fn filter(methods: &[&str]) -> MethodFilter {
    let filters = methods.iter().map(|name| {
        let method: Method = name.parse().expect("the list has HTTP's methods only");
        MethodFilter::try_from(method).expect("the list has HTTP's methods only")
    });
    filters.reduce(MethodFilter::or).expect("every endpoint has a method")
}
