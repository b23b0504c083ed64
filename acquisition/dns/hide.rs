//! Hides addresses of clients in a DNS message, in place and without changing its length.
//!
//! | what | becomes |
//! | --- | --- |
//! | the address of every EDNS client subnet | as `dns.addresses` says; zeros where the option is not as RFC 7871 has it |
//! | EDNS options that name the client's device: `UMBRELLA-IDENT`, `DEVICE-ID`, those of dnsmasq and Nominum | zeros |
//! | addresses in the A and AAAA records of mDNS and LLMNR, whose names are somebody's machines | as `dns.addresses` says |
//! | all from the first record, question or option on that cannot be read, and what follows the last record | [`FILLER`] |
//!
//! What a client asks for is kept, whatever it is.

use super::address::AddressMask;
use super::edns::{CLIENT_SUBNET, ClientSubnet, OPT};
use super::message::{HEADER_BYTES, Header};
use super::name::skip_name;

/// Starts no name, so that what is hidden is never read as a record.
const FILLER: u8 = 0x80;

/// Options with the client's address or hardware address, or its device's number. Sources:
/// <https://docs.umbrella.com/umbrella-api/docs/identifying-dns-traffic2>, and `--add-mac`, `--add-cpe-id` of dnsmasq.
const CLIENT_OPTIONS: [u16; 5] = [20_292, 26_946, 65_001, 65_073, 65_074];

const A: u16 = 1;
const AAAA: u16 = 28;

/// See the module; `is_local` says that it is of mDNS or LLMNR.
pub(super) fn hide_clients(mask: &AddressMask, dns: &mut [u8], is_local: bool) {
    let readable = hide_readable(mask, dns, is_local);
    if let Some(rest) = dns.get_mut(readable..) {
        rest.fill(FILLER);
    }
}

/// Answers how many bytes could be read.
fn hide_readable(mask: &AddressMask, dns: &mut [u8], is_local: bool) -> usize {
    let Some(header) = Header::read(dns) else { return 0 };
    let [questions, sections @ ..] = header.counts;
    let mut at = HEADER_BYTES;
    for _ in 0..questions {
        match skip_name(dns, at) {
            Ok(end) if end + 4 <= dns.len() => at = end + 4,
            _ => return at,
        }
    }
    for _ in 0..sections.iter().map(|&count| u32::from(count)).sum() {
        match hide_record(mask, dns, at, is_local) {
            Some(end) => at = end,
            None => return at,
        }
    }
    at
}

/// The end of the record that starts at `at`; none where it is not whole.
fn hide_record(mask: &AddressMask, dns: &mut [u8], at: usize, is_local: bool) -> Option<usize> {
    let head_at = skip_name(dns, at).ok()?;
    let &[type_high, type_low, .., length_high, length_low] = dns.get(head_at..)?.first_chunk::<10>()?;
    let start = head_at + 10;
    let end = start + usize::from(u16::from_be_bytes([length_high, length_low]));
    let data = dns.get_mut(start..end)?;
    match u16::from_be_bytes([type_high, type_low]) {
        OPT => hide_options(mask, data),
        A | AAAA if is_local => match data.len() {
            4 | 16 => mask.hide(data),
            _ => data.fill(0),
        },
        _ => {}
    }
    Some(end)
}

fn hide_options(mask: &AddressMask, mut options: &mut [u8]) {
    while let Some(&[high, low, length_high, length_low]) = options.first_chunk() {
        let end = 4 + usize::from(u16::from_be_bytes([length_high, length_low]));
        if end > options.len() {
            break;
        }
        let (option, rest) = std::mem::take(&mut options).split_at_mut(end);
        hide_option(mask, u16::from_be_bytes([high, low]), &mut option[4..]);
        options = rest;
    }
    options.fill(FILLER);
}

fn hide_option(mask: &AddressMask, code: u16, data: &mut [u8]) {
    let sound = ClientSubnet::read(data).map(|subnet| (subnet.is_ipv6, usize::from(subnet.source_bits)));
    match sound.filter(|(_, bits)| data.len() == 4 + bits.div_ceil(8)) {
        Some((is_ipv6, bits)) if code == CLIENT_SUBNET => mask.hide_subnet(&mut data[4..], is_ipv6, bits),
        _ if code == CLIENT_SUBNET || CLIENT_OPTIONS.contains(&code) => data.fill(0),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::dnstap::{Dnstap, MessageType, SocketProtocol};
    use super::super::recorder::{Recorder, Sighting};
    use super::super::settings::{AddressForm, Settings};
    use super::*;
    use contract::{RawRecord, Timestamp};

    /// The client, which must be nowhere.
    const CLIENT: [u8; 4] = [203, 0, 113, 77];

    fn option() -> impl Strategy<Value = Vec<u8>> {
        let code = prop_oneof![Just(8_u16), Just(8), Just(20_292), Just(65_001)];
        let head = prop::collection::vec(any::<u8>(), 0..6);
        let subnet = Just(vec![0, 1, 32, 0]);
        let wrong = prop_oneof![4 => Just(0_i16), 1 => -20..40_i16];
        (code, prop_oneof![3 => subnet.boxed(), 1 => head.boxed()], wrong).prop_map(|(code, head, wrong)| {
            let data = [&head[..], &CLIENT].concat();
            let length = (data.len() as i16 + wrong).max(0);
            // A length that is too small leaves the rest of the address to what comes next.
            [&code.to_be_bytes()[..], &length.to_be_bytes(), &data].concat()
        })
    }

    fn record() -> impl Strategy<Value = Vec<u8>> {
        let opt = prop::collection::vec(option(), 0..3).prop_map(|options| {
            let options = options.concat();
            [&b"\0\0\x29\x04\xd0\0\0\0\0"[..], &(options.len() as u16).to_be_bytes(), &options].concat()
        });
        prop_oneof![
            3 => opt,
            2 => Just(b"\xc0\x0c\0\x10\0\x01\0\0\0\0\0\x02\x01a".to_vec()),
            1 => Just(b"\x80\0\0\x10\0\x01\0\0\0\0\0\0".to_vec()),
        ]
    }

    fn message() -> impl Strategy<Value = Vec<u8>> {
        // With another count of questions, records would be read as what they are not.
        let counts = [1..2_u8, 0..3, 0..3, 0..4];
        let cut = prop_oneof![2 => Just(0_usize), 1 => 0..60_usize];
        (any::<[u8; 4]>(), counts, prop::collection::vec(record(), 0..5), cut).prop_map(
            |(head, counts, records, cut)| {
                let counts = counts.map(|count| [0, count]).concat();
                let mut message = [&head[..], &counts, b"\x01a\x07example\0\0\x01\0\x01", &records.concat()].concat();
                message.truncate(message.len() - cut.min(message.len()));
                message
            },
        )
    }

    /// Records of a message as it was captured, tapped, and tapped with all that dnstap allows beside it.
    fn records(recorder: &mut Recorder, dns: &[u8], is_local: bool) -> Vec<RawRecord> {
        let port = if is_local { 5353 } else { 53 };
        let (client, server) = (([203, 0, 113, 77], 40_000).into(), ([192, 0, 2, 53], port).into());
        let seen = Sighting { time: None, source: client, destination: server, protocol: SocketProtocol::UDP, dns };
        let mut records = vec![recorder.captured(&seen, "1".into(), Timestamp(0))];
        let back = Sighting { source: server, destination: client, ..seen };
        records.push(recorder.captured(&back, "2".into(), Timestamp(0)));
        let dnstap = Dnstap {
            message_type: MessageType::TOOL_RESPONSE,
            query_address: Some(&CLIENT),
            query_message: Some(dns),
            response_message: Some(dns),
            ..Dnstap::default()
        };
        let mut frame = bytes::BytesMut::new();
        dnstap.write(&mut frame);
        // `message` again with its `query_address` (4) and a `policy` (15), `extra` (3), and a field of no schema (100).
        for again in [&b"\x72\x0e\x22\x04\xcb\0\x71\x4d\x7a\x06\x12\x04\xcb\0\x71\x4d"[..], b"\x1a\x04\xcb\0\x71\x4d"] {
            frame.extend_from_slice(again);
        }
        frame.extend_from_slice(b"\xa2\x06\x04\xcb\0\x71\x4d");
        let frame = frame.freeze();
        for end in [frame.len(), frame.len() - 1, 20.min(frame.len())] {
            recorder.tapped(frame.slice(..end), Timestamp(0), &mut || "3".into(), &mut records);
        }
        records
    }

    proptest! {
        #[test]
        fn a_hidden_client_is_nowhere_in_any_record(dns in message(), is_local in any::<bool>()) {
            for addresses in [AddressForm::Prefix, AddressForm::Hash] {
                let settings = Settings { addresses, hash_key: "key".to_owned().into(), ..Settings::default() };
                for record in records(&mut Recorder::new(&settings).unwrap(), &dns, is_local) {
                    prop_assert_eq!(memchr::memmem::find(&record.body, &CLIENT), None, "{:?}", record.body);
                }
            }
        }
    }

    fn hidden(dns: &[u8], is_local: bool) -> Vec<u8> {
        let settings = Settings { addresses: AddressForm::Prefix, ..Settings::default() };
        let mut dns = dns.to_vec();
        hide_clients(&AddressMask::new(&settings).unwrap(), &mut dns, is_local);
        dns
    }

    #[test]
    fn what_names_no_client_stays() {
        let question = b"\0\x01\x01\0\0\x01\0\x01\0\0\0\x01\x01a\0\0\x01\0\x01";
        let answer = b"\xc0\x0c\0\x01\0\x01\0\0\0\0\0\x04\xc0\0\x02\x09";
        let opt = b"\0\0\x29\x04\xd0\0\0\0\0\0\x18\0\x0a\0\x08cookie88\0\x08\0\x08\0\x01\x20\0\xcb\0\x71\x4d";
        let whole = [&question[..], answer, opt].concat();
        let mut expected = whole.clone();
        *expected.last_mut().unwrap() = 0;
        assert_eq!(hidden(&whole, false), expected);
        let is_local = hidden(&whole, true);
        assert_eq!(is_local[question.len()..][..16], *b"\xc0\x0c\0\x01\0\x01\0\0\0\0\0\x04\xc0\0\x02\0");
    }
}
