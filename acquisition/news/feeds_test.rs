//! What goes beyond a poll: hubs that send, pages of articles, lists from files and addresses.

use std::sync::Arc;

use contract::{Cursor, Harvest, Timestamp, Webhook, WebhookRequest};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::replay::Replay;
use super::settings::Settings;
use crate::hexadecimal::hexadecimal;
use crate::replay::Response;
use crate::{Collectors, Context};

const NOW: Timestamp = Timestamp(1_700_000_000_000_000);

fn settings(replay: &Replay) -> Settings {
    Settings {
        feeds: vec![replay.url("/feed")],
        allow_private_addresses: true,
        ports: Vec::new(),
        host_spacing_ms: 0,
        ..Settings::default()
    }
}

fn context() -> Context {
    Context { clock: Arc::new(|| NOW), ..Context::default() }
}

fn collectors(news: Settings) -> Collectors {
    super::feeds::collectors(&crate::Settings { news, ..crate::Settings::default() }, &context()).unwrap()
}

fn feed(head: &str, entries: &[&str]) -> String {
    let item = |name: &&str| {
        format!(
            "<item><guid>{name}</guid><link>BASE/{name}</link><title>{name}</title><description>short</description></item>"
        )
    };
    let items: String = entries.iter().map(item).collect();
    format!(
        "<rss version=\"2.0\" xmlns:atom=\"http://www.w3.org/2005/Atom\"><channel><title>A</title>{head}{items}</channel></rss>"
    )
}

struct Hub {
    webhook: Arc<dyn Webhook>,
    token: String,
    secret: String,
}

impl Hub {
    async fn verify(&self, replay: &Replay) -> (u16, String) {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let query = vec![
            pair("hub.mode", "subscribe"),
            pair("hub.topic", &replay.url("/feed")),
            pair("hub.challenge", "c1"),
            pair("hub.lease_seconds", "864000"),
        ];
        let (method, path) = ("GET".to_owned(), format!("websub/{}", self.token));
        let answer = self.webhook.receive(WebhookRequest { method, path, query, ..WebhookRequest::default() }).await;
        (answer.status, answer.body)
    }

    async fn send(&self, body: String) -> u16 {
        let mac = Hmac::<Sha256>::new_from_slice(self.secret.as_bytes()).unwrap().chain_update(&body);
        let digits = hexadecimal(&mac.finalize().into_bytes());
        let headers = vec![("x-hub-signature".to_owned(), format!("sha256={digits}"))];
        let (method, path) = ("POST".to_owned(), format!("websub/{}", self.token));
        let request = WebhookRequest { method, path, headers, body: body.into(), ..WebhookRequest::default() };
        self.webhook.receive(request).await.status
    }
}

fn form_value(form: &str, name: &str) -> String {
    let url = url::Url::parse(&format!("http://form/?{form}")).unwrap();
    url.query_pairs().find(|(known, _)| known == name).unwrap().1.into_owned()
}

#[tokio::test]
async fn a_hub_is_subscribed_to_verified_and_heard() {
    let replay = Replay::start().await.unwrap();
    let head = r#"<atom:link rel="self" href="BASE/feed"/>"#;
    let named = |response: Response| response.with("Link", "</hub>; rel=\"hub\"");
    replay.route(
        "/feed",
        [named(Response::body(feed(head, &["one"]))), named(Response::body(feed(head, &["two", "one"])))],
    );
    // The header names the hub; the hub has moved.
    replay.route("/hub", [Response::status(308).with("Location", "/new-hub")]);
    replay.route("/new-hub", [Response::status(202)]);
    let websub_callback_url = "https://me.example".to_owned();
    let mut all = collectors(Settings { websub_callback_url, ..settings(&replay) });
    let (mut collector, webhook) = (all.polled.remove(0), all.webhooks.remove(0));
    assert_eq!(webhook.path(), "news");

    let first = collector.poll(&Cursor::default()).await.unwrap();
    assert_eq!(first.records.len(), 1);
    let asked = replay.requests().pop().unwrap();
    assert_eq!((asked.method.as_str(), asked.target.as_str()), ("POST", "/new-hub"));
    let callback = form_value(&asked.body, "hub.callback");
    let token = callback.strip_prefix("https://me.example/webhooks/news/websub/").unwrap().to_owned();
    let hub = Hub { webhook, token, secret: form_value(&asked.body, "hub.secret") };

    let ((status, challenge), granted) = tokio::join!(hub.verify(&replay), collector.poll(&first.cursor));
    assert_eq!((status, challenge.as_str()), (200, "c1"));
    let granted = granted.unwrap();
    assert!(granted.cursor.0.contains("\"lease\":{"), "{}", granted.cursor.0);

    let pushed = feed(head, &["two"]).replace("BASE", &replay.url(""));
    let (status, harvest) = tokio::join!(hub.send(pushed), async {
        let harvest = collector.poll(&granted.cursor).await.unwrap();
        assert_eq!(harvest.records.len(), 1);
        harvest.acknowledge.as_ref().unwrap().on_disk();
        harvest
    });
    assert_eq!(status, 200, "once it is on disk");

    // As after a restart: the feed is asked, and what was pushed is known.
    let websub = || Settings { websub_callback_url: "https://me.example".to_owned(), ..settings(&replay) };
    let again = collectors(websub()).polled.remove(0).poll(&harvest.cursor).await.unwrap();
    assert_eq!((again.records.len(), replay.requests().len()), (0, 4), "no second subscription");

    // As after a restart with many feeds: before its turn to ask comes, the hub is heard.
    let mut feeds: Vec<String> = (0..20).map(|number| format!("https://a.example/{number}")).collect();
    feeds.push(replay.url("/feed"));
    let mut all = collectors(Settings { feeds, ..websub() });
    let (mut last, webhook) = (all.polled.remove(20), all.webhooks.remove(0));
    let idle = last.poll(&harvest.cursor).await.unwrap();
    assert_eq!(idle.poll_again_in, Some(std::time::Duration::from_millis(1)));
    let hub = Hub { webhook, ..hub };
    let pushed = feed(head, &["three"]).replace("BASE", &replay.url(""));
    let (status, _) = tokio::join!(hub.send(pushed), async {
        let heard = last.poll(&idle.cursor).await.unwrap();
        assert_eq!(heard.records.len(), 1);
        heard.acknowledge.as_ref().unwrap().on_disk();
    });
    assert_eq!((status, replay.requests().len()), (200, 4));
}

/// The one harvest of a feed with one entry, and what was asked.
async fn with_page(robots: Response, story: Response) -> (Harvest, Vec<String>) {
    let replay = Replay::feed([Response::body(feed("", &["story"]))]).await.unwrap();
    replay.route("/robots.txt", [robots]);
    replay.route("/story", [story]);
    let mut all = collectors(Settings { full_text: true, ..settings(&replay) });
    let harvest = all.polled.remove(0).poll(&Cursor::default()).await.unwrap();
    (harvest, replay.requests().into_iter().map(|request| request.target).collect())
}

#[tokio::test]
async fn the_page_of_an_article_gives_its_text_where_its_site_allows_it() {
    let paragraph = "<p>The council met on Monday, after weeks of talks, and agreed on a plan, said its speaker.</p>";
    let html = format!("<html><body><nav>Home</nav><article>{}</article></body></html>", paragraph.repeat(8));
    let story = || Response::body(html.clone()).with("Content-Type", "text/html; charset=utf-8");
    let open = Response::body("User-agent: *\nDisallow: /private");
    let (harvest, asked) = with_page(open.clone(), story()).await;
    assert_eq!(asked, ["/feed", "/robots.txt", "/story"]);
    let body = std::str::from_utf8(&harvest.records[0].body).unwrap();
    assert!(
        body.contains("\"page_text\":\"The council met on Monday") && body.contains("\"page_url\":\"http://127"),
        "{body}"
    );

    let closed = Response::body("User-agent: databroker\nDisallow: /");
    for (robots, story, requests) in [
        (closed, story(), 2),
        (Response::status(500), story(), 2),
        (open.clone(), Response::status(404), 3),
        (open.clone(), Response::body("%PDF").with("Content-Type", "application/pdf"), 3),
        (open, Response::body("x".repeat(5 << 20)), 3),
    ] {
        let (harvest, asked) = with_page(robots, story).await;
        assert_eq!(
            (harvest.records.len(), asked.len()),
            (1, requests),
            "the article is logged with what the feed says"
        );
        assert!(!String::from_utf8_lossy(&harvest.records[0].body).contains("page_text"));
    }
    let (_, asked) = with_page(Response::status(404), Response::status(404)).await;
    assert_eq!(asked.len(), 3, "no robots.txt allows all");
    let moved = Response::status(302).with("Location", "/private/story");
    let (_, asked) = with_page(Response::body("User-agent: *\nDisallow: /private"), moved).await;
    assert_eq!(asked, ["/feed", "/robots.txt", "/story"], "what a redirect leads to is asked only if it is allowed");
}

#[tokio::test]
async fn a_robots_txt_that_could_not_be_had_is_asked_for_again_after_minutes() {
    let replay =
        Replay::feed([Response::body(feed("", &["one"])), Response::body(feed("", &["two", "one"]))]).await.unwrap();
    replay.route("/robots.txt", [Response::status(500), Response::status(404)]);
    let minutes = Arc::new(std::sync::atomic::AtomicI64::new(0));
    let passed = minutes.clone();
    let clock = move || Timestamp(NOW.0 + passed.load(std::sync::atomic::Ordering::SeqCst) * 60_000_000);
    let context = Context { clock: Arc::new(clock), ..Context::default() };
    let news = Settings { full_text: true, ..settings(&replay) };
    let settings = crate::Settings { news, ..crate::Settings::default() };
    let mut collector = super::feeds::collectors(&settings, &context).unwrap().polled.remove(0);
    let first = collector.poll(&Cursor::default()).await.unwrap();
    minutes.store(11, std::sync::atomic::Ordering::SeqCst);
    collector.poll(&first.cursor).await.unwrap();
    let asked: Vec<String> = replay.requests().into_iter().map(|request| request.target).collect();
    assert_eq!(asked, ["/feed", "/robots.txt", "/feed", "/robots.txt", "/two"]);
}

#[tokio::test]
async fn lists_come_from_files_and_addresses() {
    let opml = r#"<opml><outline text="A" xmlUrl="https://a.example/feed"/></opml>"#;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), opml).unwrap();
    let replay = Replay::start().await.unwrap();
    replay.route("/list", [Response::body(opml)]);
    let path = file.path().to_string_lossy().into_owned();
    for location in [path.clone(), replay.url("/list")] {
        let list = super::feeds::import(&location, &settings(&replay), &context()).await.unwrap();
        assert_eq!(list.feeds[0].url, "https://a.example/feed");
    }
    let error = super::feeds::import(&replay.url("/none"), &settings(&replay), &context()).await.unwrap_err();
    assert!(error.to_string().ends_with("/none`: the server answers 404"), "{error}");
    let both = Settings { feeds: vec!["https://a.example/feed".to_owned()], opml: vec![path], ..Settings::default() };
    assert_eq!(super::feeds::feeds(&both).unwrap().feeds.len(), 1, "each once");
    std::fs::write(file.path(), opml.replace("/><", "/><outline xmlUrl='gopher://b.example/'/><")).unwrap();
    let notes = super::feeds::feeds(&both).unwrap().notes;
    assert!(notes.len() == 1 && notes[0].contains("`gopher://b.example/` is no address of a feed"), "{notes:?}");
    let none = super::feeds::discover_feeds("a.example", &settings(&replay), &context()).await.unwrap_err();
    assert!(none.to_string().contains("should be as `https://example.org/`"), "{none}");
}
