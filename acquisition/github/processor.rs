//! From an event's bytes to a row.

use contract::limits::{FUTURE_SECONDS_MAX, JSON_DEPTH_MAX, RECORD_BYTES_MAX};
use contract::{Processor, RawRecord, Reject, RowBuilder, Timestamp};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::event::{
    Brief, Comment, Delivered, Event, Id, Payload, Release, Repository, Text, TimelineCommit, Topic, User,
};
use super::reject::{explain, nests_too_deep};
use super::schema;
use super::time::parse_time;

/// The types whose payloads are known; of any other only the common fields become columns.
/// Source: <https://docs.github.com/en/rest/using-the-rest-api/github-event-types>, and those it had.
const KNOWN_TYPES: &[&str] = &[
    "CommitCommentEvent",
    "CreateEvent",
    "DeleteEvent",
    "DiscussionEvent",
    "DownloadEvent",
    "FollowEvent",
    "ForkApplyEvent",
    "ForkEvent",
    "GistEvent",
    "GollumEvent",
    "IssueCommentEvent",
    "IssuesEvent",
    "MemberEvent",
    "PublicEvent",
    "PullRequestEvent",
    "PullRequestReviewCommentEvent",
    "PullRequestReviewEvent",
    "PullRequestReviewThreadEvent",
    "PushEvent",
    "ReleaseEvent",
    "SponsorshipEvent",
    "TeamAddEvent",
    "TeamEvent",
    "WatchEvent",
];

/// Understands every event type that GitHub documents or has had, in the forms since 2011.
///
/// | record | outcome |
/// | --- | --- |
/// | a field is absent or null | its column is null |
/// | a key that is read stands twice, or its value is of another type | reject, naming the path |
/// | a lone surrogate (`\ud800`) in a text | U+FFFD in its place |
/// | a type that is not known | a row with the common fields |
/// | no `type`, no `created_at` | reject |
/// | larger or deeper than the limits, not UTF-8, not JSON, a day in the future | reject |
#[derive(Clone, Copy, Debug, Default)]
pub struct GithubProcessor;

impl Processor for GithubProcessor {
    fn process(&self, record: &RawRecord, row: &mut RowBuilder) -> Result<(), Reject> {
        let json = check(record)?;
        match read::<Payload<'_>>(json) {
            Ok(event) => {
                let event = of_webhook(json, event);
                let time = check_times(record, &event)?;
                write_event(record, &event, time, row);
                if let Some(payload) = &event.payload {
                    write_payload(payload, &event, row);
                }
            }
            Err(_) => {
                let event = of_webhook(json, read::<IgnoredAny>(json).map_err(|_| explain(json))?);
                if event.kind.as_ref().is_some_and(|kind| KNOWN_TYPES.contains(&kind.as_str())) {
                    return Err(explain(json));
                }
                let time = check_times(record, &event)?;
                write_event(record, &event, time, row);
                if let Ok(Event { payload: Some(delivered), .. }) = read::<Delivered<'_>>(json) {
                    write_text(row, schema::ACTION, text(&delivered.action));
                }
            }
        }
        Ok(())
    }
}

/// Checks what parsing must not meet: size, encoding, depth.
fn check(record: &RawRecord) -> Result<&str, Reject> {
    let bytes = &record.body[..];
    if bytes.len() > RECORD_BYTES_MAX {
        let reason = format!("the event is {} bytes long, {RECORD_BYTES_MAX} are allowed", bytes.len());
        return Err(Reject::new("size", reason));
    }
    let json = std::str::from_utf8(bytes)
        .map_err(|error| Reject::new("json", format!("the event is not UTF-8 from byte {} on", error.valid_up_to())))?;
    if nests_too_deep(bytes) {
        return Err(Reject::new("json", format!("the event nests deeper than {JSON_DEPTH_MAX} levels")));
    }
    Ok(json)
}

fn read<'a, P: Deserialize<'a>>(json: &'a str) -> Result<Event<'a, P>, sonic_rs::Error> {
    let mut deserializer = sonic_rs::Deserializer::from_str(json).utf8_lossy();
    let event = Event::deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(event)
}

/// The delivery of a webhook in the form of the Events API, which has the sender and the like beside the payload.
fn of_webhook<'a, P>(json: &'a str, mut event: Event<'a, P>) -> Event<'a, P> {
    if event.webhook.is_none() {
        return event;
    }
    if let Ok(Event { payload: Some(delivered), .. }) = read::<Delivered<'_>>(json) {
        event.public = delivered.repository.as_ref().and_then(|repository| repository.private).map(|private| !private);
        event.actor = delivered.sender;
        event.repo = delivered.repository;
        event.org = delivered.organization;
    }
    event
}

fn check_times<P>(record: &RawRecord, event: &Event<'_, P>) -> Result<Timestamp, Reject> {
    if event.kind.is_none() {
        return Err(Reject::new("type", "`type` is missing, should be an event type such as `PushEvent`"));
    }
    let Some(created_at) = &event.created_at else {
        return Err(Reject::new("type", "`created_at` is missing, should be a time such as `2015-01-01T15:00:00Z`"));
    };
    let Some(time) = parse_time(created_at.as_str()) else {
        let given: String = created_at.as_str().chars().take(40).collect();
        let reason = format!("`created_at` is `{given}`, should be a time such as `2015-01-01T15:00:00Z`");
        return Err(Reject::new("time", reason));
    };
    let ahead_seconds = time.max(record.event_time).since(record.fetched_at).as_secs();
    if ahead_seconds > FUTURE_SECONDS_MAX {
        let reason = format!("`created_at` lies {ahead_seconds} s after the fetch, {FUTURE_SECONDS_MAX} are allowed");
        return Err(Reject::new("time", reason));
    }
    Ok(time)
}

fn write_event<P>(record: &RawRecord, event: &Event<'_, P>, time: Timestamp, row: &mut RowBuilder) {
    match &event.id {
        Some(Id::Text(text)) if !text.as_str().is_empty() => row.text(schema::ID, text.as_str()),
        Some(Id::Number(number)) => row.text(schema::ID, &number.to_string()),
        _ => row.text(schema::ID, record.id.as_str()),
    }
    write_text(row, schema::TYPE, text(&event.kind));
    let actor = event.actor.as_ref().and_then(Brief::object);
    let attributes = event.actor_attributes.as_ref();
    let login = login(&event.actor).or_else(|| text(&attributes?.login));
    write_text(row, schema::ACTOR_LOGIN, login);
    write_integer(row, schema::ACTOR_ID, actor.and_then(|actor| actor.id));
    let is_of_type_bot = |user: &User<'_>| text(&user.kind) == Some("Bot");
    let is_bot = login.is_some_and(|login| login.ends_with("[bot]"))
        || actor.is_some_and(is_of_type_bot)
        || attributes.is_some_and(is_of_type_bot);
    row.boolean(schema::IS_BOT, is_bot);
    if let Some(repository) = event.repo.as_ref().or(event.repository.as_ref()) {
        write_full_name(row, schema::REPO_NAME, repository);
        write_integer(row, schema::REPO_ID, repository.id);
    }
    let timeline = event.repository.as_ref();
    let organization = event.org.as_ref().and_then(|org| text(&org.login));
    write_text(row, schema::ORG_LOGIN, organization.or_else(|| login_of(timeline?.organization.as_ref()?)));
    write_integer(row, schema::ORG_ID, event.org.as_ref().and_then(|org| org.id));
    if let Some(public) = event.public {
        row.boolean(schema::PUBLIC, public);
    }
    row.timestamp(schema::CREATED_AT, time);
}

fn write_payload<P>(payload: &Payload<'_>, event: &Event<'_, P>, row: &mut RowBuilder) {
    let timeline = event.repository.as_ref();
    write_text(row, schema::ACTION, text(&payload.action));
    write_text(row, schema::REF, text(&payload.reference));
    write_text(row, schema::REF_TYPE, text(&payload.ref_type));
    let master_branch = text(&payload.master_branch).or_else(|| text(&timeline?.master_branch));
    write_text(row, schema::MASTER_BRANCH, master_branch);
    write_text(row, schema::BEFORE, text(&payload.before));
    write_text(row, schema::PUSHER_TYPE, text(&payload.pusher_type));
    write_integer(row, schema::PUSH_ID, payload.push_id);
    write_integer(row, schema::DISTINCT_COMMIT_COUNT, payload.distinct_size);
    write_commits(payload, row);
    let pull_request = payload.pull_request.as_ref().and_then(Brief::object);
    let topic = pull_request.or_else(|| payload.issue.as_ref()?.object()).or(payload.discussion.as_ref());
    write_topic(payload, topic, pull_request, row);
    write_texts_of(payload, topic, row);
    write_subjects(payload, timeline, row);
    let language = timeline.and_then(|repository| text(&repository.language));
    let base = || pull_request?.base.as_ref()?.repo.as_ref();
    write_text(row, schema::LANGUAGE, language.or_else(|| text(&base()?.language)));
    write_text(row, schema::URL, url(payload, topic).or_else(|| text(&event.url)));
}

fn write_commits(payload: &Payload<'_>, row: &mut RowBuilder) {
    if let Some(commits) = payload.commits.as_ref() {
        row.texts(schema::COMMIT_SHAS, commits.iter().filter_map(|commit| text(&commit.sha)));
        row.texts(schema::COMMIT_MESSAGES, commits.iter().filter_map(|commit| text(&commit.message)));
        let authors = commits.iter().filter_map(|commit| text(&commit.author.as_ref()?.name));
        row.texts(schema::COMMIT_AUTHORS, authors);
    } else if let Some(commits) = payload.shas.as_ref() {
        let texts = |pick: for<'c> fn(&'c TimelineCommit<'_>) -> Option<&'c str>| commits.iter().filter_map(pick);
        row.texts(schema::COMMIT_SHAS, texts(|commit| text(&commit.sha)));
        row.texts(schema::COMMIT_MESSAGES, texts(|commit| text(&commit.message)));
        row.texts(schema::COMMIT_AUTHORS, texts(|commit| text(&commit.author)));
    }
}

fn write_topic(
    payload: &Payload<'_>,
    topic: Option<&Topic<'_>>,
    pull_request: Option<&Topic<'_>>,
    row: &mut RowBuilder,
) {
    write_integer(row, schema::NUMBER, payload.number.or_else(|| topic?.number));
    let listed = || i64::try_from(payload.commits.as_ref()?.len()).ok();
    let commits = payload.size.or_else(|| pull_request?.commits).or_else(listed);
    write_integer(row, schema::COMMIT_COUNT, commits);
    let head = pull_request.and_then(|pull_request| pull_request.head.as_ref());
    write_text(row, schema::HEAD, text(&payload.head).or_else(|| text(&head?.sha)).or_else(|| text(&payload.after)));
    write_text(row, schema::HEAD_REF, head.and_then(|head| text(&head.reference)));
    let base = pull_request.and_then(|pull_request| pull_request.base.as_ref());
    write_text(row, schema::BASE_REF, base.and_then(|base| text(&base.reference)));
    let Some(topic) = topic else { return };
    write_text(row, schema::STATE, text(&topic.state));
    if let Some(labels) = &topic.labels {
        row.texts(schema::LABELS, labels.iter().filter_map(|label| text(&label.name)));
    }
    write_integer(row, schema::COMMENT_COUNT, topic.comments);
    write_integer(row, schema::ADDITIONS, topic.additions);
    write_integer(row, schema::DELETIONS, topic.deletions);
    write_integer(row, schema::CHANGED_FILES, topic.changed_files);
    if let Some(merged) = topic.merged {
        row.boolean(schema::MERGED, merged);
    }
}

fn write_texts_of(payload: &Payload<'_>, topic: Option<&Topic<'_>>, row: &mut RowBuilder) {
    let release = payload.release.as_ref();
    let comment = payload.comment.as_ref().or(payload.review.as_ref());
    let from_release = |pick: for<'r> fn(&'r Release<'_>) -> Option<&'r str>| release.and_then(pick);
    let from_topic = |pick: for<'t> fn(&'t Topic<'_>) -> Option<&'t str>| topic.and_then(pick);
    let from_comment = |pick: for<'c> fn(&'c Comment<'_>) -> Option<&'c str>| comment.and_then(pick);
    let download = payload.download.as_ref();
    let title = from_topic(|topic| text(&topic.title)).or_else(|| from_release(|release| text(&release.name)));
    write_text(row, schema::TITLE, title.or_else(|| text(&download?.name)));
    // A comment or review without a text is not its topic's text.
    let body = match comment {
        Some(comment) => text(&comment.body),
        None => from_topic(|topic| text(&topic.body)).or_else(|| from_release(|release| text(&release.body))),
    };
    write_text(row, schema::BODY, body);
    let user = topic.and_then(|topic| topic.user.as_ref()).or_else(|| release?.author.as_ref());
    write_text(row, schema::USER_LOGIN, user.and_then(|user| text(&user.login)));
    let association = from_comment(|comment| text(&comment.author_association));
    let association = association.or_else(|| from_topic(|topic| text(&topic.author_association)));
    write_text(row, schema::AUTHOR_ASSOCIATION, association);
    let comment_id = payload.comment_id.or_else(|| payload.comment.as_ref()?.id);
    write_integer(row, schema::COMMENT_ID, comment_id);
    let commit_id = from_comment(|comment| text(&comment.commit_id)).or_else(|| payload.commit.as_ref()?.text());
    write_text(row, schema::COMMIT_ID, commit_id);
    write_text(row, schema::PATH, from_comment(|comment| text(&comment.path)));
    write_text(row, schema::REVIEW_STATE, payload.review.as_ref().and_then(|review| text(&review.state)));
    write_text(row, schema::RELEASE_TAG, from_release(|release| text(&release.tag_name)));
    if let Some(prerelease) = release.and_then(|release| release.prerelease) {
        row.boolean(schema::PRERELEASE, prerelease);
    }
    if let Some(draft) = topic.and_then(|topic| topic.draft).or_else(|| release?.draft) {
        row.boolean(schema::DRAFT, draft);
    }
}

fn write_subjects(payload: &Payload<'_>, timeline: Option<&Repository<'_>>, row: &mut RowBuilder) {
    let forkee = payload.forkee.as_ref().and_then(Brief::object);
    match &payload.forkee {
        Some(Brief::Object(forkee)) => write_full_name(row, schema::FORKEE_FULL_NAME, forkee),
        Some(Brief::Text(name)) => row.text(schema::FORKEE_FULL_NAME, name.as_str()),
        _ => {}
    }
    let sponsorable = || text(&payload.sponsorship.as_ref()?.sponsorable.as_ref()?.login);
    let member = login(&payload.member).or_else(|| login(&payload.target)).or_else(|| login(&payload.user));
    write_text(row, schema::MEMBER_LOGIN, member.or_else(sponsorable));
    match &payload.team {
        Some(Brief::Object(team)) => write_text(row, schema::TEAM_NAME, text(&team.name)),
        Some(Brief::Text(name)) => row.text(schema::TEAM_NAME, name.as_str()),
        _ => {}
    }
    if let Some(pages) = &payload.pages {
        row.texts(schema::PAGES, pages.iter().filter_map(|page| text(&page.page_name)));
    } else if let Some(page) = text(&payload.page_name) {
        row.texts(schema::PAGES, [page]);
    }
    // The timeline wrote a gist's fields straight into the payload; downloads have an `id` there too, but no name.
    let gist = payload.gist.as_ref();
    let is_timeline_gist =
        gist.is_none() && payload.name.as_ref().is_some_and(|name| name.as_str().starts_with("gist"));
    match gist.and_then(|gist| gist.id.as_ref()).or_else(|| payload.id.as_ref().filter(|_| is_timeline_gist)) {
        Some(Id::Text(id)) => row.text(schema::GIST_ID, id.as_str()),
        Some(Id::Number(id)) => row.text(schema::GIST_ID, &id.to_string()),
        None => {}
    }
    let description = text(&payload.description).or_else(|| text(&payload.desc));
    let description = description.or_else(|| text(&forkee?.description)).or_else(|| text(&gist?.description));
    let description = description.or_else(|| text(&payload.download.as_ref()?.description));
    write_text(row, schema::DESCRIPTION, description.or_else(|| text(&timeline?.description)));
}

/// The page that is nearest to what happened.
fn url<'a>(payload: &'a Payload<'_>, topic: Option<&'a Topic<'_>>) -> Option<&'a str> {
    let comment = payload.comment.as_ref().or(payload.review.as_ref());
    text_of(comment, |comment| &comment.html_url)
        .or_else(|| text_of(topic, |topic| &topic.html_url))
        .or_else(|| text_of(payload.release.as_ref(), |release| &release.html_url))
        .or_else(|| text_of(payload.forkee.as_ref()?.object(), |forkee| &forkee.html_url))
        .or_else(|| text_of(payload.gist.as_ref(), |gist| &gist.html_url))
        .or_else(|| text_of(payload.download.as_ref(), |download| &download.html_url))
        .or_else(|| text_of(payload.pages.as_ref()?.first(), |page| &page.html_url))
        .or_else(|| text(&payload.url))
}

fn write_full_name(row: &mut RowBuilder, place: usize, repository: &Repository<'_>) {
    let owner = repository.owner.as_ref().and_then(login_of);
    match (text(&repository.full_name), text(&repository.name), owner) {
        (Some(full_name), _, _) => row.text(place, full_name),
        // The timeline form has the bare name here; the Events API `OWNER/NAME` and no owner.
        (None, Some(name), Some(owner)) if !name.contains('/') => row.text(place, &format!("{owner}/{name}")),
        (None, Some(name), _) => row.text(place, name),
        (None, None, _) => {}
    }
}

fn write_text(row: &mut RowBuilder, place: usize, value: Option<&str>) {
    if let Some(value) = value {
        row.text(place, value);
    }
}

fn write_integer(row: &mut RowBuilder, place: usize, value: Option<i64>) {
    if let Some(value) = value {
        row.integer(place, value);
    }
}

fn text<'a>(value: &'a Option<Text<'_>>) -> Option<&'a str> {
    value.as_ref().map(Text::as_str)
}

fn text_of<'a, 'b: 'a, T>(object: Option<&'a T>, pick: impl Fn(&'a T) -> &'a Option<Text<'b>>) -> Option<&'a str> {
    text(pick(object?))
}

fn login<'a>(user: &'a Option<Brief<'_, User<'_>>>) -> Option<&'a str> {
    login_of(user.as_ref()?)
}

fn login_of<'a>(user: &'a Brief<'_, User<'_>>) -> Option<&'a str> {
    match user {
        Brief::Object(user) => text(&user.login),
        Brief::Text(login) => Some(login.as_str()),
        Brief::Number(_) => None,
    }
}
