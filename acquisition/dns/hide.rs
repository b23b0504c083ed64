//! Hides addresses of clients in a DNS message, in place and without changing its length.
//!
//! | what | becomes |
//! | --- | --- |
//! | the address of every EDNS client subnet | as `dns.addresses` says |
//! | EDNS options that name the client's device (`UMBRELLA-IDENT`, `DEVICE-ID`), and those without a name | zeros |
//! | addresses in the A and AAAA records of mDNS and LLMNR, whose names are somebody's machines | as `dns.addresses` says |
//! | data of types that are not known, or have no presentation form | [`FILLER`] |
//! | all behind the first question of a message that is not sound | [`FILLER`] |
//!
//! A client subnet could hide in what a wrong count or length makes look like the data of another record, a name or a
//! question. So a message is only kept whole if nothing in it can be anything else than what it is read as. It is **sound**
//! if
//!
//! - its counts lead to its last byte, not before and not beyond it;
//! - it has one question at the most, but in mDNS;
//! - all types and classes can be those of a question or record, and the data of each record fits its type;
//! - OPT stands once, without a name, in the additional section, and its options fill it, each client subnet as RFC 7871
//!   has it.
//!
//! The first question stays even where the message is not sound: what follows the header is a name and a type, never an
//! option. What a client asks for is kept, whatever it is.

use super::address::AddressMask;
use super::edns::{CLIENT_SUBNET, ClientSubnet, OPT, option_name};
use super::message::{HEADER_BYTES, Header};
use super::name::skip_name;
use super::rdata::write_data;
use super::types::fields;

/// Starts no name, so that what is hidden is never read as a record.
const FILLER: u8 = 0x80;

/// Options with a name that say the device's number, organisation or hardware address. Source:
/// <https://docs.umbrella.com/umbrella-api/docs/identifying-dns-traffic2>. Those that dnsmasq adds have no name.
const CLIENT_OPTIONS: [u16; 2] = [20_292, 26_946];

/// IN, CH, HS, NONE and ANY.
const CLASSES: [u16; 5] = [1, 3, 4, 254, 255];

/// The bit of a class that mDNS uses for something else.
const MDNS_BIT: u16 = 0x8000;

const A: u16 = 1;
const AAAA: u16 = 28;

/// See the module; `is_local` says that it is of mDNS or LLMNR.
pub(super) fn hide_clients(mask: &AddressMask, dns: &mut [u8], is_local: bool) {
    let header = Header::read(dns);
    let is_sound = header.is_some_and(|header| hide_sound(mask, dns, header, is_local).is_some());
    if is_sound {
        return;
    }
    let kept = header.map_or(0, |header| match header.counts {
        [0, ..] => HEADER_BYTES,
        _ => question_end(dns, HEADER_BYTES, is_local).unwrap_or(HEADER_BYTES),
    });
    if let Some(rest) = dns.get_mut(kept..) {
        rest.fill(FILLER);
    }
}

/// None where the message is not sound; some of it is hidden then.
fn hide_sound(mask: &AddressMask, dns: &mut [u8], header: Header, is_local: bool) -> Option<()> {
    let [questions, sections @ ..] = header.counts;
    if questions > 1 && !is_local {
        return None;
    }
    let mut at = HEADER_BYTES;
    for _ in 0..questions {
        at = question_end(dns, at, is_local)?;
    }
    let (mut has_opt, mut written) = (false, Vec::new());
    for (section, count) in sections.into_iter().enumerate() {
        for _ in 0..count {
            let record = Place::read(dns, at, is_local)?;
            let is_opt = record.kind == OPT;
            if is_opt && (has_opt || section != 2) {
                return None;
            }
            has_opt |= is_opt;
            record.hide(mask, dns, is_local, &mut written)?;
            at = record.end;
        }
    }
    (at == dns.len()).then_some(())
}

/// Where a question ends; none where it cannot be one.
fn question_end(dns: &[u8], at: usize, is_local: bool) -> Option<usize> {
    let name_end = skip_name(dns, at).ok()?;
    let &[type_high, type_low, class_high, class_low] = dns.get(name_end..)?.first_chunk()?;
    let is_type = !matches!(u16::from_be_bytes([type_high, type_low]), 0 | OPT);
    (is_type && is_class(u16::from_be_bytes([class_high, class_low]), is_local)).then_some(name_end + 4)
}

fn is_class(class: u16, is_local: bool) -> bool {
    CLASSES.contains(&if is_local { class & !MDNS_BIT } else { class })
}

/// Where a record's data stands.
struct Place {
    kind: u16,
    start: usize,
    end: usize,
}

impl Place {
    /// None where what starts at `at` cannot be a record.
    fn read(dns: &[u8], at: usize, is_local: bool) -> Option<Self> {
        let head_at = skip_name(dns, at).ok()?;
        let head = dns.get(head_at..)?.first_chunk::<10>()?;
        let pair = |place: usize| u16::from_be_bytes([head[place], head[place + 1]]);
        let (kind, class, start) = (pair(0), pair(2), head_at + 10);
        let is_record = match kind {
            0 => false,
            OPT => head_at == at + 1,
            _ => is_class(class, is_local),
        };
        is_record.then_some(Self { kind, start, end: start + usize::from(pair(8)) })
    }

    /// Hides what its data says of a client; none where the data is not of its type. `written` is for its text.
    fn hide(&self, mask: &AddressMask, dns: &mut [u8], is_local: bool, written: &mut Vec<u8>) -> Option<()> {
        let &Self { kind, start, end } = self;
        if kind == OPT {
            return hide_options(mask, dns.get_mut(start..end)?);
        }
        let is_known = fields(kind).is_some();
        if is_known {
            dns.get(start..end)?;
            written.clear();
            write_data(kind, dns, start..end, written).ok()?;
        }
        let data = dns.get_mut(start..end)?;
        match kind {
            A | AAAA if is_local => mask.hide(data),
            _ if !is_known => data.fill(FILLER),
            _ => {}
        }
        Some(())
    }
}

/// None where they are not whole, or one is not as its type asks for.
fn hide_options(mask: &AddressMask, mut options: &mut [u8]) -> Option<()> {
    while !options.is_empty() {
        let &[high, low, length_high, length_low] = options.first_chunk()?;
        let end = 4 + usize::from(u16::from_be_bytes([length_high, length_low]));
        let (option, rest) = std::mem::take(&mut options).split_at_mut_checked(end)?;
        hide_option(mask, u16::from_be_bytes([high, low]), &mut option[4..])?;
        options = rest;
    }
    Some(())
}

fn hide_option(mask: &AddressMask, code: u16, data: &mut [u8]) -> Option<()> {
    if code == CLIENT_SUBNET {
        let (is_ipv6, bits) = ClientSubnet::read(data).map(|of| (of.is_ipv6, usize::from(of.source_bits)))?;
        let is_exact = data.len() == 4 + bits.div_ceil(8);
        return is_exact.then(|| mask.hide_subnet(&mut data[4..], is_ipv6, bits));
    }
    if option_name(code).is_none() || CLIENT_OPTIONS.contains(&code) {
        data.fill(0);
    }
    Some(())
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

    /// An OPT record; its size and flags are what a wrong count takes for lengths.
    fn opt() -> impl Strategy<Value = Vec<u8>> {
        let size = prop_oneof![Just(512_u16), Just(1232), Just(4096), any::<u16>()];
        let flags = prop_oneof![Just([0; 4]), Just([0, 0, 0x80, 0]), any::<[u8; 4]>()];
        (size, flags, prop::collection::vec(option(), 0..3)).prop_map(|(size, flags, options)| {
            let options = options.concat();
            let length = (options.len() as u16).to_be_bytes();
            [&b"\0\0\x29"[..], &size.to_be_bytes(), &flags, &length, &options].concat()
        })
    }

    fn record() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            3 => opt(),
            2 => Just(b"\xc0\x0c\0\x10\0\x01\0\0\0\0\0\x02\x01a".to_vec()),
            1 => Just(b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01".to_vec()),
            1 => Just(b"\xc0\x0c\xff\0\0\x01\0\0\0\0\0\x01\0".to_vec()),
            1 => Just(b"\x80\0\0\x10\0\x01\0\0\0\0\0\0".to_vec()),
        ]
    }

    fn question() -> impl Strategy<Value = Vec<u8>> {
        let kind = prop_oneof![Just(1_u16), Just(16), Just(10), Just(255), any::<u16>()];
        kind.prop_map(|kind| [&b"\x01a\x07example\0"[..], &kind.to_be_bytes(), &[0, 1]].concat())
    }

    /// A message whose counts may be wrong, and whose records may stand anywhere.
    fn message() -> impl Strategy<Value = Vec<u8>> {
        let counts = [0..4_u8, 0..3, 0..3, 0..4];
        let questions = prop::collection::vec(question(), 0..3);
        let cut = prop_oneof![2 => Just(0_usize), 1 => 0..60_usize];
        (any::<[u8; 4]>(), counts, questions, prop::collection::vec(record(), 0..5), cut).prop_map(
            |(head, counts, questions, records, cut)| {
                let counts = counts.map(|count| [0, count]).concat();
                let mut message = [&head[..], &counts, &questions.concat(), &records.concat()].concat();
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

    #[test]
    fn what_a_wrong_count_makes_look_like_something_else_is_not_kept() {
        const ADDRESS: &[u8] = b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01";
        let mut kept = 0;
        for (kind, size, flags, has_answer) in [1_u8, 10, 16, 255]
            .into_iter()
            .flat_map(|kind| [512_u16, 1232, 4096].map(|size| (kind, size)))
            .flat_map(|(kind, size)| [(kind, size, 0, false), (kind, size, 0x80, false), (kind, size, 0x80, true)])
        {
            let opt =
                [&b"\0\0\x29"[..], &size.to_be_bytes(), &[0, 0, flags, 0, 0, 12, 0, 8, 0, 8, 0, 1, 32, 0], &CLIENT];
            let answer = if has_answer { ADDRESS } else { b"" };
            let body = [b"\x01a\x07example\0\0", &[kind, 0, 1][..], answer, &opt.concat()].concat();
            for counts in 0..=255_u8 {
                let counts = [counts >> 6, counts >> 4 & 3, counts >> 2 & 3, counts & 3];
                let head = [&[0, 1, 0x81, 0x80][..], &counts.map(|count| [0, count]).concat()].concat();
                let hidden = hidden(&[&head[..], &body].concat(), false);
                assert_eq!(memchr::memmem::find(&hidden, &CLIENT), None, "{counts:?}");
                let [questions, answers, authorities, additionals] = counts;
                let records = answers + authorities + additionals;
                let is_true = questions == 1 && additionals > 0 && records == 1 + u8::from(has_answer);
                assert_eq!(hidden.last() == Some(&0), is_true, "{counts:?} {hidden:?}");
                assert!(counts[0] == 0 || hidden.starts_with(&[&head[..], &body[..14]].concat()), "{counts:?}");
                kept += u8::from(is_true);
            }
        }
        assert_eq!(kept, 24 + 12 * 3);
    }

    #[test]
    fn what_is_not_sound_keeps_its_first_question() {
        let question = b"\0\x01\x01\0\0\x01\0\x01\0\0\0\0\x01a\0\0\x01\0\x01";
        let texts = b"\xc0\x0c\0\x10\0\x01\0\0\0\0\0\x02\x01a";
        for (rest, is_kept) in [
            (&texts[..], true),
            (&texts[1..], false),
            (b"\xc0\x0c\0\x10\0\x01\0\0\0\0\0\x02\x02a", false),
            (b"\xc0\x0c\0\x10\0\x09\0\0\0\0\0\x02\x01a", false),
            (b"\0\0\x29\x04\xd0\0\0\0\0\0\0", false),
            (&[&texts[..], &[0]].concat(), false),
        ] {
            let message = [&question[..], rest].concat();
            let expected = if is_kept { message.clone() } else { [&question[..], &vec![FILLER; rest.len()]].concat() };
            assert_eq!(hidden(&message, false), expected, "{rest:?}");
        }
        let unknown = [&question[..], b"\xc0\x0c\xff\0\0\x01\0\0\0\0\0\x04\xcb\0\x71\x4d"].concat();
        let expected = [&question[..], b"\xc0\x0c\xff\0\0\x01\0\0\0\0\0\x04\x80\x80\x80\x80"].concat();
        assert_eq!(hidden(&unknown, false), expected, "nobody knows what its data says");
        let browsed =
            [&question[..5], b"\x02", &question[6..7], b"\0", &question[8..], b"\x01b\0\0\x0c\x80\x01"].concat();
        assert_eq!(hidden(&browsed, true), browsed, "mDNS asks several questions");
        assert_eq!(hidden(&browsed, false)[question.len()..], [FILLER; 7]);
    }
}
