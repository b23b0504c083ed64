//! The body of a record: one entry with what its feed says of itself, as JSON.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// One entry, as fetched. The document is the feed's own text, decoded to UTF-8, cut down to slices of it: the prolog,
/// the tags around the entries, the feed's own elements as far as they are small, and the entry, in this order. In a
/// JSON Feed the fields of the feed's own are written anew and the item is the slice.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Envelope<'a> {
    /// The feed's address as subscribed to.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) feed_url: Option<Cow<'a, str>>,
    /// Where it was read: the address after redirects, or the file's name.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) fetched_from: Option<Cow<'a, str>>,
    /// Whether other entries of the feed, with other ids and titles, have the same link, or had it before, and it is neither
    /// this one's id nor was this one's alone: one entry cannot tell.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) link_is_shared: bool,
    /// Where the article's page stands, if its text was fetched.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) page_url: Option<Cow<'a, str>>,
    /// The text of that page.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) page_text: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) document: Cow<'a, str>,
}
