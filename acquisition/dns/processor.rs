//! From a dnstap message to a row.

use std::borrow::Cow;
use std::net::IpAddr;

use contract::limits::{FUTURE_SECONDS_MAX, RECORD_BYTES_MAX};
use contract::{Processor, RawRecord, Reject, RowBuilder, Value};

use super::dnstap::{Dnstap, Moment, ip_address};
use super::edns::{Edns, EdnsOption, extended_error_name, option_name};
use super::entropy::entropy;
use super::message::{HEADER_BYTES, Header, Message, Question, Record, Section};
use super::name::labels;
use super::rdata::{push_ipv4, push_ipv6};
use super::schema;
use super::suffix;
use super::types::{opcode_name, rcode_name};
use crate::hexadecimal::hexadecimal;

/// Where the highest bit of a class has a meaning of its own: RFC 6762, sections 5.4 and 10.2.
const MDNS_PORT: u32 = 5353;

/// Bytes of an address as text.
const IP_TEXT_BYTES_MAX: usize = 45;

/// See the module.
pub struct DnsProcessor;

impl Processor for DnsProcessor {
    fn process(&self, record: &RawRecord, row: &mut RowBuilder) -> Result<(), Reject> {
        let (dnstap, dns, header) = check(record)?;
        let is_mdns = [dnstap.query_port, dnstap.response_port].contains(&Some(MDNS_PORT));
        let mut message = Message::read(dns, header, is_mdns);
        write_envelope(&dnstap, dns, row);
        let edns_rcode = message.edns.map_or(0, |edns| u16::from(edns.rcode_high) << 4);
        write_header(header, edns_rcode | header.rcode_low(), row);
        if let Some(edns) = message.edns {
            write_edns(&edns, &mut message, row);
        }
        write_questions(&message, is_mdns, row);
        let sections = [
            (schema::ANSWERS, Section::Answer),
            (schema::AUTHORITIES, Section::Authority),
            (schema::ADDITIONALS, Section::Additional),
        ];
        for (place, section) in sections {
            write_records(place, section, &message, row);
        }
        if let Some(malformed) = &message.malformed {
            row.text(schema::MALFORMED, malformed);
        }
        Ok(())
    }
}

/// Checks all that a row cannot be made without.
fn check(record: &RawRecord) -> Result<(Dnstap<'_>, &[u8], Header), Reject> {
    let bytes = &record.body[..];
    if bytes.len() > RECORD_BYTES_MAX {
        let reason = format!("the dnstap message is {} bytes long, {RECORD_BYTES_MAX} are allowed", bytes.len());
        return Err(Reject::new("size", reason));
    }
    let dnstap = Dnstap::read(bytes).map_err(|broken| Reject::new("dnstap", broken.reason()))?;
    let dns = dnstap.dns().unwrap_or_default();
    let Some(header) = Header::read(dns) else {
        let reason = format!("the DNS message has {} bytes, its header alone should have {HEADER_BYTES}", dns.len());
        return Err(Reject::new("header", reason));
    };
    let ahead_seconds = (record.event_time.0 - record.fetched_at.0) / 1_000_000;
    if ahead_seconds > FUTURE_SECONDS_MAX as i64 {
        let reason =
            format!("the message's time lies {ahead_seconds} s after the fetch, {FUTURE_SECONDS_MAX} are allowed");
        return Err(Reject::new("time", reason));
    }
    Ok((dnstap, dns, header))
}

fn write_envelope(dnstap: &Dnstap<'_>, dns: &[u8], row: &mut RowBuilder) {
    row.integer(schema::SIZE_BYTES, dns.len() as i64);
    if let Some(name) = dnstap.message_type.name() {
        row.text(schema::MESSAGE_TYPE, name);
    }
    if let Some(name) = dnstap.socket_protocol.and_then(|protocol| protocol.name()) {
        row.text(schema::TRANSPORT, name);
    }
    let mut text = Vec::with_capacity(IP_TEXT_BYTES_MAX);
    for (place, address) in [(schema::CLIENT_IP, dnstap.query_address), (schema::SERVER_IP, dnstap.response_address)] {
        if let Some(ip) = address.and_then(ip_address) {
            text.clear();
            match ip {
                IpAddr::V4(ip) => push_ipv4(ip.octets(), &mut text),
                IpAddr::V6(ip) => push_ipv6(ip, &mut text),
            }
            row.text(place, str::from_utf8(&text).unwrap_or_default());
        }
    }
    for (place, port) in [(schema::CLIENT_PORT, dnstap.query_port), (schema::SERVER_PORT, dnstap.response_port)] {
        if let Some(port) = port {
            row.integer(place, port.into());
        }
    }
    for (place, said) in [(schema::SERVER_IDENTITY, dnstap.identity), (schema::SERVER_VERSION, dnstap.version)] {
        if let Some(said) = said.filter(|said| !said.is_empty()) {
            row.text(place, &String::from_utf8_lossy(said));
        }
    }
    let query_time = dnstap.query_time.and_then(Moment::timestamp);
    let response_time = dnstap.response_time.and_then(Moment::timestamp);
    for (place, time) in [(schema::QUERY_TIME, query_time), (schema::RESPONSE_TIME, response_time)] {
        if let Some(time) = time {
            row.timestamp(place, time);
        }
    }
    // Clocks that were set back give no latency.
    if let (Some(query), Some(response)) = (query_time, response_time)
        && query <= response
    {
        row.integer(schema::LATENCY_US, response.0 - query.0);
    }
}

fn write_header(header: Header, rcode: u16, row: &mut RowBuilder) {
    row.integer(schema::ID, header.id.into());
    let flags = [
        (schema::QR, 0),
        (schema::AA, 5),
        (schema::TC, 6),
        (schema::RD, 7),
        (schema::RA, 8),
        (schema::Z, 9),
        (schema::AD, 10),
        (schema::CD, 11),
    ];
    for (place, bit) in flags {
        row.boolean(place, header.flag(bit));
    }
    let places = [schema::QUESTION_COUNT, schema::ANSWER_COUNT, schema::AUTHORITY_COUNT, schema::ADDITIONAL_COUNT];
    for (place, count) in places.into_iter().zip(header.counts) {
        row.integer(place, count.into());
    }
    let opcode = header.opcode();
    write_name(schema::OPCODE, opcode_name(opcode), "OPCODE", opcode, row);
    if header.is_response() {
        write_name(schema::RCODE, rcode_name(rcode), "RCODE", rcode, row);
        row.integer(schema::RCODE_NUMBER, rcode.into());
    }
}

fn write_questions(message: &Message<'_>, is_mdns: bool, row: &mut RowBuilder) {
    let Some(first) = message.questions.first() else { return };
    let name = message.text(&first.name);
    row.text(schema::QNAME, name);
    row.text(schema::QNAME_RAW, message.text(&first.name_raw));
    row.text(schema::QTYPE, message.text(&first.type_name));
    row.integer(schema::QTYPE_NUMBER, first.type_number.into());
    row.text(schema::QCLASS, message.text(&first.class_name));
    if is_mdns {
        row.boolean(schema::UNICAST_RESPONSE, first.unicast_response);
    }
    row.integer(schema::LABEL_COUNT, labels(name).count() as i64);
    row.float(schema::ENTROPY, entropy(message.text(&first.name_raw)));
    if let Some(suffix) = suffix::list().split(name) {
        row.text(schema::PUBLIC_SUFFIX, suffix.public);
        if let Some(registrable) = suffix.registrable {
            row.text(schema::REGISTRABLE_DOMAIN, registrable);
        }
    }
    if message.questions.len() > 1 {
        let members = |question: &Question| {
            [&question.name, &question.type_name, &question.class_name].map(|place| Value::Text(message.text(place)))
        };
        row.structs(schema::QUESTIONS, message.questions.iter().map(members));
    }
}

fn write_records(place: usize, section: Section, message: &Message<'_>, row: &mut RowBuilder) {
    let records = message.section(section);
    if records.is_empty() {
        return;
    }
    let members = |record: &Record| {
        [
            Value::Text(message.text(&record.name)),
            Value::Text(message.text(&record.type_name)),
            Value::Text(message.text(&record.class_name)),
            Value::Integer(record.ttl.into()),
            Some(message.text(&record.data)).filter(|data| !data.is_empty()).into(),
        ]
    };
    row.structs(place, records.iter().map(members));
}

fn write_edns(edns: &Edns<'_>, message: &mut Message<'_>, row: &mut RowBuilder) {
    row.integer(schema::EDNS_VERSION, edns.version.into());
    row.integer(schema::EDNS_UDP_SIZE, edns.udp_size.into());
    row.boolean(schema::EDNS_DO, edns.dnssec_ok);
    let (mut names, mut errors, mut seen) = (Vec::new(), Vec::new(), Seen::default());
    for option in edns.options() {
        let (code, option) = match option {
            Ok(option) => option,
            Err(malformed) => {
                message.note_edns(malformed);
                continue;
            }
        };
        names.push(option_name(code).map_or_else(|| Cow::Owned(format!("OPTION{code}")), Cow::Borrowed));
        match option {
            EdnsOption::ExtendedError { code, text } => errors.push((code, String::from_utf8_lossy(text))),
            EdnsOption::Other => {}
            // Each is allowed once; of more the first counts.
            _ if !seen.is_new(code) => {}
            EdnsOption::ClientSubnet(subnet) => {
                row.text(schema::EDNS_CLIENT_SUBNET, &subnet.text());
                row.integer(schema::EDNS_CLIENT_SUBNET_SCOPE, subnet.scope_bits.into());
            }
            EdnsOption::Nsid([]) => {}
            EdnsOption::Nsid(nsid) => match str::from_utf8(nsid) {
                Ok(text) if !text.contains(char::is_control) => row.text(schema::EDNS_NSID, text),
                _ => row.text(schema::EDNS_NSID, &hexadecimal(nsid)),
            },
            EdnsOption::Cookie { client, server } => {
                row.text(schema::EDNS_CLIENT_COOKIE, &hexadecimal(client));
                if !server.is_empty() {
                    row.text(schema::EDNS_SERVER_COOKIE, &hexadecimal(server));
                }
            }
        }
    }
    if !names.is_empty() {
        row.texts(schema::EDNS_OPTIONS, names.iter().map(|name| &**name));
    }
    if !errors.is_empty() {
        let members = |(code, text): &'_ (u16, Cow<'_, str>)| {
            let text = Some(text.trim_end_matches('\0')).filter(|text| !text.is_empty()).map(str::to_owned);
            (i64::from(*code), extended_error_name(*code), text)
        };
        let errors: Vec<_> = errors.iter().map(members).collect();
        let values = errors
            .iter()
            .map(|(code, purpose, text)| [Value::Integer(*code), (*purpose).into(), text.as_deref().into()]);
        row.structs(schema::EXTENDED_ERRORS, values);
    }
}

/// Which of the options with columns of their own came; their codes are below 16.
#[derive(Default)]
struct Seen(u16);

impl Seen {
    fn is_new(&mut self, code: u16) -> bool {
        let bit = 1 << (code & 15);
        let is_new = self.0 & bit == 0;
        self.0 |= bit;
        is_new
    }
}

fn write_name(place: usize, name: Option<&str>, prefix: &str, number: u16, row: &mut RowBuilder) {
    match name {
        Some(name) => row.text(place, name),
        None => row.text(place, &format!("{prefix}{number}")),
    }
}
