//! A server that behaves as arXiv does, on loopback: for tests of the collectors and of the whole program.
//!
//! It has papers `1, 2, 3…`, so many for each day, and shows them by OAI-PMH at `/oai`, by the export API at
//! `/api/query`, and those of the newest day as a listing below `/rss/`.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use contract::{Day, Timestamp};

use crate::replay::Server;
pub use crate::replay::{Fault, Request, Response};

/// The papers there are.
#[derive(Clone, Copy, Debug)]
pub struct Archive {
    /// Day of paper 1.
    pub first_day: Day,
    /// Papers of a day.
    pub papers_per_day: u64,
    /// Papers there are before the first request.
    pub papers: u64,
    /// Records of one page of OAI-PMH.
    pub page_size: usize,
}

impl Archive {
    /// The id of a paper.
    pub fn id(number: u64) -> String {
        format!("2501.{number:05}")
    }

    /// The day of a paper.
    pub fn day(&self, number: u64) -> Day {
        let days = (number.saturating_sub(1)) / self.papers_per_day.max(1);
        Day(self.first_day.0.saturating_add(i32::try_from(days).unwrap_or(i32::MAX)))
    }

    /// When a paper was submitted: a second after the one before.
    pub fn time(&self, number: u64) -> Timestamp {
        let second = (number.saturating_sub(1)) % self.papers_per_day.max(1);
        Timestamp(self.day(number).start().0 + i64::try_from(second % 86_400).unwrap_or(0) * 1_000_000)
    }

    /// The record of a paper, in the format `arXivRaw`.
    pub fn record(&self, number: u64) -> String {
        let (id, day, time) = (Self::id(number), self.day(number), self.time(number));
        format!(
            "<record><header><identifier>oai:arXiv.org:{id}</identifier><datestamp>{day}</datestamp>\
             <setSpec>cs</setSpec></header><metadata><arXivRaw><id>{id}</id><submitter>Ada Example</submitter>\
             <version version=\"v1\"><date>{time}</date><size>10kb</size></version><title>Paper {number}</title>\
             <authors>Ada Example and Bob de Sample</authors><categories>cs.AI</categories>\
             <abstract>  About {number}.</abstract></arXivRaw></metadata></record>"
        )
    }

    fn entry(&self, number: u64) -> String {
        let (id, time) = (Self::id(number), self.time(number));
        format!(
            "<entry><id>http://arxiv.org/abs/{id}v1</id><title>Paper {number}</title><updated>{time}</updated>\
             <published>{time}</published><author><name>Ada Example</name></author><category term=\"cs.AI\"/></entry>"
        )
    }

    fn item(&self, number: u64) -> String {
        let (id, day) = (Self::id(number), self.day(number).start());
        format!(
            "<item><title>Paper {number}</title><link>https://arxiv.org/abs/{id}</link><description>arXiv:{id}v1 \
             Announce Type: new \nAbstract: About {number}.</description><guid>oai:arXiv.org:{id}v1</guid>\
             <category>cs.AI</category><pubDate>{day}</pubDate><dc:creator>Ada Example</dc:creator></item>"
        )
    }
}

/// The server; it ends when dropped.
#[derive(Debug)]
pub struct Replay {
    server: Server,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    archive: Archive,
    /// Tokens of another one have expired.
    token_generation: u32,
    /// What is answered first.
    next: VecDeque<Response>,
}

impl Replay {
    /// Answers as the archive does.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start(archive: Archive) -> io::Result<Self> {
        let state = Arc::new(Mutex::new(State { archive, token_generation: 0, next: VecDeque::new() }));
        let shared = state.clone();
        let server = Server::answering(move |request| lock(&shared).answer(request)).await?;
        Ok(Self { server, state })
    }

    /// For the setting `arxiv.oai_url`.
    pub fn oai_url(&self) -> String {
        format!("{}/oai", self.server.base_url())
    }

    /// For the setting `arxiv.api_url`.
    pub fn api_url(&self) -> String {
        format!("{}/api/query", self.server.base_url())
    }

    /// For the setting `arxiv.listing_url`.
    pub fn listing_url(&self) -> String {
        format!("{}/rss/", self.server.base_url())
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.server.requests()
    }

    /// Lets papers come.
    pub fn grow(&self, count: u64) {
        lock(&self.state).archive.papers += count;
    }

    /// Lets all resumption tokens expire.
    pub fn expire_tokens(&self) {
        lock(&self.state).token_generation += 1;
    }

    /// Answers the next request that comes, after those said before, with this.
    pub fn answer_next(&self, response: Response) {
        lock(&self.state).next.push_back(response);
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn page(body: String) -> Response {
    let headers = vec![("Content-Type", "text/xml; charset=utf-8".to_owned())];
    Response { headers, body: body.into_bytes(), ..Response::default() }
}

impl State {
    fn answer(&mut self, request: &Request) -> Response {
        if let Some(response) = self.next.pop_front() {
            return response;
        }
        match request.target.split('?').next().unwrap_or_default() {
            "/oai" => page(
                self.list_records(request).unwrap_or_else(|code| oai(&format!("<error code=\"{code}\">no</error>"))),
            ),
            "/api/query" => page(self.feed(request)),
            _ => self.listing(request),
        }
    }

    /// Source: <https://www.openarchives.org/OAI/openarchivesprotocol.html#ListRecords>.
    fn list_records(&self, request: &Request) -> Result<String, &'static str> {
        let query = |name| request.query(name).ok_or("badArgument");
        let (from, until, start) = match request.query("resumptionToken") {
            None => (query("from")?, query("until")?, 0),
            Some(token) => {
                let parts: Vec<&str> = token.split('_').collect();
                let [generation, from, until, start] = parts[..] else { return Err("badResumptionToken") };
                if generation != self.token_generation.to_string() {
                    return Err("badResumptionToken");
                }
                (from, until, start.parse().map_err(|_| "badResumptionToken")?)
            }
        };
        let [from_day, until_day] = [from, until].map(Day::parse);
        let (from_day, until_day) = (from_day.ok_or("badArgument")?, until_day.ok_or("badArgument")?);
        let is_in = |number: &u64| (from_day..=until_day).contains(&self.archive.day(*number));
        let all: Vec<u64> = (1..=self.archive.papers).filter(is_in).collect();
        if all.is_empty() {
            return Err("noRecordsMatch");
        }
        let end = all.len().min(start + self.archive.page_size);
        let records: Vec<String> = all[start.min(end)..end].iter().map(|&number| self.archive.record(number)).collect();
        let token = match end == all.len() {
            true => String::new(),
            false => format!("{}_{from}_{until}_{end}", self.token_generation),
        };
        let token =
            format!("<resumptionToken cursor=\"{start}\" completeListSize=\"{}\">{token}</resumptionToken>", all.len());
        Ok(oai(&format!("<ListRecords>{}\n{token}</ListRecords>", records.join("\n"))))
    }

    fn feed(&self, request: &Request) -> String {
        let number = |name, default| request.query(name).and_then(|text| text.parse().ok()).unwrap_or(default);
        let (start, count): (u64, u64) = (number("start", 0), number("max_results", 10));
        let (total, newest) = (self.archive.papers, self.archive.papers.saturating_sub(start));
        let mut feed = format!("<feed><opensearch:totalResults>{total}</opensearch:totalResults>");
        for number in (newest.saturating_sub(count) + 1..=newest).rev() {
            feed.push_str(&self.archive.entry(number));
        }
        feed + "</feed>"
    }

    fn listing(&self, request: &Request) -> Response {
        let etag = format!("\"{}\"", self.archive.papers);
        if request.header("if-none-match") == Some(&etag) {
            return Response { status: 304, ..Response::default() };
        }
        let today = self.archive.day(self.archive.papers);
        let mut listing = format!("<rss><channel><pubDate>{}</pubDate>", today.start());
        for number in (1..=self.archive.papers).filter(|&number| self.archive.day(number) == today) {
            // A string takes all.
            let _written = write!(listing, "{}", self.archive.item(number));
        }
        let mut response = page(listing + "</channel></rss>");
        response.headers.push(("ETag", etag));
        response
    }
}

fn oai(content: &str) -> String {
    format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<OAI-PMH>{content}</OAI-PMH>\n")
}
