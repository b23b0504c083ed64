//! Index templates: the mapping of each source's indices, made from its schema.
//! Source: <https://www.elastic.co/guide/en/elasticsearch/reference/8.19/index-templates.html>.

use std::collections::{BTreeMap, BTreeSet};

use contract::{Column, Kind, Result, RowSchema, Search};
use reqwest::Method;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::client::{Body, Client};
use super::lifecycle::POLICY;
use super::{ElasticsearchSettings, NAMES_MAX};
use crate::query::type_name;

/// Above Elasticsearch's own templates (100) and what users write by habit (200): an index of ours with another mapping
/// would not answer as it should.
const PRIORITY: u64 = 250;

/// Letters of an exact text that are indexed. Lucene takes terms of 32,766 bytes, which so many letters never exceed; a longer
/// text is in `_source` only.
const IGNORE_ABOVE: u64 = 8_191;

/// Differences that are named.
const NAMED_MAX: usize = 5;

/// How a template on the server stands to the one that the schema makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplateState {
    /// There is none.
    Absent,
    /// They are the same.
    Current,
    /// It is as an older version of this program made it.
    Older,
    /// Somebody changed it; how it differs from ours.
    Edited(Vec<String>),
}

/// The name of a source's template.
pub(super) fn name(schema: &RowSchema) -> String {
    format!("databroker-{}", schema.source)
}

/// Mapping and aliases: what an index of ours needs, whatever a template says beside it. What no column has is kept in
/// `_source` and not indexed, so no payload can add fields.
pub(super) fn index_body(schema: &RowSchema) -> Value {
    json!({
        "aliases": {schema.source.0: {}},
        "mappings": {"dynamic": false, "properties": properties(schema)},
    })
}

/// What an index of a draft needs: what the server's templates say of the one whose place it is to take, also where somebody
/// changed them, but nobody is to see it.
/// Source: <https://www.elastic.co/guide/en/elasticsearch/reference/8.19/indices-simulate-index.html>.
pub(super) async fn draft_body(client: &Client, schema: &RowSchema, name: &str) -> Result<Value> {
    let doing = format!("ask how the index `{name}` is made");
    let path = format!("_index_template/_simulate_index/{name}");
    let mut body = client.ask_json(Method::POST, &path, Body::None, &doing).await?["template"].take();
    body["settings"]["index"]["hidden"] = true.into();
    if body["mappings"].is_null() {
        // Somebody removed the template.
        body["mappings"] = index_body(schema)["mappings"].take();
    }
    if let Some(body) = body.as_object_mut() {
        body.remove("aliases");
    }
    Ok(body)
}

/// What a template is made for.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) settings: &'a ElasticsearchSettings,
    /// Whether the server has lifecycle policies.
    pub(super) has_policies: bool,
}

/// The whole template.
pub(super) fn template(schema: &RowSchema, Wanted { settings, has_policies }: Wanted<'_>) -> Value {
    let mut body = index_body(schema);
    body["settings"] = json!({
        "number_of_shards": settings.shards,
        "number_of_replicas": settings.replicas,
        // A query without a field name looks into the texts, as in the embedded store.
        "query": {"default_field": default_fields(schema)},
    });
    if has_policies {
        body["settings"]["lifecycle"] = json!({"name": POLICY});
    }
    let mut template = json!({
        // The dates of indices have a dot; other names of the user's that begin alike have none by rule.
        "index_patterns": [format!("{}-*.*", schema.source)],
        "priority": PRIORITY,
        "template": body,
    });
    template["_meta"] = json!({"managed_by": "databroker", "fingerprint": fingerprint(&flat(&template))});
    template
}

/// Adds the columns that indices lack to their mappings: rows that come from now on are found by them. Answers the columns that
/// stay as they are, since they were made in another way.
pub(super) async fn grow(client: &Client, schema: &RowSchema, indices: &[String]) -> Result<BTreeSet<String>> {
    let doing = || format!("add columns to the indices of `{}`", schema.source);
    let wanted = properties(schema);
    let mut others = BTreeSet::new();
    for some in indices.chunks(NAMES_MAX) {
        let path = format!("{}/_mapping", some.join(","));
        let found = client.ask_json(Method::GET, &path, Body::None, &doing()).await?;
        for (index, of) in found.as_object().into_iter().flatten() {
            let has = &of["mappings"]["properties"];
            let mut missing = Map::new();
            for (column, property) in wanted.as_object().into_iter().flatten() {
                match has.get(column) {
                    None => drop(missing.insert(column.clone(), property.clone())),
                    Some(has) if has["type"] != property["type"] => drop(others.insert(column.clone())),
                    Some(_) => {}
                }
            }
            if !missing.is_empty() {
                let body = Body::Json(json!({"properties": missing}));
                client.ask_json(Method::PUT, &format!("{index}/_mapping"), body, &doing()).await?;
            }
        }
    }
    Ok(others)
}

/// How the template on the server stands to ours.
pub(super) async fn state(client: &Client, schema: &RowSchema, wanted: Wanted<'_>) -> Result<TemplateState> {
    let name = name(schema);
    let answer = client.send(Method::GET, &format!("_index_template/{name}"), Body::None).await?;
    if answer.status.as_u16() == 404 {
        return Ok(TemplateState::Absent);
    }
    let found = answer.json(&format!("read the index template `{name}`"))?;
    let found = found.pointer("/index_templates/0/index_template").cloned().unwrap_or_default();
    Ok(compare(&flat(&found), &flat(&template(schema, wanted)), &found["_meta"]["fingerprint"]))
}

/// Puts ours in its place.
pub(super) async fn install(client: &Client, schema: &RowSchema, wanted: Wanted<'_>) -> Result<()> {
    let name = name(schema);
    let body = Body::Json(template(schema, wanted));
    let doing = format!("install the index template `{name}`");
    client.ask_json(Method::PUT, &format!("_index_template/{name}"), body, &doing).await.map(drop)
}

/// How what is there stands to ours; `noted` is the fingerprint that it was installed with.
pub(super) fn compare(there: &Flat, here: &Flat, noted: &Value) -> TemplateState {
    if there == here {
        return TemplateState::Current;
    }
    if *noted == fingerprint(there) {
        return TemplateState::Older;
    }
    let keys: std::collections::BTreeSet<_> = there.keys().chain(here.keys()).collect();
    let differs = keys.into_iter().filter(|key| there.get(*key) != here.get(*key));
    let shown = |value: Option<&String>| value.map_or("nothing".to_owned(), |value| format!("`{value}`"));
    let named = differs.map(|key| format!("`{key}` is {} (ours: {})", shown(there.get(key)), shown(here.get(key))));
    TemplateState::Edited(named.take(NAMED_MAX).collect())
}

/// The columns as Elasticsearch's fields.
fn properties(schema: &RowSchema) -> Value {
    let mut properties = Map::new();
    for leaf in schema.leaves().filter(|leaf| leaf.column.name != "_id") {
        let field = field(leaf.column);
        match leaf.column.name.split_once('.') {
            None => drop(properties.insert(leaf.column.name.to_owned(), field)),
            Some((list, member)) => {
                let object = properties.entry(list).or_insert_with(|| json!({"properties": {}}));
                object["properties"][member] = field;
            }
        }
    }
    Value::Object(properties)
}

fn field(column: &Column) -> Value {
    let kind = type_name(column);
    match (column.kind, column.search) {
        (Kind::Text | Kind::TextList, Search::Exact) => json!({"type": kind, "ignore_above": IGNORE_ABOVE}),
        // A year that no date of Elasticsearch has costs the field, not the row.
        (Kind::Timestamp, _) => json!({"type": kind, "ignore_malformed": true}),
        _ => json!({"type": kind}),
    }
}

fn default_fields(schema: &RowSchema) -> Vec<&'static str> {
    let is_text = |column: &&Column| matches!(column.kind, Kind::Text | Kind::TextList) && column.name != "_id";
    schema.leaves().map(|leaf| leaf.column).filter(is_text).map(|column| column.name).collect()
}

/// What a JSON object holds, as paths and texts.
pub(super) type Flat = BTreeMap<String, String>;

/// A template in the form that the server answers: settings below `index`, all values as texts.
fn flat(template: &Value) -> Flat {
    let mut flat = Flat::new();
    for part in ["index_patterns", "priority"] {
        flatten(part, &template[part], &mut flat);
    }
    for part in ["aliases", "mappings"] {
        flatten(part, &template["template"][part], &mut flat);
    }
    let settings = &template["template"]["settings"];
    flatten("settings", settings.get("index").unwrap_or(settings), &mut flat);
    flat
}

pub(super) fn flatten(path: &str, value: &Value, flat: &mut Flat) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            members.iter().for_each(|(name, value)| flatten(&format!("{path}.{name}"), value, flat));
        }
        Value::Array(values) => {
            (0..).zip(values).for_each(|(place, value): (usize, _)| flatten(&format!("{path}.{place}"), value, flat));
        }
        Value::String(text) => drop(flat.insert(path.to_owned(), text.clone())),
        other => drop(flat.insert(path.to_owned(), other.to_string())),
    }
}

/// Tells whether it is as it was installed.
pub(super) fn fingerprint(flat: &Flat) -> String {
    let mut hash = Sha256::new();
    for (path, value) in flat {
        hash.update(format!("{path}\n{value}\n"));
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::conformance::hot_store::SCHEMA;

    /// As the server answers it.
    fn answered(template: &Value) -> Value {
        let mut answered = template.clone();
        let settings = &template["template"]["settings"];
        answered["template"]["settings"] = json!({"index": {
            "number_of_shards": settings["number_of_shards"].to_string(),
            "number_of_replicas": settings["number_of_replicas"].to_string(),
            "query": settings["query"],
        }});
        answered["composed_of"] = json!([]);
        answered
    }

    #[test]
    fn a_template_is_current_older_or_edited() {
        let settings = ElasticsearchSettings::default();
        let wanted = Wanted { settings: &settings, has_policies: false };
        let ours = template(&SCHEMA, wanted);
        let compare = |found: &Value| compare(&flat(found), &flat(&ours), &found["_meta"]["fingerprint"]);
        assert_eq!(compare(&answered(&ours)), TemplateState::Current);
        let replicated = ElasticsearchSettings { replicas: 2, ..settings.clone() };
        let older = template(&SCHEMA, Wanted { settings: &replicated, ..wanted });
        assert_eq!(compare(&answered(&older)), TemplateState::Older);
        assert_eq!(compare(&template(&SCHEMA, Wanted { has_policies: true, ..wanted })), TemplateState::Older);
        let mut edited = answered(&ours);
        edited["template"]["mappings"]["properties"]["kind"]["type"] = "text".into();
        let difference = "`mappings.properties.kind.type` is `text` (ours: `keyword`)".to_owned();
        assert_eq!(compare(&edited), TemplateState::Edited(vec![difference]));
    }

    #[test]
    fn every_column_has_its_field_and_a_payload_adds_none() {
        let body = index_body(&SCHEMA);
        assert_eq!(body["mappings"]["dynamic"], false);
        let properties = &body["mappings"]["properties"];
        assert_eq!(properties["title"], json!({"type": "text"}));
        assert_eq!(properties["parts"]["properties"]["size"], json!({"type": "long"}));
        assert_eq!(properties["event_time"]["type"], "date");
        assert!(properties.get("_id").is_none() && properties.get("_offset").is_some());
    }
}
