//! Listeners against senders that behave, and misbehave, as servers with dnstap do.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use contract::{Collector, CoverageKind, Cursor, Harvest};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::dnstap::{Dnstap, MessageType, Moment};
use super::frame::{ControlType, control_frame};
use super::settings::Settings;
use super::taps::collectors;
use crate::Context;

/// A dnstap message of a query with this number.
fn message(number: u32) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    let query = [&number.to_be_bytes()[..], &[0; 8]].concat();
    let dnstap = Dnstap {
        message_type: MessageType::TOOL_QUERY,
        query_time: Some(Moment { seconds: 1_700_000_000 + u64::from(number), nanos: 0 }),
        query_message: Some(&query),
        ..Dnstap::default()
    };
    dnstap.write(&mut bytes);
    bytes.to_vec()
}

fn frames(numbers: std::ops::Range<u32>) -> Vec<u8> {
    numbers.map(message).flat_map(|body| [&(body.len() as u32).to_be_bytes()[..], &body].concat()).collect()
}

/// A whole stream of one way.
fn stream(numbers: std::ops::Range<u32>) -> Vec<u8> {
    [&control_frame(ControlType::Start)[..], &frames(numbers), &control_frame(ControlType::Stop)].concat()
}

/// Says all of a stream with handshake, and checks what the reader says.
async fn say_with_handshake(mut connection: impl AsyncRead + AsyncWrite + Unpin, frames: &[u8]) {
    let accept = control_frame(ControlType::Accept);
    let finish = control_frame(ControlType::Finish);
    connection.write_all(&control_frame(ControlType::Ready)).await.unwrap();
    let mut answer = vec![0; accept.len()];
    connection.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, accept);
    connection.write_all(&control_frame(ControlType::Start)).await.unwrap();
    connection.write_all(frames).await.unwrap();
    connection.write_all(&control_frame(ControlType::Stop)).await.unwrap();
    let mut answer = vec![0; finish.len()];
    connection.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, finish);
}

struct Subject {
    collector: Box<dyn Collector>,
    cursor: Cursor,
    harvests: Vec<Harvest>,
}

impl Subject {
    fn new(settings: &Settings) -> Self {
        let mut all = collectors(settings, &Context::default()).unwrap();
        assert_eq!(all.len(), 1);
        Self { collector: all.remove(0), cursor: Cursor::default(), harvests: Vec::new() }
    }

    /// One that listens at a path.
    async fn unix(path: &Path, settings: Settings) -> Self {
        let mut subject = Self::new(&Settings { listeners: vec![format!("unix:{}", path.display())], ..settings });
        subject.open().await;
        subject
    }

    /// The first poll opens; it takes a while without messages, so it is cut short, as the runtime may do.
    async fn open(&mut self) {
        let polled = tokio::time::timeout(Duration::from_millis(20), self.collector.poll(&self.cursor)).await;
        assert!(polled.is_err(), "{polled:?}");
    }

    async fn poll(&mut self) {
        let harvest = self.collector.poll(&self.cursor).await.unwrap();
        self.cursor = harvest.cursor.clone();
        self.harvests.push(harvest);
    }

    /// Polls until so many records came and were lost.
    async fn poll_until(&mut self, records: usize, missed: u64) {
        while self.numbers().len() < records || self.missed().iter().map(|&(_, count)| count).sum::<u64>() < missed {
            self.poll().await;
        }
    }

    /// The numbers of all messages so far.
    fn numbers(&self) -> Vec<u32> {
        let number = |body: &[u8]| {
            let dns = Dnstap::read(body).unwrap().dns().unwrap();
            u32::from_be_bytes(*dns.first_chunk().unwrap())
        };
        self.harvests.iter().flat_map(|harvest| &harvest.records).map(|record| number(&record.body)).collect()
    }

    /// All named losses so far.
    fn missed(&self) -> Vec<(String, u64)> {
        let lines = self.harvests.iter().flat_map(|harvest| &harvest.coverage);
        let missed = lines.filter(|line| line.kind == CoverageKind::Missed);
        missed.map(|line| (line.reason.clone(), line.records)).collect()
    }
}

fn sorted(mut numbers: Vec<u32>) -> Vec<u32> {
    numbers.sort_unstable();
    numbers
}

#[tokio::test]
async fn a_sender_with_handshake_is_answered_and_its_messages_are_harvested() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dnstap.sock");
    let mut subject = Subject::unix(&path, Settings::default()).await;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    let sender = tokio::spawn(async move {
        say_with_handshake(UnixStream::connect(path).await.unwrap(), &frames(0..100)).await;
    });
    subject.poll_until(100, 0).await;
    sender.await.unwrap();
    assert_eq!(subject.numbers(), (0..100).collect::<Vec<_>>());
    let record = &subject.harvests[0].records[0];
    assert_eq!(record.body, message(0), "byte for byte");
    assert_eq!(record.event_time.0, 1_700_000_000_000_000);
    let id = record.id.as_str().split('-').collect::<Vec<_>>();
    assert_eq!((id.len(), &id[1..]), (3, &["l0", "1"][..]), "{}", record.id);
    assert_eq!(subject.missed(), []);
}

#[tokio::test]
async fn many_connections_are_read_at_once_and_each_in_its_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dnstap.sock");
    let mut subject = Subject::unix(&path, Settings::default()).await;
    for sender in 0..50 {
        let path = path.clone();
        tokio::spawn(async move {
            let connection = UnixStream::connect(path).await.unwrap();
            let frames = frames(sender * 1_000..sender * 1_000 + 200);
            match sender % 2 {
                0 => say_with_handshake(connection, &frames).await,
                _ => { connection }.write_all(&stream(sender * 1_000..sender * 1_000 + 200)).await.unwrap(),
            }
        });
    }
    subject.poll_until(50 * 200, 0).await;
    let numbers = subject.numbers();
    for sender in 0..50 {
        let of_one = numbers.iter().copied().filter(|number| number / 1_000 == sender).collect::<Vec<_>>();
        assert_eq!(of_one, (sender * 1_000..sender * 1_000 + 200).collect::<Vec<_>>());
    }
    let ids = subject.harvests.iter().flat_map(|harvest| &harvest.records).map(|record| record.id.as_str());
    assert_eq!(ids.collect::<std::collections::HashSet<_>>().len(), 50 * 200);
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dnstap.sock");
    let mut subject = Subject::unix(&path, Settings { connections_max: 2, ..Settings::default() }).await;
    let (first, second) = (UnixStream::connect(&path).await.unwrap(), UnixStream::connect(&path).await.unwrap());
    let refused = tokio::spawn(async move {
        let mut third = UnixStream::connect(&path).await.unwrap();
        third.read(&mut [0; 1]).await.unwrap_or(0)
    });
    assert_eq!(refused.await.unwrap(), 0);
    for (mut connection, from) in [(first, 0), (second, 10)] {
        connection.write_all(&stream(from..from + 10)).await.unwrap();
    }
    subject.poll_until(20, 0).await;
}

#[tokio::test]
async fn hostile_streams_are_closed_and_the_others_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dnstap.sock");
    let mut subject = Subject::unix(&path, Settings::default()).await;
    let start = control_frame(ControlType::Start);
    let hostile: Vec<Vec<u8>> = vec![
        frames(0..1),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
        control_frame(ControlType::Accept).to_vec(),
        [&start[..], &start].concat(),
        // Lost by name: its length is above the limit.
        [&start[..], &[0x7f, 0xff, 0xff, 0xff]].concat(),
    ];
    let mut good = UnixStream::connect(&path).await.unwrap();
    good.write_all(&start).await.unwrap();
    for stream in hostile {
        let mut connection = UnixStream::connect(&path).await.unwrap();
        connection.write_all(&stream).await.unwrap();
        assert_eq!(connection.read(&mut [0; 64]).await.unwrap_or(0), 0, "closed without an answer");
    }
    good.write_all(&frames(0..10)).await.unwrap();
    subject.poll_until(10, 1).await;
    assert_eq!(subject.numbers(), (0..10).collect::<Vec<_>>());
    assert_eq!(subject.missed(), [("frame_too_large".to_owned(), 1)]);
}

#[tokio::test]
async fn a_connection_that_is_cut_inside_a_frame_loses_that_one_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dnstap.sock");
    let mut subject = Subject::unix(&path, Settings::default()).await;
    let whole = [&control_frame(ControlType::Start)[..], &frames(0..3)].concat();
    let mut connection = UnixStream::connect(&path).await.unwrap();
    connection.write_all(&whole[..whole.len() - 1]).await.unwrap();
    drop(connection);
    subject.poll_until(2, 1).await;
    assert_eq!((subject.numbers(), subject.missed()), (vec![0, 1], vec![("cut".to_owned(), 1)]));
}

#[tokio::test]
async fn a_message_that_is_no_dnstap_is_a_record_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dnstap.sock");
    let mut subject = Subject::unix(&path, Settings::default()).await;
    let mut connection = UnixStream::connect(&path).await.unwrap();
    let stream = [&control_frame(ControlType::Start)[..], &[0, 0, 0, 3], b"odd"].concat();
    connection.write_all(&stream).await.unwrap();
    subject.poll().await;
    assert_eq!(subject.harvests[0].records[0].body, &b"odd"[..]);
}

#[tokio::test]
async fn the_end_harvests_what_is_queued_and_what_the_kernel_holds() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dnstap.sock");
    // A queue that fills: some of the messages are still in the socket.
    let settings = Settings { queue_records_max: 100, ..Settings::default() };
    let mut subject = Subject::unix(&path, settings).await;
    let mut connection = UnixStream::connect(&path).await.unwrap();
    connection.write_all(&[&control_frame(ControlType::Start)[..], &frames(0..500)].concat()).await.unwrap();
    while let Some(harvest) = subject.collector.drain(&subject.cursor).await.unwrap() {
        subject.cursor = harvest.cursor.clone();
        subject.harvests.push(harvest);
    }
    assert_eq!(subject.numbers(), (0..500).collect::<Vec<_>>());
    assert!(!path.exists(), "the socket is gone");
    assert!(UnixStream::connect(&path).await.is_err());
}

#[tokio::test]
async fn the_end_accounts_for_all_that_was_sent_whatever_the_overload_policy() {
    use super::queue::Overload;
    for overload in [Overload::Block, Overload::Spill, Overload::Sample, Overload::Drop] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dnstap.sock");
        let settings = Settings { overload, queue_records_max: 200, ..Settings::default() };
        let mut subject = Subject::unix(&path, settings).await;
        let mut connection = UnixStream::connect(&path).await.unwrap();
        let sent = [&control_frame(ControlType::Start)[..], &frames(0..2_000), &frames(0..1)[..9]].concat();
        let sender = tokio::spawn(async move {
            connection.write_all(&sent).await.unwrap();
            connection
        });
        while let Some(harvest) = subject.collector.drain(&subject.cursor).await.unwrap() {
            subject.cursor = harvest.cursor.clone();
            subject.harvests.push(harvest);
        }
        drop(sender.await.unwrap());
        let missed: u64 = subject.missed().iter().map(|&(_, count)| count).sum();
        assert_eq!(subject.numbers().len() as u64 + missed, 2_001, "{overload:?}: {:?}", subject.missed());
        assert!(subject.missed().contains(&("cut".to_owned(), 1)));
    }
}

#[tokio::test]
async fn overload_is_counted_so_that_in_is_out_and_named_losses() {
    use super::queue::Overload;
    for overload in [Overload::Block, Overload::Spill, Overload::Sample, Overload::Drop] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dnstap.sock");
        let settings = Settings { overload, queue_records_max: 200, ..Settings::default() };
        let mut subject = Subject::unix(&path, settings).await;
        let sender = tokio::spawn(async move {
            say_with_handshake(UnixStream::connect(path).await.unwrap(), &frames(0..5_000)).await;
        });
        let mut total = 0;
        while total < 5_000 {
            subject.poll().await;
            let missed: u64 = subject.missed().iter().map(|&(_, count)| count).sum();
            total = subject.numbers().len() as u64 + missed;
        }
        sender.await.unwrap();
        assert_eq!(total, 5_000, "{overload:?}");
        let is_lossless = matches!(overload, Overload::Block | Overload::Spill);
        assert_eq!(subject.missed().is_empty(), is_lossless, "{overload:?}: {:?}", subject.missed());
    }
}

#[tokio::test]
async fn a_socket_that_nobody_listens_on_is_replaced_and_nothing_else_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dnstap.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "stale");
    let first = Subject::unix(&path, Settings::default()).await;
    let listeners = vec![format!("unix:{}", path.display())];
    let mut second = Subject::new(&Settings { listeners: listeners.clone(), ..Settings::default() });
    let error = second.collector.poll(&Cursor::default()).await.unwrap_err().to_string();
    assert!(error.ends_with("another process listens there"), "{error}");
    drop(first);
    // Its tasks end, and remove the socket, when the runtime gets to it.
    while path.exists() {
        tokio::task::yield_now().await;
    }
    std::fs::write(&path, "a file").unwrap();
    let error = second.collector.poll(&Cursor::default()).await.unwrap_err();
    assert_eq!(error.remedy(), contract::Remedy::Retry);
    assert_eq!(std::fs::read(&path).unwrap(), b"a file");
}

#[tokio::test]
async fn the_time_between_two_runs_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dnstap.sock");
    let mut first = Subject::unix(&path, Settings::default()).await;
    let mut connection = UnixStream::connect(&path).await.unwrap();
    connection.write_all(&stream(0..5)).await.unwrap();
    first.poll_until(5, 0).await;
    let cursor = first.cursor.clone();
    drop(first);
    while path.exists() {
        tokio::task::yield_now().await;
    }
    let mut second = Subject::unix(&path, Settings::default()).await;
    second.cursor = cursor;
    second.poll().await;
    let [covered, missed] = &second.harvests[0].coverage[..] else { panic!("{:?}", second.harvests) };
    assert_eq!((covered.kind, covered.records), (CoverageKind::Covered, 5));
    assert_eq!((missed.kind, missed.records, missed.reason.as_str()), (CoverageKind::Missed, 0, "nobody listened"));
    assert!(covered.from <= covered.to && covered.to == missed.from && missed.from < missed.to);
}

/// A port that is free now.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn tcp_is_listened_on_at_loopback() {
    let address = format!("127.0.0.1:{}", free_port());
    let mut subject = Subject::new(&Settings { listeners: vec![format!("tcp:{address}")], ..Settings::default() });
    subject.open().await;
    let sender = tokio::spawn(async move {
        say_with_handshake(TcpStream::connect(address).await.unwrap(), &frames(0..1_000)).await;
    });
    subject.poll_until(1_000, 0).await;
    sender.await.unwrap();
    assert_eq!(sorted(subject.numbers()), (0..1_000).collect::<Vec<_>>());
}

/// Files of an authority, and of a certificate of it for `localhost`.
struct Certificates {
    folder: tempfile::TempDir,
    authority: CertificateDer<'static>,
    chain: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
}

impl Certificates {
    fn new() -> Self {
        use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        let folder = tempfile::tempdir().unwrap();
        for (name, pem) in
            [("ca.pem", authority.pem()), ("certificate.pem", certificate.pem()), ("key.pem", key.serialize_pem())]
        {
            std::fs::write(folder.path().join(name), pem).unwrap();
        }
        let (authority, chain) = (authority.der().clone(), vec![certificate.der().clone()]);
        Self { folder, authority, chain, key: key.serialize_der() }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn settings(&self, address: &str) -> Settings {
        Settings {
            listeners: vec![format!("tls:{address}")],
            tls_certificate_file: self.path("certificate.pem"),
            tls_key_file: self.path("key.pem"),
            ..Settings::default()
        }
    }

    /// A connection that trusts the authority, and shows the certificate if asked to.
    async fn connect(
        &self,
        address: &str,
        shows: bool,
    ) -> std::io::Result<impl AsyncRead + AsyncWrite + Unpin + use<>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.clone()).unwrap();
        let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(roots);
        let config = match shows {
            true => {
                let key = PrivateKeyDer::try_from(self.key.clone()).unwrap();
                builder.with_client_auth_cert(self.chain.clone(), key).unwrap()
            }
            false => builder.with_no_client_auth(),
        };
        let stream = TcpStream::connect(address).await.unwrap();
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await
    }
}

#[tokio::test]
async fn tls_shows_its_certificate_and_asks_for_one_if_set() {
    let certificates = Certificates::new();
    for client_ca in ["", "ca.pem"] {
        let address = format!("127.0.0.1:{}", free_port());
        let ca = if client_ca.is_empty() { String::new() } else { certificates.path(client_ca) };
        let mut subject = Subject::new(&Settings { tls_client_ca_file: ca, ..certificates.settings(&address) });
        subject.open().await;
        let asks = !client_ca.is_empty();
        if asks {
            let mut stranger = certificates.connect(&address, false).await.unwrap();
            // The client learns of the refusal when it reads.
            assert!(stranger.read(&mut [0; 1]).await.is_err());
        }
        let connection = certificates.connect(&address, asks).await.unwrap();
        let sender = tokio::spawn(async move { say_with_handshake(connection, &frames(0..100)).await });
        subject.poll_until(100, 0).await;
        sender.await.unwrap();
        assert_eq!(subject.numbers(), (0..100).collect::<Vec<_>>());
    }
}

#[test]
fn a_wrong_setting_is_answered_with_what_would_be_right() {
    let error = |settings: Settings| {
        let made = collectors(&settings, &Context::default());
        made.map(|all| all.len()).expect_err("refused").to_string()
    };
    let listener = |name: &str| Settings { listeners: vec![name.to_owned()], ..Settings::default() };
    for name in ["", "unix", "unix:relative", "tcp:6000", "tcp:localhost:6000", "udp:127.0.0.1:1"] {
        let right = "`unix:/run/databroker/dnstap.sock`, `tcp:127.0.0.1:6000` or `tls:127.0.0.1:6001`";
        let expected = format!("failed to use listener `{name}` of `dns.listeners` (should be as {right})");
        assert_eq!(error(listener(name)), expected);
    }
    let beyond = error(listener("tcp:0.0.0.0:6000"));
    assert!(beyond.ends_with("(set `dns.allow_other_hosts` to listen beyond this machine)"), "{beyond}");
    assert!(error(listener("tls:127.0.0.1:6001")).contains("needs `dns.tls_certificate_file`"));
    let mode = Settings { unix_mode: "rw".to_owned(), ..listener("unix:/x") };
    assert_eq!(error(mode), "failed to use `dns.unix_mode` = `rw` (should be octal digits as `660`)");
    let rare = Settings { sample_one_in: 1, ..listener("unix:/x") };
    assert_eq!(error(rare), "failed to use `dns.sample_one_in` = 1 (should be 2 to 1000000)");
    let missing = Settings {
        tls_certificate_file: "/no/such.pem".to_owned(),
        tls_key_file: "/no/such.key".to_owned(),
        ..listener("tls:127.0.0.1:6001")
    };
    assert!(error(missing).starts_with("failed to use `dns.tls_certificate_file` = `/no/such.pem`: "));
    let relative = Settings { directories: vec!["spool".to_owned()], ..Settings::default() };
    assert_eq!(error(relative), "failed to use folder `spool` of `dns.directories` (should be as `/var/spool/dns`)");
    assert_eq!(collectors(&Settings::default(), &Context::default()).unwrap().len(), 0, "nothing unless told");
}
