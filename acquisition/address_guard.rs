//! Keeps requests to addresses that a user, a feed or a redirect names inside the public Internet: a guard against
//! server-side request forgery.
//!
//! | way around | what is done |
//! | --- | --- |
//! | a name that points to a private address, also only at its second look-up (DNS rebinding) | the guard is the client's resolver: the addresses it checked are those that are connected to |
//! | an address in the URL, also as `0x7f.1`, `2130706433` or `[::ffff:127.0.0.1]` | the URL's parser gives all one form; [`AddressGuard::check`] judges it |
//! | an IPv4 address inside an IPv6 one (mapped, NAT64, 6to4) | judged as the IPv4 address |
//! | a redirect | the caller follows redirects itself and has each target checked |
//! | `file:`, `gopher:`, `user:password@`, port 22 | refused by [`AddressGuard::check`] |
//!
//! What is not public: the IANA special-purpose registries
//! (<https://www.iana.org/assignments/iana-ipv4-special-registry>, <https://www.iana.org/assignments/iana-ipv6-special-registry>).
//! A proxy resolves names itself: behind one, the proxy must refuse inner addresses.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;

use contract::{SourceId, metric};
use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Asks for the addresses of a name.
type Lookup = Arc<dyn Fn(String) -> Answering + Send + Sync>;

/// The addresses of a name, once they are there.
type Answering = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// Judges URLs before a request and addresses before a connection. Give it to a client as its resolver.
#[derive(Clone)]
pub(crate) struct AddressGuard {
    source: SourceId,
    allows_private: bool,
    /// Ports that may be asked; empty allows all.
    ports: Arc<[u16]>,
    lookup: Lookup,
}

/// Why a request was not made; reads after what was tried: "`10.0.0.1` is a private address (…)".
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl StdError for Refused {}

impl Refused {
    /// The refusal behind a failed request, if that is why it failed.
    pub(crate) fn behind<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Self> {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(refused) = error.downcast_ref() {
                return Some(refused);
            }
            cause = error.source();
        }
        None
    }
}

impl AddressGuard {
    /// A guard for the requests of `source`, by its settings `allow_private_addresses` and `ports`.
    pub(crate) fn new(source: SourceId, allows_private: bool, ports: &[u16]) -> Self {
        let lookup: Lookup = Arc::new(|name| Box::pin(system_lookup(name)));
        Self { source, allows_private, ports: ports.into(), lookup }
    }

    /// Whether a URL may be asked, as far as it says itself. Names are judged when they are resolved.
    pub(crate) fn check(&self, url: &Url) -> Result<(), Refused> {
        if !matches!(url.scheme(), "http" | "https") {
            return self
                .refuse("scheme", format!("`{}:` is no scheme to fetch from (should be https or http)", url.scheme()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return self.refuse("userinfo", "the URL holds a user name or password (should have none)".to_owned());
        }
        let port = url.port_or_known_default().unwrap_or_default();
        if !self.ports.is_empty() && !self.ports.contains(&port) {
            let right = format!("see `{}.ports`", self.source);
            return self.refuse("port", format!("port {port} may not be asked ({right})"));
        }
        let host = url.host_str().unwrap_or_default();
        match host.trim_start_matches('[').trim_end_matches(']').parse() {
            Ok(address) => self.judge(address),
            Err(_) => Ok(()),
        }
    }

    fn judge(&self, address: IpAddr) -> Result<(), Refused> {
        let Some(range) = reserved_range(address).filter(|_| !self.allows_private) else { return Ok(()) };
        let setting = format!("`{}.allow_private_addresses` would allow it", self.source);
        self.refuse(range, format!("`{address}` is no public address but {range} ({setting})"))
    }

    fn refuse(&self, why: &str, reason: String) -> Result<(), Refused> {
        metric::ADDRESSES_REFUSED.add(&[self.source.0, why], 1);
        Err(Refused(reason))
    }

    /// The public ones of a name's addresses; an error if there are none.
    fn only_public(&self, name: &str, found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Refused> {
        let mut refused = Refused(format!("`{name}` has no address"));
        let mut public = Vec::with_capacity(found.len());
        for address in found {
            match self.judge(address.ip()) {
                Ok(()) => public.push(address),
                Err(Refused(reason)) => refused = Refused(format!("`{name}` leads astray: {reason}")),
            }
        }
        if public.is_empty() { Err(refused) } else { Ok(public) }
    }
}

impl Resolve for AddressGuard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let found = (guard.lookup)(name.as_str().to_owned()).await?;
            let public = guard.only_public(name.as_str(), found)?;
            Ok(Box::new(public.into_iter()) as Addrs)
        })
    }
}

async fn system_lookup(name: String) -> io::Result<Vec<SocketAddr>> {
    // The port is the client's to set.
    Ok(tokio::net::lookup_host((name, 0)).await?.collect())
}

/// What an address is if it is not public.
fn reserved_range(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => reserved_v4(address),
        IpAddr::V6(address) => match embedded_v4(address) {
            Some(inner) => reserved_v4(inner),
            None => reserved_v6(address),
        },
    }
}

/// The IPv4 address that an IPv6 one stands for: mapped (RFC 4291), NAT64 (RFC 6052), 6to4 (RFC 3056).
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let low = Ipv4Addr::from((u32::from(g) << 16) | u32::from(h));
    match (a, b) {
        (0, 0) if (c, d, e, f) == (0, 0, 0, 0xffff) => Some(low),
        (0x64, 0xff9b) if (c, d, e, f) == (0, 0, 0, 0) => Some(low),
        (0x2002, _) => Some(Ipv4Addr::from((u32::from(b) << 16) | u32::from(c))),
        _ => None,
    }
}

fn reserved_v4(address: Ipv4Addr) -> Option<&'static str> {
    let bits = u32::from(address);
    let is_in = |&&(start, length, _): &&(Ipv4Addr, u32, &str)| (bits ^ u32::from(start)) >> (32 - length) == 0;
    V4_RANGES.iter().find(is_in).map(|&(_, _, name)| name)
}

fn reserved_v6(address: Ipv6Addr) -> Option<&'static str> {
    let bits = u128::from(address);
    let is_in = |&&(start, length, _): &&(Ipv6Addr, u32, &str)| (bits ^ u128::from(start)) >> (128 - length) == 0;
    let named = V6_RANGES.iter().find(is_in).map(|&(_, _, name)| name);
    // RFC 4291, section 2.4: what is assigned lies in 2000::/3.
    let is_assigned = bits >> 125 == 1;
    named.or((!is_assigned).then_some("unassigned"))
}

const V4_RANGES: &[(Ipv4Addr, u32, &str)] = &[
    (Ipv4Addr::new(0, 0, 0, 0), 8, "this network"),
    (Ipv4Addr::new(10, 0, 0, 0), 8, "private"),
    (Ipv4Addr::new(100, 64, 0, 0), 10, "carrier-grade NAT"),
    (Ipv4Addr::new(127, 0, 0, 0), 8, "loopback"),
    // The host of virtual machines on Azure, which answers them with secrets; public by its number only.
    (Ipv4Addr::new(168, 63, 129, 16), 32, "a cloud's own"),
    (Ipv4Addr::new(169, 254, 0, 0), 16, "link-local"),
    (Ipv4Addr::new(172, 16, 0, 0), 12, "private"),
    (Ipv4Addr::new(192, 0, 0, 0), 24, "protocol assignments"),
    (Ipv4Addr::new(192, 0, 2, 0), 24, "documentation"),
    (Ipv4Addr::new(192, 88, 99, 0), 24, "6to4 relays"),
    (Ipv4Addr::new(192, 168, 0, 0), 16, "private"),
    (Ipv4Addr::new(198, 18, 0, 0), 15, "benchmarking"),
    (Ipv4Addr::new(198, 51, 100, 0), 24, "documentation"),
    (Ipv4Addr::new(203, 0, 113, 0), 24, "documentation"),
    (Ipv4Addr::new(224, 0, 0, 0), 4, "multicast"),
    (Ipv4Addr::new(240, 0, 0, 0), 4, "reserved"),
];

const V6_RANGES: &[(Ipv6Addr, u32, &str)] = &[
    (Ipv6Addr::UNSPECIFIED, 128, "this network"),
    (Ipv6Addr::LOCALHOST, 128, "loopback"),
    (Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0, 0), 48, "local NAT64"),
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23, "protocol assignments"),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32, "documentation"),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20, "documentation"),
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7, "unique local"),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10, "link-local"),
    (Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0), 10, "site-local"),
    (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8, "multicast"),
];

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const NEWS: SourceId = SourceId("news");

    fn refusal(url: &str) -> Option<String> {
        let guard = AddressGuard::new(NEWS, false, &[80, 443]);
        guard.check(&Url::parse(url).unwrap()).err().map(|refused| refused.to_string())
    }

    #[test]
    fn addresses_inside_are_refused_in_every_form() {
        for (url, range) in [
            ("http://127.0.0.1/", "loopback"),
            ("http://0x7f.1/", "loopback"),
            ("http://2130706433/", "loopback"),
            ("http://0177.0.0.1/", "loopback"),
            ("http://127.1/", "loopback"),
            ("http://%31%32%37.0.0.1/", "loopback"),
            ("http://１２７。0。0。1/", "loopback"),
            ("http://0.0.0.0/", "this network"),
            ("http://10.1.2.3/", "private"),
            ("http://172.31.255.255/", "private"),
            ("http://192.168.0.1/", "private"),
            ("http://100.100.100.200/", "carrier-grade NAT"),
            ("http://169.254.169.254/latest/meta-data", "link-local"),
            ("http://192.0.2.1/", "documentation"),
            ("http://224.0.0.251/", "multicast"),
            ("http://255.255.255.255/", "reserved"),
            ("http://[::1]/", "loopback"),
            ("http://[::]/", "this network"),
            ("http://[::ffff:127.0.0.1]/", "loopback"),
            ("http://[::ffff:a00:1]/", "private"),
            ("http://[::127.0.0.1]/", "unassigned"),
            ("http://[64:ff9b::10.0.0.1]/", "private"),
            ("http://[64:ff9b:1::1]/", "local NAT64"),
            ("http://[2002:7f00:1::1]/", "loopback"),
            ("http://[2001:0:7f00:1::1]/", "protocol assignments"),
            ("http://[2001:db8::1]/", "documentation"),
            ("http://[3fff::1]/", "documentation"),
            ("http://[fd00:ec2::254]/", "unique local"),
            ("http://[fe80::1]/", "link-local"),
            ("http://[fec0::1]/", "site-local"),
            ("http://[ff02::fb]/", "multicast"),
            ("http://[4000::1]/", "unassigned"),
        ] {
            let said = refusal(url).unwrap_or_else(|| panic!("{url} is taken"));
            assert!(said.contains(&format!("is no public address but {range} (")), "{url}: {said}");
        }
    }

    #[test]
    fn public_addresses_and_names_are_taken() {
        for url in [
            "https://example.com/feed",
            "http://1.1.1.1/",
            "http://172.32.0.1/",
            "http://100.128.0.1/",
            "http://[2606:4700::1111]/",
            "http://[64:ff9b::1.1.1.1]/",
            "http://[::ffff:1.1.1.1]/",
        ] {
            assert_eq!(refusal(url), None, "{url}");
        }
    }

    #[test]
    fn schemes_user_names_and_odd_ports_are_refused() {
        for (url, said) in [
            ("file:///etc/passwd", "`file:` is no scheme to fetch from (should be https or http)"),
            ("gopher://example.com/", "`gopher:` is no scheme to fetch from (should be https or http)"),
            ("http://user@example.com/", "the URL holds a user name or password (should have none)"),
            ("http://:word@example.com/", "the URL holds a user name or password (should have none)"),
            ("http://example.com:22/", "port 22 may not be asked (see `news.ports`)"),
        ] {
            assert_eq!(refusal(url).as_deref(), Some(said));
        }
        let any_port = AddressGuard::new(NEWS, false, &[]);
        assert_eq!(any_port.check(&Url::parse("http://example.com:8000/").unwrap()), Ok(()));
    }

    /// A client whose names lead where `lookup` says, without a proxy on the way.
    fn client(guard: AddressGuard) -> reqwest::Client {
        reqwest::Client::builder().no_proxy().dns_resolver(Arc::new(guard)).build().unwrap()
    }

    #[tokio::test]
    async fn a_name_that_changes_its_address_is_judged_at_each_look_up() {
        let lookups = Arc::new(AtomicUsize::new(0));
        let counted = lookups.clone();
        let mut guard = AddressGuard::new(NEWS, false, &[]);
        guard.lookup = Arc::new(move |_| {
            let inside = ["10.0.0.1:0", "[::1]:0", "127.0.0.1:0"][counted.fetch_add(1, Ordering::SeqCst) % 3];
            Box::pin(async move { Ok(vec![inside.parse().unwrap()]) })
        });
        let url = Url::parse("http://rebind.example/").unwrap();
        assert_eq!(guard.check(&url), Ok(()), "the name itself says nothing");
        let client = client(guard);
        for range in ["private", "loopback", "loopback"] {
            let error = client.get(url.clone()).send().await.unwrap_err();
            let refused = Refused::behind(&error).unwrap_or_else(|| panic!("{error:?}")).to_string();
            assert!(refused.starts_with("`rebind.example` leads astray: "), "{refused}");
            assert!(refused.contains(range), "{refused}");
        }
        assert_eq!(lookups.load(Ordering::SeqCst), 3);
    }

    #[test]
    fn of_several_addresses_only_the_public_ones_are_connected_to() {
        let guard = AddressGuard::new(NEWS, false, &[]);
        let found = ["10.0.0.1:0", "1.1.1.1:0", "[fe80::1]:0"].map(|address| address.parse().unwrap());
        assert_eq!(guard.only_public("mixed.example", found.to_vec()), Ok(vec![found[1]]));
        let none = guard.only_public("none.example", Vec::new()).unwrap_err();
        assert_eq!(none.to_string(), "`none.example` has no address");
    }

    #[tokio::test]
    async fn a_private_address_is_reached_only_where_it_is_allowed() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let url = format!("http://localhost:{port}/");
        let refused = client(AddressGuard::new(NEWS, false, &[])).get(&url).send().await.unwrap_err();
        assert!(Refused::behind(&refused).is_some(), "{refused:?}");
        let allowed = client(AddressGuard::new(NEWS, true, &[]));
        let (request, accepted) = tokio::join!(allowed.get(&url).send(), async {
            let (socket, _) = listener.accept().await.unwrap();
            drop(socket);
        });
        let ((), error) = (accepted, request.unwrap_err());
        assert!(Refused::behind(&error).is_none(), "{error:?}");
    }

    #[tokio::test]
    async fn an_allowed_name_that_redirects_to_an_inner_one_leads_nowhere() {
        let replay = crate::replay::Server::answering(|_| {
            crate::replay::Response::status(302).with("Location", "http://inner.example/secret")
        });
        let replay = replay.await.unwrap();
        let port = Url::parse(&replay.base_url()).unwrap().port().unwrap();
        // The test's own server stands for the public one: its name is let through, the other is judged.
        let mut guard = AddressGuard::new(NEWS, false, &[]);
        guard.lookup = Arc::new(|name| {
            let address = if name == "inner.example" { "10.0.0.1:0" } else { "1.1.1.1:0" };
            Box::pin(async move { Ok(vec![address.parse().unwrap()]) })
        });
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .dns_resolver(Arc::new(guard.clone()))
            .resolve("outer.example", SocketAddr::from(([127, 0, 0, 1], port)))
            .build()
            .unwrap();
        let answer = client.get(format!("http://outer.example:{port}/")).send().await.unwrap();
        let target = Url::parse(answer.headers()["location"].to_str().unwrap()).unwrap();
        assert_eq!(guard.check(&target), Ok(()), "the name itself says nothing");
        let error = client.get(target).send().await.unwrap_err();
        let refused = Refused::behind(&error).unwrap_or_else(|| panic!("{error:?}")).to_string();
        assert!(refused.starts_with("`inner.example` leads astray: `10.0.0.1` is no public address"), "{refused}");
        assert_eq!(replay.requests().len(), 1);
    }
}
