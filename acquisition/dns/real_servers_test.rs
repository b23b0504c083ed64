//! Live collection from real servers on this machine: unbound, Knot DNS and BIND with dnstap, and their traffic captured
//! beside tshark. Needs root and Debian's packages `unbound knot knot-module-dnstap knot-dnsutils bind9 tshark iproute2`, so it is behind
//! a feature: `cargo test -p acquisition --features real-servers --lib real_servers`.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use contract::{Collector, CoverageKind, Cursor, RawRecord};
use tokio::time::{Instant, sleep};

use super::dnstap::Dnstap;
use super::settings::Settings;
use super::taps::collectors;
use crate::Context;

/// For anything here to happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a message says: id, whether it is a response, RCODE, QNAME, QTYPE.
type Said = (u16, bool, u8, String, u16);

/// A program that ends with the test.
struct Running(Child);

impl Running {
    fn start(command: &str, arguments: &[&str], log: &Path) -> Self {
        let log = std::fs::File::create(log).unwrap();
        let child = Command::new(command)
            .args(arguments)
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .stdin(Stdio::null())
            .spawn();
        Self(child.unwrap_or_else(|error| panic!("this test needs `{command}`: {error}")))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.0.kill().and_then(|()| self.0.wait());
    }
}

/// Runs a program to its end.
fn run(command: &str, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(command).args(arguments).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("this test needs `{command}`: {error}"));
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The same on a thread of its own, so that the collector is polled meanwhile.
async fn run_beside(command: &'static str, arguments: Vec<String>) -> (bool, String) {
    let run = move || run(command, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    tokio::task::spawn_blocking(run).await.unwrap()
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

async fn until_it_answers(address: &str, port: u16) {
    let since = Instant::now();
    let ask = words(&format!("@{address} -p {port} +timeout=1 +retry=0 ready.example.test A"));
    while !run_beside("kdig", ask.clone()).await.1.contains("NOERROR") {
        assert!(since.elapsed() < PATIENCE, "the server at {address} port {port} does not answer");
    }
}

struct Live {
    collector: Box<dyn Collector>,
    cursor: Cursor,
    records: Vec<RawRecord>,
    missed: Vec<String>,
}

impl Live {
    async fn open(settings: &Settings) -> Self {
        let mut all = collectors(settings, &Context::default()).unwrap();
        let mut live =
            Self { collector: all.remove(0), cursor: Cursor::default(), records: Vec::new(), missed: Vec::new() };
        live.poll().await;
        live
    }

    async fn poll(&mut self) {
        let harvest = self.collector.poll(&self.cursor).await.unwrap();
        self.cursor = harvest.cursor;
        self.records.extend(harvest.records);
        let missed = harvest.coverage.into_iter().filter(|line| line.kind == CoverageKind::Missed);
        self.missed.extend(missed.map(|line| format!("{}: {}", line.reason, line.records)));
    }

    /// Polls until so many messages about names with this start came.
    async fn poll_until(&mut self, start: &str, count: usize) -> Vec<Said> {
        let since = Instant::now();
        loop {
            let mut said = self.said();
            said.retain(|(_, _, _, name, _)| name.starts_with(start));
            if said.len() >= count {
                return said;
            }
            assert!(since.elapsed() < PATIENCE, "{} of {count} messages came: {said:?}", said.len());
            self.poll().await;
        }
    }

    fn said(&self) -> Vec<Said> {
        self.records.iter().map(|record| said(Dnstap::read(&record.body).unwrap().dns().unwrap())).collect()
    }
}

fn said(dns: &[u8]) -> Said {
    let number = |at: usize| u16::from_be_bytes([dns[at], dns[at + 1]]);
    let (mut name, mut at) = (String::new(), 12);
    while number(4) > 0 && dns[at] > 0 {
        let end = at + 1 + usize::from(dns[at]);
        name.push_str(&String::from_utf8_lossy(&dns[at + 1..end]).to_lowercase());
        name.push(if dns[end] > 0 { '.' } else { ' ' });
        at = end;
    }
    let qtype = if number(4) > 0 { number(at + 1) } else { 0 };
    (number(0), dns[2] & 0x80 != 0, dns[3] & 0xf, name.trim_end().to_owned(), qtype)
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn write_zone(folder: &Path) {
    let large = (0..16).map(|number| format!("large TXT \"{number:0>200}\"\n")).collect::<String>();
    let zone = format!(
        "$ORIGIN example.test.\n$TTL 60\n@ SOA ns h 1 60 60 60 60\n@ NS ns\nns A 192.0.2.1\n* A 192.0.2.1\n{large}"
    );
    std::fs::write(folder.join("zone"), zone).unwrap();
}

fn knot(folder: &Path, listen: &str, tap: &str) -> (&'static str, Vec<String>) {
    write_zone(folder);
    let at = folder.display();
    let module = if tap.is_empty() { "" } else { "    global-module: mod-dnstap/tap\n" };
    let tap = if tap.is_empty() {
        String::new()
    } else {
        format!("mod-dnstap:\n  - id: tap\n    sink: \"unix:{tap}\"\n    log-queries: on\n    log-responses: on\n")
    };
    let text = format!(
        "server:\n    rundir: \"{at}\"\n    listen: [{listen}]\n    udp-max-payload: 4096\ndatabase:\n    storage: \"{at}\"\n\
         log:\n  - target: stderr\n    any: info\n{tap}\
         template:\n  - id: default\n    storage: \"{at}\"\n{module}zone:\n  - domain: example.test\n    file: zone\n"
    );
    std::fs::write(folder.join("knot.conf"), text).unwrap();
    ("knotd", vec!["-c".to_owned(), format!("{at}/knot.conf")])
}

fn bind(folder: &Path, port: u16, tap: &str) -> (&'static str, Vec<String>) {
    write_zone(folder);
    let at = folder.display();
    let text = format!(
        "options {{ directory \"{at}\"; pid-file \"{at}/pid\"; session-keyfile \"{at}/key\"; \
         listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; recursion no; dnssec-validation no; \
         dnstap {{ auth; client; }}; dnstap-output unix \"{tap}\"; }};\ncontrols {{ }};\n\
         zone \"example.test\" {{ type primary; file \"zone\"; }};\n"
    );
    std::fs::write(folder.join("named.conf"), text).unwrap();
    ("named", vec!["-g".to_owned(), "-c".to_owned(), format!("{at}/named.conf")])
}

/// `tap`: lines of its section `dnstap`, which is left out without any.
fn unbound(folder: &Path, port: u16, tap: &str) -> (&'static str, Vec<String>) {
    let at = folder.display();
    let tap = match tap {
        "" => String::new(),
        tap => format!(
            "dnstap:\n  dnstap-enable: yes\n  dnstap-bidirectional: yes\n  dnstap-log-client-query-messages: yes\n\
             \x20 dnstap-log-client-response-messages: yes\n{tap}"
        ),
    };
    let text = format!(
        "server:\n  directory: \"{at}\"\n  chroot: \"\"\n  username: \"\"\n  pidfile: \"{at}/pid\"\n  use-syslog: no\n\
         \x20 do-daemonize: no\n  interface: 127.0.0.1\n  port: {port}\n  local-zone: \"example.test.\" redirect\n\
         \x20 local-data: \"example.test. A 192.0.2.1\"\nremote-control:\n  control-enable: no\n{tap}"
    );
    std::fs::write(folder.join("unbound.conf"), text).unwrap();
    ("unbound", vec!["-d".to_owned(), "-c".to_owned(), format!("{at}/unbound.conf")])
}

/// Asks 50 questions over UDP and TCP, and expects each and its answer, with the time between.
async fn assert_tapped(live: &mut Live, server: (&'static str, Vec<String>), folder: &Path, port: u16) {
    let arguments: Vec<&str> = server.1.iter().map(String::as_str).collect();
    let _server = Running::start(server.0, &arguments, &folder.join("log"));
    until_it_answers("127.0.0.1", port).await;
    for (transport, from, to) in [("+notcp", 0, 30), ("+tcp +keepopen", 30, 50)] {
        let names: String = (from..to).map(|number| format!(" q{number}.example.test A")).collect();
        assert!(run_beside("kdig", words(&format!("@127.0.0.1 -p {port} {transport}{names}"))).await.0);
    }
    let said = live.poll_until("q", 100).await;
    let count = |is_response| said.iter().filter(|said| said.1 == is_response).count();
    assert_eq!((count(false), count(true), said.len()), (50, 50, 100), "{}", server.0);
    let late = live.records.iter().map(|record| Dnstap::read(&record.body).unwrap());
    let responses: Vec<_> = late.filter(|dnstap| dnstap.message_type.is_response()).collect();
    let unpaired: Vec<_> = responses.iter().filter(|dnstap| dnstap.query_time.is_none()).collect();
    assert!(responses.len() >= 50 && unpaired.is_empty(), "{}: {unpaired:?}", server.0);
    assert_eq!(live.missed, Vec::<String>::new());
    println!("{}: {} messages about our names, {} in all", server.0, said.len(), live.records.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn real_servers_send_dnstap_to_a_unix_socket() {
    for name in ["knotd", "named", "unbound"] {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("dnstap.sock").display().to_string();
        let mut live = Live::open(&Settings { listeners: vec![format!("unix:{socket}")], ..Settings::default() }).await;
        let port = free_port();
        let server = match name {
            "knotd" => knot(folder.path(), &format!("127.0.0.1@{port}"), &socket),
            "named" => bind(folder.path(), port, &socket),
            _ => unbound(folder.path(), port, &format!("  dnstap-socket-path: \"{socket}\"\n")),
        };
        assert_tapped(&mut live, server, folder.path(), port).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn real_servers_send_dnstap_over_tcp() {
    let folder = tempfile::tempdir().unwrap();
    let (tap, port) = (free_port(), free_port());
    let listeners = vec![format!("tcp:127.0.0.1:{tap}")];
    let mut live = Live::open(&Settings { listeners, ..Settings::default() }).await;
    let server = unbound(
        folder.path(),
        port,
        &format!("  dnstap-socket-path: \"\"\n  dnstap-ip: \"127.0.0.1@{tap}\"\n  dnstap-tls: no\n"),
    );
    assert_tapped(&mut live, server, folder.path(), port).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn real_servers_send_dnstap_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let (tap, port) = (free_port(), free_port());
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(file("certificate.pem"), made.cert.pem()).unwrap();
    std::fs::write(file("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let mut live = Live::open(&Settings {
        listeners: vec![format!("tls:127.0.0.1:{tap}")],
        tls_certificate_file: file("certificate.pem"),
        tls_key_file: file("key.pem"),
        ..Settings::default()
    })
    .await;
    let trust = format!(
        "  dnstap-socket-path: \"\"\n  dnstap-ip: \"127.0.0.1@{tap}\"\n  dnstap-tls: yes\n  dnstap-tls-server-name: \"localhost\"\n  dnstap-tls-cert-bundle: \"{}\"\n",
        file("certificate.pem")
    );
    assert_tapped(&mut live, unbound(folder.path(), port, &trust), folder.path(), port).await;
}

/// A namespace with a server in it, and a pair of interfaces that leads there; gone with the test.
struct Namespace;

impl Namespace {
    const NAME: &'static str = "databroker-dns";
    const INTERFACE: &'static str = "dbdns0";

    fn make() -> Self {
        drop(Self);
        let commands = [
            "netns add databroker-dns",
            "link add dbdns0 type veth peer name dbdns1 netns databroker-dns",
            "address add 10.77.53.1/30 dev dbdns0",
            "address add fd00:77:53::1/64 dev dbdns0 nodad",
            "link set dbdns0 up",
            "-n databroker-dns address add 10.77.53.2/30 dev dbdns1",
            "-n databroker-dns address add fd00:77:53::2/64 dev dbdns1 nodad",
            "-n databroker-dns link set dbdns1 up",
            "-n databroker-dns link set lo up",
        ];
        for command in commands {
            let arguments: Vec<&str> = command.split(' ').collect();
            assert!(run("ip", &arguments).0, "ip {command}");
        }
        Self
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Those of a test that was killed, or none.
        let _ended = (run("ip", &["netns", "del", Self::NAME]), run("ip", &["link", "del", Self::INTERFACE]));
    }
}

/// What tshark read from the same interface at the same time.
fn tshark_said(file: &str, port: u16) -> Vec<Said> {
    let ports = [format!("udp.port=={port},dns"), format!("tcp.port=={port},dns")];
    let fields = ["dns.id", "dns.flags.response", "dns.flags.rcode", "dns.qry.name", "dns.qry.type"];
    let mut arguments = vec!["-r", file, "-d", &ports[0], "-d", &ports[1], "-Y", "dns", "-T", "fields"];
    // Several messages of one segment stand in one line, at the same place of each field.
    arguments.extend(fields.iter().flat_map(|field| ["-e", field]));
    arguments.extend(["-E", "aggregator=,"]);
    let (_, lines) = run("tshark", &arguments);
    let mut all = Vec::new();
    for line in lines.lines() {
        let columns: Vec<Vec<&str>> = line.split('\t').map(|column| column.split(',').collect()).collect();
        let [ids, responses, rcodes, names, types] = &columns[..] else { panic!("{line}") };
        let mut rcodes = rcodes.iter();
        for (((id, is_response), name), qtype) in ids.iter().zip(responses).zip(names).zip(types) {
            let id = u16::from_str_radix(id.trim_start_matches("0x"), 16).unwrap();
            let is_response = ["1", "True"].contains(is_response);
            let rcode = if is_response { rcodes.next().unwrap().parse().unwrap() } else { 0 };
            all.push((id, is_response, rcode, name.to_lowercase(), qtype.parse().unwrap()));
        }
    }
    all
}

/// Captures beside tshark while `questions` are asked, and compares what both saw.
async fn assert_as_tshark(interface: &str, port: u16, folder: &Path, questions: &[String]) {
    let settings = Settings { interfaces: vec![interface.to_owned()], ports: vec![port], ..Settings::default() };
    let mut live = Live::open(&settings).await;
    let (file, log) = (folder.join("seen.pcapng"), folder.join("tshark.log"));
    let file = file.to_str().unwrap();
    let mut tshark = Running::start("tshark", &["-i", interface, "-w", file], &log);
    let since = Instant::now();
    while !std::fs::read_to_string(&log).unwrap().contains("File: ") {
        assert!(since.elapsed() < PATIENCE, "{}", std::fs::read_to_string(&log).unwrap());
        sleep(Duration::from_millis(50)).await;
    }
    for question in questions {
        assert!(run_beside("kdig", words(question)).await.0, "kdig {question}");
    }
    // tshark writes what it holds when it is asked to end.
    sleep(Duration::from_secs(1)).await;
    assert!(run("kill", &["-INT", &tshark.0.id().to_string()]).0);
    tshark.0.wait().unwrap();
    let mut expected = tshark_said(file, port);
    live.poll_until("", expected.len()).await;
    live.poll().await;
    let mut said = live.said();
    expected.sort();
    said.sort();
    assert!(expected.len() >= questions.len() * 2, "tshark saw {}", expected.len());
    assert_eq!(said, expected);
    let responses: Vec<_> = live.records.iter().map(|record| Dnstap::read(&record.body).unwrap()).collect();
    let responses = responses.iter().filter(|dnstap| dnstap.message_type.is_response());
    assert!(responses.clone().all(|dnstap| dnstap.query_time < dnstap.response_time && dnstap.query_time.is_some()));
    assert_eq!(live.missed, Vec::<String>::new());
    println!("{interface}: {} messages, as tshark; {} responses with their query", said.len(), responses.count());
}

#[tokio::test(flavor = "multi_thread")]
async fn real_servers_traffic_is_captured_as_tshark_sees_it() {
    let namespace = Namespace::make();
    let folder = tempfile::tempdir().unwrap();
    let (command, arguments) = knot(folder.path(), "10.77.53.2@53, fd00:77:53::2@53", "");
    let mut all = vec!["netns", "exec", Namespace::NAME, command];
    all.extend(arguments.iter().map(String::as_str));
    let server = Running::start("ip", &all, &folder.path().join("log"));
    until_it_answers("10.77.53.2", 53).await;
    let names = |kind: char| (0..20).map(|number| format!(" {kind}{number}.example.test")).collect::<String>();
    let mut questions = Vec::new();
    for address in ["10.77.53.2", "fd00:77:53::2"] {
        questions.push(format!("@{address}{}", names('u')));
        questions.push(format!("@{address} +tcp +keepopen{}", names('t')));
        questions.push(format!("@{address} other.test MX"));
        questions.push(format!("@{address} +edns +bufsize=4096 +notcp large.example.test TXT"));
        questions.push(format!("@{address} +tcp large.example.test TXT"));
    }
    assert_as_tshark(Namespace::INTERFACE, 53, folder.path(), &questions).await;
    drop((server, namespace));
}

/// An unbound that answers, and its port.
async fn unbound_on_loopback(folder: &Path) -> (Running, u16) {
    let port = free_port();
    let (command, arguments) = unbound(folder, port, "");
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let server = Running::start(command, &arguments, &folder.join("log"));
    until_it_answers("127.0.0.1", port).await;
    (server, port)
}

#[tokio::test(flavor = "multi_thread")]
async fn real_servers_traffic_on_loopback_is_captured_once() {
    let folder = tempfile::tempdir().unwrap();
    let (_server, port) = unbound_on_loopback(folder.path()).await;
    let names: String = (0..30).map(|number| format!(" l{number}.example.test A")).collect();
    let questions = [format!("@127.0.0.1 -p {port}{names}"), format!("@127.0.0.1 -p {port} +tcp{names}")];
    assert_as_tshark("lo", port, folder.path(), &questions).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn real_servers_traffic_on_all_interfaces_is_captured_once() {
    let folder = tempfile::tempdir().unwrap();
    let (_server, port) = unbound_on_loopback(folder.path()).await;
    let settings = Settings { interfaces: vec!["any".to_owned()], ports: vec![port], ..Settings::default() };
    let mut live = Live::open(&settings).await;
    let names: String = (0..20).map(|number| format!(" a{number}.example.test A")).collect();
    assert!(run_beside("kdig", words(&format!("@127.0.0.1 -p {port}{names}"))).await.0);
    live.poll_until("a", 40).await;
    live.poll().await;
    assert_eq!((live.said().len(), live.missed), (40, Vec::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn real_servers_or_not_what_the_kernel_drops_is_counted() {
    const SENT: usize = 50_000;
    let receiver = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = receiver.local_addr().unwrap();
    let settings = Settings {
        interfaces: vec!["lo".to_owned()],
        ports: vec![address.port()],
        capture_buffer_bytes: 64 << 10,
        queue_records_max: 1_000,
        ..Settings::default()
    };
    let mut live = Live::open(&settings).await;
    let sender = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    // Nobody harvests: first the queue is full, then the kernel's buffer.
    for number in 0..SENT {
        sender.send_to(&[&(number as u32).to_be_bytes()[..], &[0; 8]].concat(), address).await.unwrap();
    }
    let lost = |live: &Live| {
        let counts = live.missed.iter().filter_map(|line| line.strip_prefix("kernel: ")?.parse::<usize>().ok());
        counts.sum::<usize>()
    };
    // And no packet comes after those that were dropped.
    let since = Instant::now();
    while live.records.len() + lost(&live) < SENT {
        assert!(since.elapsed() < PATIENCE, "{} and {} of {SENT}", live.records.len(), lost(&live));
        live.poll().await;
    }
    assert_eq!(live.records.len() + lost(&live), SENT);
    assert!(lost(&live) > 0, "nothing was dropped");
    println!("lo: {} records and {} dropped by the kernel of {SENT}", live.records.len(), lost(&live));
}

/// `IFF_PROMISC`, of an interface's flags.
fn is_promiscuous(interface: &str) -> bool {
    let flags = std::fs::read_to_string(format!("/sys/class/net/{interface}/flags")).unwrap();
    u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16).unwrap() & 0x100 != 0
}

/// A pair of interfaces that leads nowhere; gone with the test.
struct Pair;

impl Pair {
    const NAME: &'static str = "dbdns2";

    fn make() -> Self {
        drop(Self);
        for command in ["link add dbdns2 type veth peer name dbdns3", "link set dbdns2 up"] {
            assert!(run("ip", &command.split(' ').collect::<Vec<_>>()).0, "ip {command}");
        }
        Self
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        let _ended = run("ip", &["link", "del", Self::NAME]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn real_servers_or_not_an_interface_is_promiscuous_while_it_is_captured_if_so_set() {
    let _pair = Pair::make();
    for promiscuous in [false, true] {
        let interfaces = vec![Pair::NAME.to_owned()];
        let mut live = Live::open(&Settings { interfaces, promiscuous, ..Settings::default() }).await;
        assert_eq!(is_promiscuous(Pair::NAME), promiscuous);
        while let Some(harvest) = live.collector.drain(&live.cursor).await.unwrap() {
            live.cursor = harvest.cursor;
        }
        assert!(!is_promiscuous(Pair::NAME), "the capture has ended");
    }
}
