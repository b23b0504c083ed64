//! DNS messages: taps of servers and captures of networks.
//!
//! | way in | what |
//! | --- | --- |
//! | dnstap | servers send Frame Streams to listeners on Unix sockets, TCP and TLS; see `listen.rs` |
//! | interfaces | packets of a network interface, on Linux; see `interface.rs` |
//! | folders | captures and taps that appear in a watched folder; see `watch.rs` |
//! | files | pcap, pcapng, dnstap Frame Streams and single dnstap messages; see `file.rs` |
//!
//! Formats: DNS ([RFC 1035](https://www.rfc-editor.org/rfc/rfc1035), EDNS in
//! [RFC 6891](https://www.rfc-editor.org/rfc/rfc6891), and the RFC of each type of record),
//! [dnstap](https://dnstap.info), [pcap and pcapng](https://datatracker.ietf.org/wg/opsawg/documents/).
//!
//! **Terms of use.** There is no upstream; what is seen is the traffic of those who use the network, and who asks for
//! what is personal data in most places: see `dns.addresses` for hiding it before anything is written. The public suffix
//! list that ships stands under the Mozilla Public License 2.0, see `suffix.rs`.
//!
//! **Rate limits.** None.
//!
//! # The raw record
//!
//! Its body is one dnstap message (protobuf `dnstap.Dnstap`), whatever it came from, so that other readers of dnstap can
//! read bronze and the log. What a server tapped is kept byte for byte; what was captured is written as `TOOL_QUERY` or
//! `TOOL_RESPONSE`, the types for who stands beside client and server. A response whose query was seen says the query's
//! time too: the collector pairs them by addresses, ports, transport, id and question, and writes the time into the
//! record, so that a row is made of one record alone. A tapped message that holds both a query and its response is two
//! records. Hidden addresses are hidden here already: what a server tapped is written anew then, with what rows are made of
//! and nothing else; see `hide.rs` for what is hidden in the DNS message.
//!
//! # The public suffix list
//!
//! `registrable_domain` and `public_suffix` follow the list of the time when a row is made: `dns.public_suffix_list` is
//! looked at again every minute, whatever makes rows then. All else in a row follows from its record alone. A row that is
//! made again from bronze (`reprocess`, `verify --repair`) has the list of that time; both stores are given the same row.
//!
//! # Damaged messages
//!
//! A message whose header is whole is a row, with what could be read before the damage, and `malformed` says where and
//! what it is. Without twelve bytes of header it is a dead letter.
//!
//! How to set servers and interfaces up, and where rows differ from what tshark says: `docs/dns-capture.md`.
//!
//! From raw to row:
//!
//! ```
//! use contract::{LogRecord, RawRecord, RowsBuilder, Span, Timestamp, row_json};
//!
//! // type CLIENT_QUERY, INET, UDP, 192.0.2.1:40000, 192.0.2.53:53, a time, and `Example.org IN A`.
//! let body = [
//!     &b"rB\x08\x05\x10\x01\x18\x01"[..],
//!     &b"\x22\x04\xc0\x00\x02\x010\xc0\xb8\x02"[..],
//!     &b"\x2a\x04\xc0\x00\x02585"[..],
//!     &b"\x40\x80\x8b\xd2\xbb\x06M\x00\x00\x00\x00"[..],
//!     &b"R\x1d\x124\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"[..],
//!     &b"\x07Example\x03org\x00\x00\x01\x00\x01"[..],
//!     &b"x\x01"[..],
//! ].concat();
//! let time = Timestamp::parse_rfc3339("2025-01-01T00:00:00Z").unwrap();
//! let record = RawRecord { id: "0-1".into(), event_time: time, fetched_at: time, body: body.into() };
//!
//! let source = acquisition::source("dns").unwrap();
//! let mut rows = RowsBuilder::new(source.schema);
//! let logged = LogRecord { partition: 0, offset: 7, appended_at: time, record };
//! rows.record(&logged, source.processor).unwrap();
//! let rows = rows.finish(Span { source: source.id, ranges: Vec::new() });
//!
//! let mut row = Vec::new();
//! row_json::write_row(&rows.silver, 0, &mut row);
//! assert_eq!(String::from_utf8(row).unwrap(), concat!(
//!     r#"{"_partition":0,"_offset":7,"event_time":"2025-01-01T00:00:00Z","fetched_at":"2025-01-01T00:00:00Z","#,
//!     r#""id":4660,"qr":false,"opcode":"QUERY","qname":"example.org","qname_raw":"Example.org","qtype":"A","#,
//!     r#""qtype_number":1,"qclass":"IN","aa":false,"tc":false,"rd":true,"ra":false,"z":false,"ad":false,"cd":false,"#,
//!     r#""question_count":1,"answer_count":0,"authority_count":0,"additional_count":0,"#,
//!     r#""client_ip":"192.0.2.1","client_port":40000,"server_ip":"192.0.2.53","server_port":53,"transport":"udp","#,
//!     r#""query_time":"2025-01-01T00:00:00Z","size_bytes":29,"message_type":"CLIENT_QUERY","#,
//!     r#""registrable_domain":"example.org","public_suffix":"org","label_count":2,"entropy":3.1219}"#,
//! ));
//! ```

mod address;
mod capture;
mod dnstap;
mod edns;
mod entropy;
mod file;
#[cfg(target_os = "linux")]
mod filter;
mod folder_list;
mod fragments;
mod frame;
mod frame_streams;
mod hide;
mod http2;
#[cfg(target_os = "linux")]
mod interface;
mod ip;
mod link;
mod listen;
#[cfg(test)]
mod listen_test;
mod live;
mod message;
mod name;
#[cfg(target_os = "linux")]
mod packet_options;
mod packets;
mod pairs;
mod processor;
mod protobuf;
mod queue;
mod rdata;
mod rdata_special;
#[cfg(test)]
#[cfg(all(feature = "real-servers", target_os = "linux"))]
mod real_servers_test;
mod recorder;
mod renames;
mod sample;
mod schema;
mod settings;
mod stream;
mod streams;
#[cfg(test)]
mod streams_test;
mod suffix;
mod taps;
mod tls;
mod types;
mod watch;
#[cfg(test)]
mod watch_test;

pub use processor::DnsProcessor;
pub use queue::Overload;
pub use schema::SCHEMA;
pub use settings::{AddressForm, AfterRead, Settings};

use contract::Result;

use crate::{Collectors, Context, Source};

pub(crate) const SOURCE: Source = Source {
    id: SCHEMA.source,
    schema: &SCHEMA,
    processor: &DnsProcessor,
    collectors,
    open_file: file::open_file,
    sample: sample::sample,
};

/// Takes what the processor cannot be given with a record: the public suffix list.
///
/// # Errors
/// `Change` when it cannot be read.
pub(crate) fn prepare(settings: &Settings) -> Result<()> {
    suffix::take_file(&settings.public_suffix_list)
}

fn collectors(settings: &crate::Settings, context: &Context) -> Result<Collectors> {
    recorder::Recorder::new(&settings.dns)?;
    Ok(Collectors { polled: taps::collectors(&settings.dns, context)?, ..Collectors::default() })
}
