//! Whose turn it is: so many requests at a time over all hosts and to one, and a pause between two to the same host.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::settings::Settings;

/// Hosts that are remembered; beyond it those go that may be asked at once. Feeds, article pages and hubs name them.
const HOSTS_MAX: usize = 10_000;

/// A caller waits this long for its turn; a longer wait is the runtime's.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// A longer pause is taken as this: beyond it nobody would get a turn.
const SPACING_MS_MAX: u64 = 60_000;

/// All hosts. Shared by everything that asks.
pub(super) struct Hosts {
    all: Arc<Semaphore>,
    hosts: Mutex<HashMap<String, Host>>,
    per_host: usize,
    spacing: Duration,
}

#[derive(Clone)]
struct Host {
    slots: Arc<Semaphore>,
    /// When the next request may start.
    next: Instant,
}

/// The right to ask; held until the answer is read.
#[derive(Debug)]
pub(super) struct Turn {
    _host: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

impl Hosts {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            all: Arc::new(Semaphore::new(settings.requests_max.clamp(1, 1_000))),
            hosts: Mutex::default(),
            per_host: settings.requests_per_host_max.clamp(1, 1_000),
            spacing: Duration::from_millis(settings.host_spacing_ms.min(SPACING_MS_MAX)),
        }
    }

    /// Waits for a turn at a host; if that takes longer than a minute, says how long.
    pub(super) async fn turn(&self, host: &str) -> Result<Turn, Duration> {
        let slots = self.host(host).slots;
        let permit = slots.acquire_owned().await.expect("never closed");
        tokio::time::sleep_until(self.reserve(host)?).await;
        let all = self.all.clone().acquire_owned().await.expect("never closed");
        Ok(Turn { _host: permit, _all: all })
    }

    /// Nobody asks the host for this long: it said so.
    pub(super) fn hold_off(&self, host: &str, wait: Duration) {
        let until = Instant::now() + wait;
        let mut hosts = self.lock();
        let next = &mut self.entry(&mut hosts, host).next;
        *next = (*next).max(until);
    }

    fn reserve(&self, host: &str) -> Result<Instant, Duration> {
        let now = Instant::now();
        let mut hosts = self.lock();
        let next = &mut self.entry(&mut hosts, host).next;
        let start = (*next).max(now);
        if start - now > WAIT_MAX {
            return Err(start - now);
        }
        *next = start + self.spacing;
        Ok(start)
    }

    fn host(&self, host: &str) -> Host {
        self.entry(&mut self.lock(), host).clone()
    }

    fn entry<'a>(&self, hosts: &'a mut HashMap<String, Host>, host: &str) -> &'a mut Host {
        if hosts.len() >= HOSTS_MAX && !hosts.contains_key(host) {
            let now = Instant::now();
            hosts.retain(|_, host| host.next > now || Arc::strong_count(&host.slots) > 1);
        }
        let fresh = || Host { slots: Arc::new(Semaphore::new(self.per_host)), next: Instant::now() };
        hosts.entry(host.to_owned()).or_insert_with(fresh)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Host>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(requests_max: usize, requests_per_host_max: usize) -> Hosts {
        Hosts::new(&Settings { requests_max, requests_per_host_max, ..Settings::default() })
    }

    #[tokio::test(start_paused = true)]
    async fn requests_to_one_host_start_a_second_apart_and_others_do_not_wait() {
        let (hosts, start) = (hosts(16, 2), Instant::now());
        for seconds in 0..4 {
            drop(hosts.turn("a.example").await.unwrap());
            assert_eq!(start.elapsed().as_secs(), seconds);
        }
        drop(hosts.turn("b.example").await.unwrap());
        assert_eq!(start.elapsed().as_secs(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_so_many_ask_at_a_time() {
        let hosts = hosts(3, 2);
        let a = [hosts.turn("a.example").await.unwrap(), hosts.turn("a.example").await.unwrap()];
        let (hosts, minutes) = (&hosts, Duration::from_secs(600));
        let waits = |host| async move { tokio::time::timeout(minutes, hosts.turn(host)).await.is_err() };
        assert!(waits("a.example").await, "two a host");
        let b = hosts.turn("b.example").await.unwrap();
        assert!(waits("c.example").await, "three over all");
        drop(b);
        assert!(!waits("c.example").await);
        drop(a);
        assert!(!waits("a.example").await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_asked_for_peace_is_left_alone_for_as_long() {
        let hosts = hosts(16, 2);
        hosts.hold_off("a.example", Duration::from_secs(3_600));
        assert_eq!(hosts.turn("a.example").await.unwrap_err(), Duration::from_secs(3_600));
        tokio::time::advance(Duration::from_secs(3_590)).await;
        drop(hosts.turn("a.example").await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn hosts_are_forgotten_when_there_are_too_many() {
        let hosts = hosts(16, 2);
        hosts.hold_off("slow.example", Duration::from_secs(7_200));
        for number in 0..2 * HOSTS_MAX {
            drop(hosts.turn(&format!("{number}.example")).await.unwrap());
            if number % 5_000 == 0 {
                tokio::time::advance(Duration::from_secs(2)).await;
            }
        }
        assert!(hosts.lock().len() <= HOSTS_MAX + 1);
        assert!(hosts.turn("slow.example").await.is_err());
    }
}
