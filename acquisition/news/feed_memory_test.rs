//! What a feed's cursor remembers from poll to poll.

use std::sync::atomic::Ordering;

use contract::{Cursor, Harvest, Timestamp};

use super::feed_collector_test::{Polled, page, polled};
use super::feed_health::{FeedCondition, FeedHealth};
use crate::replay::Response;

fn feed(items: &[(&str, &str)]) -> Response {
    let item = |(id, title): &(&str, &str)| {
        format!("<item><guid>{id}</guid><link>https://a.example/status</link><title>{title}</title></item>")
    };
    let items: String = items.iter().map(item).collect();
    page(format!("<rss version=\"2.0\"><channel><title>A feed</title>{items}</channel></rss>"))
}

fn articles(harvest: &Harvest) -> Vec<&str> {
    harvest.records.iter().map(|record| record.id.as_str().split('.').next().unwrap()).collect()
}

#[tokio::test]
async fn an_article_keeps_its_id_when_later_entries_of_its_feed_share_its_link() {
    let (_replay, mut polled) = polled([
        feed(&[("1", "One")]),
        feed(&[("2", "Two"), ("1", "One")]),
        feed(&[("3", "Three"), ("2", "Two"), ("1", "One, changed")]),
        feed(&[("2", "Two, changed")]),
    ])
    .await;
    let first = polled.poll().await.unwrap();
    let one = articles(&first)[0];
    let second = polled.poll().await.unwrap();
    let [two] = articles(&second)[..] else { panic!("the first is known: {:?}", second.records) };
    assert_ne!(two, one);
    let third = polled.poll().await.unwrap();
    let changed = articles(&third);
    assert!(changed.len() == 2 && changed.contains(&one) && !changed.contains(&two), "{changed:?}");
    assert_eq!(articles(&polled.poll().await.unwrap()), [two]);
}

fn health(polled: &Polled, cursor: &Cursor) -> FeedHealth {
    FeedHealth::read(cursor, Timestamp(polled.clock.load(Ordering::SeqCst))).unwrap()
}

#[tokio::test]
async fn a_cursor_tells_why_a_feed_fails_until_it_answers_also_after_a_restart() {
    let wrong = page("<html>a login page</html>");
    let (_replay, mut polled) =
        polled([feed(&[("1", "One")]), Response::status(502), wrong.clone(), wrong, feed(&[("1", "One")])]).await;
    assert_eq!(health(&polled, &polled.cursor).state, FeedCondition::New);
    polled.poll().await.unwrap();
    let answers = health(&polled, &polled.cursor);
    assert_eq!((answers.state, answers.title.as_deref()), (FeedCondition::Answers, Some("A feed")));
    polled.minutes_pass(30);
    let mut collector = polled.collector();
    let mut learned = Cursor::default();
    for (polls, reason) in [(1, "the server answers 502"), (2, "what stands there is no feed")] {
        collector.poll(&polled.cursor).await.unwrap_err();
        let harvest = collector.learned().unwrap();
        assert!(harvest.records.is_empty() && harvest.coverage.is_empty());
        let failing = health(&polled, &harvest.cursor);
        let failure = failing.failure.unwrap();
        assert_eq!((failing.state, failure.polls), (FeedCondition::Fails, polls));
        assert!(failure.reason.starts_with(reason), "{}", failure.reason);
        assert_eq!(failure.since, "2023-11-14T22:43:20Z");
        assert_eq!(failing.answered_at, answers.answered_at);
        assert!(failing.next_poll_at > Some(failure.at));
        learned = harvest.cursor;
        polled.minutes_pass(5);
    }
    polled.cursor = learned;
    let mut collector = polled.collector();
    collector.poll(&polled.cursor).await.expect_err("it is still no feed, though it was seen before");
    let failure = health(&polled, &collector.learned().unwrap().cursor).failure.unwrap();
    assert_eq!((failure.polls, failure.since.as_str()), (3, "2023-11-14T22:43:20Z"));
    assert!(polled.poll().await.unwrap().records.is_empty());
    let answers = health(&polled, &polled.cursor);
    assert_eq!((answers.state, answers.failure), (FeedCondition::Answers, None));
    assert_eq!(answers.answered_at.as_deref(), Some("2023-11-14T22:53:20Z"));
}
