//! A DNS message, read as far as it can be. Source: RFC 1035, section 4.1.

use std::ops::Range;

use super::edns::{Edns, OPT};
use super::name::{Form, Malformed, skip_name, write_name};
use super::rdata::write_data;
use super::types::{push_class, push_type};

/// Bytes of the header; a message with less says nothing.
pub(super) const HEADER_BYTES: usize = 12;

/// Bytes of all names and data of a message, written out: so many, and so many for each of its bytes. Whole messages seen
/// stay below a quarter of it; pointers let a hostile one grow to 100 times its size, and a batch has many messages.
const TEXT_BYTES_MAX: usize = 16 << 10;
const TEXT_BYTES_PER_BYTE_MAX: usize = 8;

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
    text_bytes_max: usize,
    read: Message<'a>,
}

/// The message cannot be read any further; why is noted.
struct Ended;

impl<'a> Reader<'a> {
    fn new(message: &'a [u8], is_mdns: bool) -> Self {
        let texts = Vec::with_capacity(message.len() * 3);
        let text_bytes_max = TEXT_BYTES_MAX + message.len() * TEXT_BYTES_PER_BYTE_MAX;
        Self { message, at: HEADER_BYTES, is_mdns, texts, text_bytes_max, read: Message::default() }
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
        let exact = self.texts.get(name_raw.clone()).unwrap_or_default();
        let is_plain = exact.iter().all(|&byte| byte.is_ascii() && byte != b'\\' && !byte.is_ascii_uppercase());
        let name = if is_plain {
            name_raw.clone()
        } else {
            self.at = start;
            self.name(Form::Lower)?
        };
        let rest = self.take(4)?;
        self.check_size()?;
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
        self.check_size()?;
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
        self.check_size()?;
        let data = start..self.texts.len();
        self.read.records.push(Record { section, name, type_name, class_name, ttl, data });
        Ok(())
    }

    /// What was written last is left out where it is too much; it is one name or the data of one record.
    fn check_size(&self) -> Result<(), Malformed> {
        match self.texts.len() > self.text_bytes_max {
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

    /// A name of 255 bytes, each of which is written as four.
    fn long_name() -> Vec<u8> {
        let label = [&[63][..], &[7; 63]].concat();
        [&label[..], &label, &label, &[61], &[7; 61], &[0]].concat()
    }

    fn hostile(counts: [u16; 4], rest: &[u8], times: usize) -> Vec<u8> {
        let mut hostile = vec![0, 1, 0x80, 0];
        hostile.extend(counts.iter().flat_map(|count| count.to_be_bytes()));
        hostile.extend(long_name());
        hostile.extend(b"\0\x01\0\x01");
        hostile.extend(rest.repeat(times));
        hostile
    }

    #[test]
    fn a_message_that_unfolds_without_end_is_cut_off() {
        let names = b"\xc0\x0c\0\x02\0\x01\0\0\0\0\0\x02\xc0\x0c";
        let records = hostile([1, 4_000, 0, 0], names, 4_000);
        let questions = hostile([10_001, 0, 0, 0], b"\xc0\x0c\0\x01\0\x01", 10_000);
        let bits: Vec<u8> = (0..=255).flat_map(|_| [&[0xf0, 255][..], &[0xff; 255]].concat()).take(60_000).collect();
        let head = |kind: u8, length: usize| {
            [&[0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 0][..], &(length as u16).to_be_bytes()].concat()
        };
        let types = hostile([1, 1, 0, 0], &[head(47, 60_001), vec![0], bits].concat(), 1);
        let host = [head(55, 60_004), vec![0, 2, 0, 0], b"\xc0\x0c".repeat(30_000)].concat();
        let host = hostile([1, 1, 0, 0], &host, 1);
        for (message, malformed) in [
            (records, "the names and data are too large when written out"),
            (questions, "the names and data are too large when written out"),
            (types, "the data does not fit the type"),
            (host, "the data does not fit the type"),
        ] {
            let read = read(&message);
            let most = TEXT_BYTES_MAX + message.len() * TEXT_BYTES_PER_BYTE_MAX;
            assert!(read.texts.len() < most + 2_048, "{} of {most}", read.texts.len());
            assert!(read.texts.capacity() < 4 * most, "{}", read.texts.capacity());
            assert!(read.malformed.as_ref().unwrap().ends_with(malformed), "{:?}", read.malformed);
        }
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
