//! The cluster as a client sees it: who leads what, and connections that wait to be used again.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use contract::{Partition, Result};
use futures::future::join_all;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{FindCoordinatorRequest, MetadataRequest, TopicName};
use kafka_protocol::protocol::{Request, StrBytes};
use tokio::sync::Semaphore;

use crate::connection::{Connection, Dialer};
use crate::failure::{Failure, Outcome, check};
use crate::settings::Settings;

/// Requests under way at the same time, each on a connection of its own: reads that wait for records take one each.
const REQUESTS_MAX: usize = 64;
/// Connections to one broker that are kept for later.
const IDLE_MAX: usize = 16;
/// After this long without use a connection is not trusted: brokers close theirs after ten minutes, and what stands between
/// them and us often sooner.
const IDLE_AGE_MAX: Duration = Duration::from_secs(60);
/// After this long it is asked anew who leads what, so that new partitions are seen.
const LEADERS_AGE_MAX: Duration = Duration::from_secs(30);
/// Between two tries while a coordinator is not ready: it is within milliseconds, or within seconds.
const PAUSES_MS: [u64; 6] = [5, 10, 20, 50, 100, 250];

/// A broker's address.
type Address = (String, u16);

/// What a coordinator coordinates, as the protocol numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Coordinates {
    Group = 0,
    Transaction = 1,
}

/// A client of one cluster.
pub(crate) struct Cluster {
    dialer: Dialer,
    bootstrap: Vec<Address>,
    known: Mutex<Known>,
    requests: Semaphore,
}

#[derive(Default)]
struct Known {
    brokers: BTreeMap<i32, Address>,
    controller: i32,
    leaders: BTreeMap<String, Leaders>,
    /// The number of each topic as first met; brokers before 2.8 give them none.
    ids: BTreeMap<String, String>,
    coordinators: BTreeMap<(Coordinates, String), i32>,
    idle: HashMap<Address, Vec<Connection>>,
}

struct Leaders {
    /// Of each partition, from 0; -1 where there is none now.
    brokers: Vec<i32>,
    asked_at: Instant,
}

impl Cluster {
    /// # Errors
    /// `Change` when a setting is wrong; nothing is asked of the cluster yet.
    pub(crate) fn new(settings: Settings) -> Result<Self> {
        let bootstrap = settings.bootstrap()?;
        let dialer = Dialer::new(settings)?;
        Ok(Self { dialer, bootstrap, known: Mutex::default(), requests: Semaphore::new(REQUESTS_MAX) })
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.dialer.settings
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks any broker that answers.
    pub(crate) async fn ask_any<R: Request>(&self, request: &R) -> Outcome<R::Response> {
        let mut addresses: Vec<Address> = self.known().brokers.values().cloned().collect();
        addresses.extend(self.bootstrap.iter().cloned());
        let mut last = Failure::unheard("no broker is named");
        for address in addresses {
            match self.ask_at(&address, request, Duration::ZERO).await {
                Err(failure @ Failure::Unheard(_)) => last = failure,
                heard => return heard,
            }
        }
        Err(last)
    }

    /// Asks one broker; `wait` is for how long it may wait before it answers, beyond the time that any answer takes.
    pub(crate) async fn ask_broker<R: Request>(
        &self,
        broker: i32,
        request: &R,
        wait: Duration,
    ) -> Outcome<R::Response> {
        let address = self.known().brokers.get(&broker).cloned();
        let address = address.ok_or_else(|| Failure::unheard(format!("broker {broker} is not known")))?;
        self.ask_at(&address, request, wait).await
    }

    /// Asks the controller, which creates topics.
    pub(crate) async fn ask_controller<R: Request>(&self, request: &R) -> Outcome<R::Response> {
        self.learn(&[]).await?;
        let controller = self.known().controller;
        self.ask_broker(controller, request, Duration::ZERO).await
    }

    async fn ask_at<R: Request>(&self, address: &Address, request: &R, wait: Duration) -> Outcome<R::Response> {
        let _permit = self.requests.acquire().await.map_err(|_| Failure::unheard("the client has ended"))?;
        let limit = self.settings().request_timeout() + wait;
        let started = Instant::now();
        if let Some(mut connection) = self.take_idle(address) {
            match connection.ask(request, limit).await {
                Ok(answer) => {
                    self.keep(address, connection);
                    return Ok(answer);
                }
                // Closed while it was idle: a new one tells whether the broker is there.
                Err(Failure::Unheard(_)) if started.elapsed() < limit / 2 => {}
                Err(failure) => return Err(failure),
            }
        }
        let (host, port) = address;
        let mut connection = Connection::open(&self.dialer, host, *port).await?;
        let answer = connection.ask(request, limit).await?;
        self.keep(address, connection);
        Ok(answer)
    }

    fn take_idle(&self, address: &Address) -> Option<Connection> {
        let mut known = self.known();
        let idle = known.idle.get_mut(address)?;
        idle.retain(|connection| connection.used_at.elapsed() < IDLE_AGE_MAX);
        idle.pop()
    }

    fn keep(&self, address: &Address, connection: Connection) {
        let mut known = self.known();
        let idle = known.idle.entry(address.clone()).or_default();
        if idle.len() < IDLE_MAX {
            idle.push(connection);
        }
    }

    /// Asks who the brokers are and who leads these topics; those that are not there are then not known.
    pub(crate) async fn learn(&self, topics: &[String]) -> Outcome<()> {
        let named = topics.iter().map(|topic| MetadataRequestTopic::default().with_name(Some(name(topic))));
        let request =
            MetadataRequest::default().with_topics(Some(named.collect())).with_allow_auto_topic_creation(false);
        let answer = self.ask_any(&request).await?;
        let mut known = self.known();
        let address = |broker: &kafka_protocol::messages::metadata_response::MetadataResponseBroker| {
            Some((broker.node_id.0, (broker.host.to_string(), u16::try_from(broker.port).ok()?)))
        };
        known.brokers = answer.brokers.iter().filter_map(address).collect();
        known.controller = answer.controller_id.0;
        for topic in &answer.topics {
            let Some(name) = &topic.name else { continue };
            match check(topic.error_code, || format!("asking who leads `{}`", name.as_str())) {
                Ok(()) => {}
                Err(failure) if failure.is(&[ResponseError::UnknownTopicOrPartition]) => {
                    known.leaders.remove(name.as_str());
                    continue;
                }
                Err(failure) => return Err(failure),
            }
            if !topic.topic_id.is_nil() {
                let id = topic.topic_id.simple().to_string();
                let first = known.ids.entry(name.to_string()).or_insert_with(|| id.clone());
                if *first != id {
                    return Err(Failure::Refused(format!(
                        "`{}` was deleted and made anew meanwhile (start again: what the stores lack is collected again)",
                        name.as_str()
                    )));
                }
            }
            let mut brokers = vec![-1; topic.partitions.len()];
            for partition in &topic.partitions {
                let place = usize::try_from(partition.partition_index).ok().and_then(|place| brokers.get_mut(place));
                place.into_iter().for_each(|place| *place = partition.leader_id.0);
            }
            known.leaders.insert(name.to_string(), Leaders { brokers, asked_at: Instant::now() });
        }
        Ok(())
    }

    /// Who leads each partition of a topic, as known; none if there is no such topic.
    pub(crate) async fn leaders(&self, topic: &str) -> Outcome<Option<Vec<i32>>> {
        let known = || {
            let known = self.known();
            let leaders = known.leaders.get(topic)?;
            let is_fresh = leaders.asked_at.elapsed() < LEADERS_AGE_MAX && !leaders.brokers.contains(&-1);
            is_fresh.then(|| leaders.brokers.clone())
        };
        if let Some(brokers) = known() {
            return Ok(Some(brokers));
        }
        self.learn(&[topic.to_owned()]).await?;
        let brokers = self.known().leaders.get(topic).map(|leaders| leaders.brokers.clone());
        match brokers {
            Some(brokers) if brokers.contains(&-1) => {
                Err(Failure::unheard(format!("a partition of `{topic}` has no leader now")))
            }
            brokers => Ok(brokers),
        }
    }

    /// How many partitions a topic has.
    pub(crate) async fn partitions(&self, topic: &str) -> Outcome<Partition> {
        Ok(self.leaders(topic).await?.map_or(0, |brokers| brokers.len() as Partition))
    }

    /// The number that tells a topic from another one which had its name before; none where there is no such topic, or where
    /// the brokers number none.
    pub(crate) async fn topic_id(&self, topic: &str) -> Outcome<Option<String>> {
        let is_there = self.leaders(topic).await?.is_some();
        Ok(self.known().ids.get(topic).filter(|_| is_there).cloned())
    }

    /// After a failure: who leads a topic is asked anew.
    pub(crate) fn forget(&self, topic: &str) {
        self.known().leaders.remove(topic);
    }

    /// Asks the coordinator of `key`, again and again while it is not ready; `code` finds the error in an answer.
    pub(crate) async fn ask_coordinator<R: Request>(
        &self,
        of: Coordinates,
        key: &str,
        request: &R,
        wait: Duration,
        code: impl Fn(&R::Response) -> (i16, &'static str),
    ) -> Outcome<R::Response> {
        const MOVED: [ResponseError; 2] = [ResponseError::NotCoordinator, ResponseError::CoordinatorNotAvailable];
        const BUSY: [ResponseError; 2] =
            [ResponseError::CoordinatorLoadInProgress, ResponseError::ConcurrentTransactions];
        let until = Instant::now() + self.settings().request_timeout();
        let mut pauses = PAUSES_MS.into_iter();
        loop {
            let answered = match self.coordinator(of, key).await {
                Ok(broker) => self.ask_broker(broker, request, wait).await,
                Err(failure) => Err(failure),
            };
            let answered = answered.and_then(|answer| {
                let (code, doing) = code(&answer);
                check(code, || format!("{doing} of `{key}`")).map(|()| answer)
            });
            let failure = match answered {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let has_moved = failure.is(&MOVED) || matches!(failure, Failure::Unheard(_));
            if has_moved {
                self.known().coordinators.remove(&(of, key.to_owned()));
            }
            if !(failure.is(&MOVED) || failure.is(&BUSY)) || Instant::now() > until {
                return Err(failure);
            }
            tokio::time::sleep(Duration::from_millis(pauses.next().unwrap_or(PAUSES_MS[5]))).await;
        }
    }

    async fn coordinator(&self, of: Coordinates, key: &str) -> Outcome<i32> {
        let place = (of, key.to_owned());
        if let Some(&broker) = self.known().coordinators.get(&place) {
            return Ok(broker);
        }
        let request =
            FindCoordinatorRequest::default().with_key(StrBytes::from_string(place.1.clone())).with_key_type(of as i8);
        let answer = self.ask_any(&request).await?;
        check(answer.error_code, || format!("asking who coordinates `{key}`"))?;
        let mut known = self.known();
        if let Ok(port) = u16::try_from(answer.port) {
            known.brokers.insert(answer.node_id.0, (answer.host.to_string(), port));
        }
        known.coordinators.insert(place, answer.node_id.0);
        Ok(answer.node_id.0)
    }

    /// The brokers as last heard of.
    pub(crate) fn brokers(&self) -> Vec<i32> {
        self.known().brokers.keys().copied().collect()
    }

    /// Sends each broker its own request, side by side.
    pub(crate) async fn ask_each<R: Request>(&self, requests: BTreeMap<i32, R>) -> Outcome<Vec<R::Response>> {
        let asked = requests.iter().map(|(&broker, request)| self.ask_broker(broker, request, Duration::ZERO));
        join_all(asked).await.into_iter().collect()
    }
}

/// A topic's name as the protocol has it.
pub(crate) fn name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_owned()))
}
