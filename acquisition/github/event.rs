//! An event as it is written, in all forms since 2011: typed, borrowed from the body, and only what becomes
//! a column. A key that is read here and stands twice in its object is an error.
//!
//! Sources: <https://docs.github.com/en/rest/using-the-rest-api/github-event-types>; the timeline form before 2015:
//! <https://github.com/igrigorik/gharchive.org/blob/master/bigquery/schema.js>.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A text, borrowed unless it holds an escape.
#[derive(Debug)]
pub(super) struct Text<'a>(pub(super) Cow<'a, str>);

/// A number or a text: ids were both.
#[derive(Debug)]
pub(super) enum Id<'a> {
    Number(i64),
    Text(Text<'a>),
}

/// An object or, before 2015, only its name or number.
#[derive(Debug)]
pub(super) enum Brief<'a, T> {
    Object(T),
    Text(Text<'a>),
    Number(i64),
}

/// Lets a type be read from an object only; serde's derive would also take an array of the values in order.
macro_rules! only_from_object {
    ($name:ident $(<$parameter:ident>)?) => {
        impl<'de: 'a, 'a $(, $parameter: Deserialize<'de>)?> Deserialize<'de> for $name<'a $(, $parameter)?> {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct ObjectVisitor<T>(PhantomData<T>);
                impl<'de: 'a, 'a $(, $parameter: Deserialize<'de>)?> Visitor<'de>
                    for ObjectVisitor<$name<'a $(, $parameter)?>>
                {
                    type Value = $name<'a $(, $parameter)?>;
                    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                        out.write_str("an object")
                    }
                    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                        // The derived function, which `remote` keeps out of the trait.
                        $name::deserialize(MapAccessDeserializer::new(map))
                    }
                }
                deserializer.deserialize_map(ObjectVisitor::<Self>(PhantomData))
            }
        }
    };
}

/// Derives `Deserialize` for objects of which all keys are optional and others are skipped.
macro_rules! objects {
    ($($(#[$attribute:meta])* struct $name:ident { $($(#[$field_attribute:meta])* $field:ident: $type:ty,)* })*) => {$(
        #[derive(Debug, Deserialize)]
        #[serde(bound(deserialize = "'de: 'a"), remote = "Self")]
        $(#[$attribute])*
        pub(super) struct $name<'a> {
            $($(#[$field_attribute])* pub(super) $field: Option<$type>,)*
            #[serde(skip)]
            lifetime: PhantomData<&'a ()>,
        }
        only_from_object!($name);
    )*};
}

/// The event itself; `P` is [`Payload`], or [`IgnoredAny`] where only the rest is wanted.
#[derive(Debug, Deserialize)]
#[serde(bound(deserialize = "'de: 'a, P: Deserialize<'de>"), remote = "Self")]
pub(super) struct Event<'a, P> {
    pub(super) id: Option<Id<'a>>,
    #[serde(rename = "type")]
    pub(super) kind: Option<Text<'a>>,
    pub(super) actor: Option<Brief<'a, User<'a>>>,
    pub(super) actor_attributes: Option<User<'a>>,
    pub(super) repo: Option<Repository<'a>>,
    pub(super) repository: Option<Repository<'a>>,
    pub(super) org: Option<User<'a>>,
    pub(super) payload: Option<P>,
    pub(super) public: Option<bool>,
    pub(super) created_at: Option<Text<'a>>,
    pub(super) url: Option<Text<'a>>,
    /// The event's name in a webhook, whose delivery this is; its `sender` and the like stand in the payload.
    pub(super) webhook: Option<Text<'a>>,
}

only_from_object!(Event<P>);

objects! {
    struct User {
        login: Text<'a>,
        id: i64,
        #[serde(rename = "type")]
        kind: Text<'a>,
    }
    struct Repository {
        id: i64,
        name: Text<'a>,
        full_name: Text<'a>,
        owner: Brief<'a, User<'a>>,
        organization: Brief<'a, User<'a>>,
        description: Text<'a>,
        language: Text<'a>,
        master_branch: Text<'a>,
        html_url: Text<'a>,
        private: bool,
    }
    /// What every delivery of a webhook may have.
    struct Delivered {
        action: Text<'a>,
        sender: Brief<'a, User<'a>>,
        repository: Repository<'a>,
        organization: User<'a>,
    }
    struct Payload {
        action: Text<'a>,
        #[serde(rename = "ref")]
        reference: Text<'a>,
        ref_type: Text<'a>,
        master_branch: Text<'a>,
        description: Text<'a>,
        pusher_type: Text<'a>,
        push_id: i64,
        size: i64,
        distinct_size: i64,
        head: Text<'a>,
        before: Text<'a>,
        after: Text<'a>,
        commits: Vec<Commit<'a>>,
        shas: Vec<TimelineCommit<'a>>,
        number: i64,
        issue: Brief<'a, Topic<'a>>,
        pull_request: Brief<'a, Topic<'a>>,
        discussion: Topic<'a>,
        comment: Comment<'a>,
        comment_id: i64,
        commit: Brief<'a, IgnoredAny>,
        review: Comment<'a>,
        release: Release<'a>,
        forkee: Brief<'a, Repository<'a>>,
        member: Brief<'a, User<'a>>,
        target: Brief<'a, User<'a>>,
        user: Brief<'a, User<'a>>,
        sponsorship: Sponsorship<'a>,
        team: Brief<'a, Named<'a>>,
        pages: Vec<Page<'a>>,
        page_name: Text<'a>,
        gist: Named<'a>,
        download: Named<'a>,
        id: Id<'a>,
        name: Text<'a>,
        desc: Text<'a>,
        url: Text<'a>,
    }
    struct Commit {
        #[serde(alias = "id")]
        sha: Text<'a>,
        message: Text<'a>,
        author: Named<'a>,
    }
    /// An issue, pull request or discussion.
    struct Topic {
        number: i64,
        title: Text<'a>,
        body: Text<'a>,
        state: Text<'a>,
        user: User<'a>,
        labels: Vec<Named<'a>>,
        comments: i64,
        author_association: Text<'a>,
        html_url: Text<'a>,
        commits: i64,
        additions: i64,
        deletions: i64,
        changed_files: i64,
        merged: bool,
        draft: bool,
        head: Branch<'a>,
        base: Branch<'a>,
    }
    struct Branch {
        #[serde(rename = "ref")]
        reference: Text<'a>,
        sha: Text<'a>,
        repo: Repository<'a>,
    }
    /// A comment or a review.
    struct Comment {
        id: i64,
        body: Text<'a>,
        path: Text<'a>,
        commit_id: Text<'a>,
        state: Text<'a>,
        author_association: Text<'a>,
        html_url: Text<'a>,
    }
    struct Release {
        tag_name: Text<'a>,
        name: Text<'a>,
        body: Text<'a>,
        draft: bool,
        prerelease: bool,
        author: User<'a>,
        html_url: Text<'a>,
    }
    struct Sponsorship {
        sponsorable: User<'a>,
    }
    struct Page {
        page_name: Text<'a>,
        html_url: Text<'a>,
    }
    /// A label, team, author, gist or download.
    struct Named {
        id: Id<'a>,
        name: Text<'a>,
        description: Text<'a>,
        html_url: Text<'a>,
    }
}

/// A commit of the timeline form: `[sha, email, message, author's name, distinct]`, the last two since 2011.
#[derive(Debug, Default)]
pub(super) struct TimelineCommit<'a> {
    pub(super) sha: Option<Text<'a>>,
    pub(super) message: Option<Text<'a>>,
    pub(super) author: Option<Text<'a>>,
}

impl Text<'_> {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl<T> Brief<'_, T> {
    pub(super) fn object(&self) -> Option<&T> {
        match self {
            Self::Object(object) => Some(object),
            _ => None,
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text.as_str()),
            _ => None,
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;
            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a string")
            }
            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Id<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NoObject;
        impl<'de> Deserialize<'de> for NoObject {
            fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
                Err(D::Error::invalid_type(serde::de::Unexpected::Map, &"a string or an integer"))
            }
        }
        let visitor = BriefVisitor::<NoObject>("a string or an integer", PhantomData);
        match deserializer.deserialize_any(visitor)? {
            Brief::Number(number) => Ok(Self::Number(number)),
            Brief::Text(text) => Ok(Self::Text(text)),
            Brief::Object(_) => Err(D::Error::custom("an object is refused above")),
        }
    }
}

impl<'de: 'a, 'a, T: Deserialize<'de>> Deserialize<'de> for Brief<'a, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BriefVisitor("an object, a string or an integer", PhantomData))
    }
}

struct BriefVisitor<T>(&'static str, PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for BriefVisitor<T> {
    type Value = Brief<'de, T>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.0)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Brief::Object)
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Brief::Text(Text(Cow::Borrowed(text))))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Brief::Text(Text(Cow::Owned(text.to_owned()))))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Brief::Number(number))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        match i64::try_from(number) {
            Ok(number) => Ok(Brief::Number(number)),
            Err(_) => Err(E::invalid_value(serde::de::Unexpected::Unsigned(number), &self)),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for TimelineCommit<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CommitVisitor;
        impl<'de> Visitor<'de> for CommitVisitor {
            type Value = TimelineCommit<'de>;
            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an array of hash, address, message and name")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
                let mut commit = TimelineCommit { sha: items.next_element()?.flatten(), ..TimelineCommit::default() };
                items.next_element::<IgnoredAny>()?;
                commit.message = items.next_element()?.flatten();
                commit.author = items.next_element()?.flatten();
                while items.next_element::<IgnoredAny>()?.is_some() {}
                Ok(commit)
            }
        }
        deserializer.deserialize_seq(CommitVisitor)
    }
}
