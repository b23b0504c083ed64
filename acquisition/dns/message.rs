//! A DNS message, read as far as it can be. Source: RFC 1035, section 4.1.

use std::ops::Range;

use super::edns::{ClientSubnet, Edns, EdnsOption, OPT};
use super::name::{Form, Malformed, skip_name, write_name};
use super::rdata::write_data;
use super::types::{push_class, push_type};

/// Bytes of the header; a message with less says nothing.
pub(super) const HEADER_BYTES: usize = 12;

/// Bytes of all names and data of one message, written out. Whole messages seen stay below 200 KB; pointers let a
/// hostile one grow to 100 times its size.
const TEXT_BYTES_MAX: usize = 1 << 20;

/// The bit that must be zero.
const Z_FLAG: u32 = 9;

/// The fixed part of every message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) id: u16,
    pub(super) flags: u16,
    /// Questions, answers, authority and additional records, as the header says.
    pub(super) counts: [u16; 4],
}

impl Header {
    /// None below [`HEADER_BYTES`].
    pub(super) fn read(message: &[u8]) -> Option<Self> {
        let head = message.first_chunk::<HEADER_BYTES>()?;
        let number = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        Some(Self { id: number(0), flags: number(2), counts: [number(4), number(6), number(8), number(10)] })
    }

    /// A bit of the flags, counted from the highest: QR is 0, AA 5, TC 6, RD 7, RA 8, Z 9, AD 10, CD 11.
    pub(super) fn flag(self, bit: u32) -> bool {
        self.flags & (0x8000 >> bit) != 0
    }

    /// QR.
    pub(super) fn is_response(self) -> bool {
        self.flag(0)
    }

    pub(super) fn opcode(self) -> u16 {
        self.flags >> 11 & 0xf
    }

    /// The lower four bits of the RCODE; EDNS has the others.
    pub(super) fn rcode_low(self) -> u16 {
        self.flags & 0xf
    }
}

/// Where a text stands in a message's texts.
pub(super) type Place = Range<usize>;

/// A question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    /// As it was sent.
    pub(super) name_raw: Place,
    pub(super) name: Place,
    pub(super) type_number: u16,
    pub(super) type_name: Place,
    pub(super) class_name: Place,
    /// The highest bit of the class, of mDNS: RFC 6762, section 5.4.
    pub(super) unicast_response: bool,
}

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    section: Section,
    pub(super) name: Place,
    pub(super) type_name: Place,
    pub(super) class_name: Place,
    pub(super) ttl: u32,
    /// In presentation form.
    pub(super) data: Place,
}

/// The three kinds of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Section {
    Answer,
    Authority,
    Additional,
}

impl Section {
    fn singular(self) -> &'static str {
        match self {
            Self::Answer => "answer",
            Self::Authority => "authority record",
            Self::Additional => "additional record",
        }
    }
}

/// A message, and what is wrong with it: what comes before that is there.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Message<'a> {
    /// All names and data one after the other.
    texts: String,
    pub(super) questions: Vec<Question>,
    /// In the order of their sections.
    records: Vec<Record>,
    /// The first OPT record, which is none of the additional records here.
    pub(super) edns: Option<Edns<'a>>,
    /// What is wrong first: `answer 2: a name points forward or to itself`.
    pub(super) malformed: Option<String>,
}

impl<'a> Message<'a> {
    /// Reads what follows the header. In mDNS the highest bit of a class is none of the class.
    pub(super) fn read(message: &'a [u8], header: Header, is_mdns: bool) -> Self {
        let mut reader = Reader::new(message, is_mdns);
        // What kept it from being read to its end is noted.
        let _noted = reader.fill(header);
        let mut read = reader.read;
        read.texts = String::from_utf8(reader.texts).unwrap_or_default();
        read
    }

    /// The text that a question or record points to.
    pub(super) fn text(&self, place: &Place) -> &str {
        self.texts.get(place.clone()).unwrap_or_default()
    }

    /// The records of a section, without OPT.
    pub(super) fn section(&self, section: Section) -> &[Record] {
        let start = self.records.partition_point(|record| record.section < section);
        let end = self.records.partition_point(|record| record.section <= section);
        self.records.get(start..end).unwrap_or_default()
    }

    /// Notes what is wrong with the EDNS record, if nothing was before.
    pub(super) fn note_edns(&mut self, malformed: Malformed) {
        self.malformed.get_or_insert_with(|| format!("EDNS: {}", malformed.reason()));
    }
}

struct Reader<'a> {
    message: &'a [u8],
    at: usize,
    is_mdns: bool,
    texts: Vec<u8>,
    read: Message<'a>,
}

/// The message cannot be read any further; why is noted.
struct Ended;

impl<'a> Reader<'a> {
    fn new(message: &'a [u8], is_mdns: bool) -> Self {
        let texts = Vec::with_capacity(message.len() * 3);
        Self { message, at: HEADER_BYTES, is_mdns, texts, read: Message::default() }
    }

    fn fill(&mut self, header: Header) -> Result<(), Ended> {
        let [questions, sections @ ..] = header.counts;
        // A question has 5 bytes at least and a record 11, whatever the header promises.
        let bytes = self.message.len();
        self.read.questions.reserve_exact(usize::from(questions).min(bytes / 5));
        for number in 1..=questions {
            let question = self.question();
            let question = self.noted(question, "question", number)?;
            self.read.questions.push(question);
        }
        let promised = sections.iter().map(|&count| usize::from(count)).sum::<usize>();
        self.read.records.reserve_exact(promised.min(bytes / 11));
        for (section, count) in [Section::Answer, Section::Authority, Section::Additional].into_iter().zip(sections) {
            for number in 1..=count {
                let outcome = self.record(section, number);
                self.noted(outcome, section.singular(), number)?;
            }
        }
        Ok(())
    }

    fn noted<T>(&mut self, outcome: Result<T, Malformed>, what: &str, number: u16) -> Result<T, Ended> {
        outcome.map_err(|malformed| {
            self.note(malformed, what, number);
            Ended
        })
    }

    fn note(&mut self, malformed: Malformed, what: &str, number: u16) {
        self.read.malformed.get_or_insert_with(|| format!("{what} {number}: {}", malformed.reason()));
    }

    fn question(&mut self) -> Result<Question, Malformed> {
        let start = self.at;
        let name_raw = self.name(Form::Exact)?;
        self.at = start;
        let name = self.name(Form::Lower)?;
        let rest = self.take(4)?;
        let (number, class) = (u16::from_be_bytes([rest[0], rest[1]]), u16::from_be_bytes([rest[2], rest[3]]));
        Ok(Question {
            name_raw,
            name,
            type_number: number,
            type_name: self.text(|texts| push_type(number, texts)),
            class_name: self.class(class),
            unicast_response: class & 0x8000 != 0,
        })
    }

    fn record(&mut self, section: Section, number: u16) -> Result<(), Malformed> {
        let name = self.name(Form::Lower)?;
        let head = self.take(10)?;
        let pair = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        let (record_type, class) = (pair(0), pair(2));
        let ttl = u32::from(pair(4)) << 16 | u32::from(pair(6));
        let data_start = self.at;
        let data = self.take(usize::from(pair(8)))?;
        if record_type == OPT && self.read.edns.is_none() {
            self.read.edns = Some(Edns::new(class, ttl, data));
            return Ok(());
        }
        let type_name = self.text(|texts| push_type(record_type, texts));
        let class_name = self.class(class);
        let start = self.texts.len();
        if let Err(malformed) = write_data(record_type, self.message, data_start..self.at, &mut self.texts) {
            self.note(malformed, section.singular(), number);
        }
        let data = start..self.texts.len();
        self.read.records.push(Record { section, name, type_name, class_name, ttl, data });
        match self.texts.len() > TEXT_BYTES_MAX {
            true => Err(Malformed::TooLarge),
            false => Ok(()),
        }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let taken = self.message.get(self.at..self.at + count).ok_or(Malformed::Cut)?;
        self.at += count;
        Ok(taken)
    }

    fn name(&mut self, form: Form) -> Result<Place, Malformed> {
        let start = self.texts.len();
        self.at = write_name(self.message, self.at, form, &mut self.texts)?;
        Ok(start..self.texts.len())
    }

    fn class(&mut self, class: u16) -> Place {
        let class = if self.is_mdns { class & 0x7fff } else { class };
        self.text(|texts| push_class(class, texts))
    }

    fn text(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Place {
        let start = self.texts.len();
        write(&mut self.texts);
        start..self.texts.len()
    }
}

/// Whether bytes are nothing but a DNS message: a header without contradictions, one question of a known class, and
/// records that end where the bytes end. What is no DNS fails at the header, most often.
pub(super) fn is_whole_message(bytes: &[u8]) -> bool {
    let Some(header) = Header::read(bytes) else { return false };
    let [questions, sections @ ..] = header.counts;
    let is_likely = questions == 1
        && matches!(header.opcode(), 0 | 4 | 5)
        && !header.flag(Z_FLAG)
        && (header.is_response() || header.rcode_low() == 0);
    is_likely && is_whole_body(bytes, sections).unwrap_or(false)
}

fn is_whole_body(bytes: &[u8], sections: [u16; 3]) -> Result<bool, Malformed> {
    let mut name = Vec::with_capacity(64);
    let mut at = write_name(bytes, HEADER_BYTES, Form::Exact, &mut name)? + 4;
    let is_known_class = matches!(bytes.get(at - 2..at), Some([0, 1 | 3 | 4 | 254 | 255]));
    for _ in 0..sections.iter().map(|&count| u32::from(count)).sum() {
        at = skip_name(bytes, at)?;
        let length = bytes.get(at + 8..).and_then(|rest| rest.first_chunk()).copied().ok_or(Malformed::Cut)?;
        at += 10 + usize::from(u16::from_be_bytes(length));
    }
    Ok(is_known_class && at == bytes.len())
}

/// The client subnet of a message's first OPT record, found without writing anything out.
pub(super) fn client_subnet(message: &[u8]) -> Option<ClientSubnet<'_>> {
    let header = Header::read(message)?;
    let [questions, sections @ ..] = header.counts;
    let mut at = HEADER_BYTES;
    for _ in 0..questions {
        at = skip_name(message, at).ok()? + 4;
    }
    for _ in 0..sections.iter().map(|&count| u32::from(count)).sum() {
        at = skip_name(message, at).ok()?;
        let head = message.get(at..)?.first_chunk::<10>()?;
        let length = usize::from(u16::from_be_bytes([head[8], head[9]]));
        let data = message.get(at + 10..at + 10 + length)?;
        if u16::from_be_bytes([head[0], head[1]]) == OPT {
            let options = Edns::new(0, 0, data).options();
            return options.filter_map(Result::ok).find_map(|(_, option)| match option {
                EdnsOption::ClientSubnet(subnet) => Some(subnet),
                _ => None,
            });
        }
        at += 10 + length;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header with these counts and a question for `a.example`, and what follows.
    fn message(counts: [u8; 4], rest: &[u8]) -> Vec<u8> {
        let [questions, answers, authorities, additionals] = counts;
        let header = [0, 1, 0x81, 0x80, 0, questions, 0, answers, 0, authorities, 0, additionals];
        [&header[..], b"\x01a\x07example\0\0\x01\0\x01", rest].concat()
    }

    fn read(message: &[u8]) -> Message<'_> {
        Message::read(message, Header::read(message).unwrap(), false)
    }

    const ADDRESS: &[u8] = b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01";
    const SUBNET: &[u8] = b"\0\0\x29\x04\xd0\0\0\0\0\0\x0b\0\x08\0\x07\0\x01\x18\0\xc0\0\x02";

    #[test]
    fn sections_are_told_apart_and_opt_is_none_of_the_additional_records() {
        let message = message([1, 1, 1, 2], &[ADDRESS, ADDRESS, SUBNET, ADDRESS].concat());
        let read = read(&message);
        let sections = [Section::Answer, Section::Authority, Section::Additional];
        assert_eq!(sections.map(|section| read.section(section).len()), [1, 1, 1]);
        assert_eq!(read.text(&read.section(Section::Additional)[0].data), "192.0.2.1");
        assert_eq!((read.edns.unwrap().udp_size, read.malformed), (1232, None));
    }

    #[test]
    fn what_comes_before_a_damage_is_read_and_the_damage_is_named() {
        let whole = message([1, 2, 0, 0], &[ADDRESS, ADDRESS].concat());
        let cut = read(&whole[..whole.len() - 1]);
        assert_eq!(cut.section(Section::Answer).len(), 1);
        assert_eq!(cut.malformed.as_deref(), Some("answer 2: the message ends early"));
        let misfit = message([1, 2, 0, 0], &[b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x01\xc0", ADDRESS].concat());
        let misfit = read(&misfit);
        let data: Vec<_> = misfit.section(Section::Answer).iter().map(|record| misfit.text(&record.data)).collect();
        assert_eq!(data, [r"\# 1 c0", "192.0.2.1"]);
        assert_eq!(misfit.malformed.as_deref(), Some("answer 1: the data does not fit the type"));
    }

    #[test]
    fn a_message_that_unfolds_without_end_is_cut_off() {
        // Names of 250 bytes, each a pointer of two.
        let label = [&[63][..], &[7; 63]].concat();
        let name = [&label[..], &label, &label, &[0]].concat();
        let mut hostile = vec![0, 1, 0, 0, 0, 1, 0x13, 0x88, 0, 0, 0, 0];
        hostile.extend(&name);
        hostile.extend(b"\0\x01\0\x01");
        for _ in 0..5_000 {
            hostile.extend(b"\xc0\x0c\0\x02\0\x01\0\0\0\0\0\x02\xc0\x0c");
        }
        let read = read(&hostile);
        assert!(read.texts.len() < TEXT_BYTES_MAX + 4_096);
        assert!(read.malformed.unwrap().ends_with("too large when written out"));
    }

    #[test]
    fn the_client_subnet_is_found_in_place() {
        let whole = message([1, 1, 0, 1], &[ADDRESS, SUBNET].concat());
        assert_eq!(client_subnet(&whole).unwrap().address, [192, 0, 2]);
        assert_eq!(client_subnet(&whole[..whole.len() - 1]), None);
        assert_eq!(client_subnet(&message([1, 0, 0, 0], &[])), None);
    }

    #[test]
    fn only_a_message_and_nothing_else_is_a_whole_message() {
        let whole = message([1, 1, 0, 1], &[ADDRESS, SUBNET].concat());
        assert!(is_whole_message(&whole));
        assert!(!is_whole_message(&[&whole[..], &[0]].concat()));
        assert!(!is_whole_message(&whole[..whole.len() - 1]));
        assert!(!is_whole_message(&message([2, 1, 0, 0], ADDRESS)));
        assert!(!is_whole_message(&[0; 40]));
    }
}
