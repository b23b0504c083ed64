//! Packets from capture files: pcap and pcapng.
//!
//! Sources: <https://datatracker.ietf.org/doc/draft-ietf-opsawg-pcap/>,
//! <https://datatracker.ietf.org/doc/draft-ietf-opsawg-pcapng/>.

use super::dnstap::Moment;

/// Bytes of one packet: what libpcap takes at the most.
const PACKET_BYTES_MAX: usize = 256 << 10;

/// Bytes of one pcapng block; blocks of packets are about as large as these.
const BLOCK_BYTES_MAX: usize = 16 << 20;

/// Interfaces of one section of a pcapng file.
const INTERFACES_MAX: usize = 4_096;

/// A packet as captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packet<'a> {
    /// None in the blocks that have no time.
    pub(super) time: Option<Moment>,
    /// What its first bytes are: <https://www.tcpdump.org/linktypes.html>.
    pub(super) link: u16,
    pub(super) bytes: &'a [u8],
}

/// What stands at the front of the bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step<'a> {
    /// It is not whole yet.
    More,
    /// So many bytes without a packet.
    Pass(usize),
    /// So many bytes with one.
    Packet(usize, Packet<'a>),
    /// Nothing that can be told apart from here on, and why.
    Broken(String),
}

/// Reads one file of either form.
#[derive(Debug)]
pub(super) enum Capture {
    Pcap(Pcap),
    Pcapng(Pcapng),
}

impl Capture {
    /// The reader for a file that starts with these four bytes; none if it is no capture.
    pub(super) fn of(magic: [u8; 4]) -> Option<Self> {
        if magic == SECTION_HEADER.to_be_bytes() {
            return Some(Self::Pcapng(Pcapng::default()));
        }
        let big_endian = Endian::Big.u32(magic);
        let (endian, magic) = match big_endian {
            PCAP_MICROS | PCAP_NANOS | PCAP_MODIFIED => (Endian::Big, big_endian),
            _ => (Endian::Little, big_endian.swap_bytes()),
        };
        let (unit_nanos, head_bytes) = match magic {
            PCAP_MICROS => (1_000, 16),
            PCAP_NANOS => (1, 16),
            PCAP_MODIFIED => (1_000, 24),
            _ => return None,
        };
        Some(Self::Pcap(Pcap { endian, unit_nanos, head_bytes, link: None }))
    }

    /// Looks at the front of the bytes.
    pub(super) fn step<'a>(&mut self, bytes: &'a [u8]) -> Step<'a> {
        let step = match self {
            Self::Pcap(pcap) => pcap.step(bytes),
            Self::Pcapng(pcapng) => pcapng.step(bytes),
        };
        step.unwrap_or(Step::More)
    }
}

const PCAP_MICROS: u32 = 0xa1b2_c3d4;
const PCAP_NANOS: u32 = 0xa1b2_3c4d;
/// Of an old patch: eight more bytes before each packet.
const PCAP_MODIFIED: u32 = 0xa1b2_cd34;

const PCAP_HEADER_BYTES: usize = 24;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Endian {
    Big,
    Little,
}

impl Endian {
    fn u32(self, bytes: [u8; 4]) -> u32 {
        match self {
            Self::Big => u32::from_be_bytes(bytes),
            Self::Little => u32::from_le_bytes(bytes),
        }
    }

    fn u32_at(self, bytes: &[u8], at: usize) -> Option<u32> {
        bytes.get(at..)?.first_chunk().map(|&chunk| self.u32(chunk))
    }

    fn u16_at(self, bytes: &[u8], at: usize) -> Option<u16> {
        bytes.get(at..)?.first_chunk().map(|&chunk| match self {
            Self::Big => u16::from_be_bytes(chunk),
            Self::Little => u16::from_le_bytes(chunk),
        })
    }
}

/// A pcap file.
#[derive(Debug)]
pub(super) struct Pcap {
    endian: Endian,
    unit_nanos: u32,
    head_bytes: usize,
    /// None before the file's header.
    link: Option<u16>,
}

impl Pcap {
    /// None while the bytes are not whole.
    fn step<'a>(&mut self, bytes: &'a [u8]) -> Option<Step<'a>> {
        let Some(link) = self.link else {
            let header = bytes.get(..PCAP_HEADER_BYTES)?;
            // The upper half says whether packets end with a checksum.
            self.link = self.endian.u32_at(header, 20).map(|link| link as u16);
            return Some(Step::Pass(PCAP_HEADER_BYTES));
        };
        let head = bytes.get(..self.head_bytes)?;
        let length = self.endian.u32_at(head, 8)? as usize;
        if length > PACKET_BYTES_MAX {
            return Some(Step::Broken(format!("a packet of {length} bytes, should be {PACKET_BYTES_MAX} at the most")));
        }
        let packet = bytes.get(self.head_bytes..self.head_bytes + length)?;
        let fraction = u64::from(self.endian.u32_at(head, 4)?) * u64::from(self.unit_nanos);
        let seconds = u64::from(self.endian.u32_at(head, 0)?) + fraction / 1_000_000_000;
        let time = Some(Moment { seconds, nanos: (fraction % 1_000_000_000) as u32 });
        Some(Step::Packet(self.head_bytes + length, Packet { time, link, bytes: packet }))
    }
}

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
const INTERFACE: u32 = 1;
const OLD_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;

const OPTION_END: u16 = 0;
const OPTION_TIME_RESOLUTION: u16 = 9;
const OPTION_TIME_OFFSET: u16 = 14;

/// A pcapng file.
#[derive(Debug, Default)]
pub(super) struct Pcapng {
    /// Of the section; none before the first.
    endian: Option<Endian>,
    interfaces: Vec<Interface>,
}

#[derive(Clone, Copy, Debug)]
struct Interface {
    link: u16,
    /// Bytes of a packet that are kept at the most; 0 keeps all.
    snap_bytes: u32,
    units_per_second: u64,
    offset_seconds: i64,
}

impl Pcapng {
    fn step<'a>(&mut self, bytes: &'a [u8]) -> Option<Step<'a>> {
        let is_section = bytes.first_chunk()? == &SECTION_HEADER.to_be_bytes();
        if is_section {
            let order = bytes.get(8..)?.first_chunk::<4>()?;
            self.endian = match BYTE_ORDER_MAGIC {
                magic if Endian::Big.u32(*order) == magic => Some(Endian::Big),
                magic if Endian::Little.u32(*order) == magic => Some(Endian::Little),
                _ => return Some(Step::Broken("a section of neither byte order".to_owned())),
            };
            self.interfaces.clear();
        }
        let Some(endian) = self.endian else {
            return Some(Step::Broken("a block before the first section".to_owned()));
        };
        let length = endian.u32_at(bytes, 4)? as usize;
        if !(12..=BLOCK_BYTES_MAX).contains(&length) || !length.is_multiple_of(4) {
            return Some(Step::Broken(format!(
                "a block of {length} bytes, should be 12 to {BLOCK_BYTES_MAX} in steps of four"
            )));
        }
        let block = bytes.get(..length)?;
        if endian.u32_at(block, length - 4) != Some(length as u32) {
            return Some(Step::Broken("a block whose two lengths differ".to_owned()));
        }
        let body = &block[8..length - 4];
        let packet = match endian.u32_at(block, 0)? {
            INTERFACE => return Some(self.interface(endian, body, length)),
            ENHANCED_PACKET => self.packet(endian, body, endian.u32_at(body, 0)? as usize, 20),
            OLD_PACKET => self.packet(endian, body, usize::from(endian.u16_at(body, 0)?), 20),
            SIMPLE_PACKET => self.simple_packet(endian, body),
            _ => return Some(Step::Pass(length)),
        };
        Some(match packet {
            Some(packet) => Step::Packet(length, packet),
            None => Step::Broken("a packet of an unknown interface, or longer than its block".to_owned()),
        })
    }

    fn interface(&mut self, endian: Endian, body: &[u8], length: usize) -> Step<'static> {
        let (Some(link), Some(snap_bytes)) = (endian.u16_at(body, 0), endian.u32_at(body, 4)) else {
            return Step::Broken("an interface without a link type".to_owned());
        };
        if self.interfaces.len() == INTERFACES_MAX {
            return Step::Broken(format!("more than {INTERFACES_MAX} interfaces in a section"));
        }
        let mut interface = Interface { link, snap_bytes, units_per_second: 1_000_000, offset_seconds: 0 };
        let mut at = 8;
        while let (Some(code), Some(size)) = (endian.u16_at(body, at), endian.u16_at(body, at + 2)) {
            let Some(value) = body.get(at + 4..at + 4 + usize::from(size)) else { break };
            match (code, value) {
                (OPTION_END, _) => break,
                (OPTION_TIME_RESOLUTION, &[resolution]) => interface.units_per_second = units_per_second(resolution),
                (OPTION_TIME_OFFSET, value) => {
                    let seconds = value.try_into().map(|value| match endian {
                        Endian::Big => i64::from_be_bytes(value),
                        Endian::Little => i64::from_le_bytes(value),
                    });
                    interface.offset_seconds = seconds.unwrap_or(0);
                }
                _ => {}
            }
            at += 4 + usize::from(size).next_multiple_of(4);
        }
        self.interfaces.push(interface);
        Step::Pass(length)
    }

    fn packet<'a>(&self, endian: Endian, body: &'a [u8], number: usize, data_at: usize) -> Option<Packet<'a>> {
        let interface = self.interfaces.get(number)?;
        let (high, low) = (endian.u32_at(body, 4)?, endian.u32_at(body, 8)?);
        let length = endian.u32_at(body, 12)? as usize;
        let bytes = body.get(data_at..data_at.checked_add(length)?)?;
        let time = interface.moment(u64::from(high) << 32 | u64::from(low));
        Some(Packet { time, link: interface.link, bytes })
    }

    fn simple_packet<'a>(&self, endian: Endian, body: &'a [u8]) -> Option<Packet<'a>> {
        let interface = self.interfaces.first()?;
        let on_wire = endian.u32_at(body, 0)?;
        let kept = if interface.snap_bytes == 0 { on_wire } else { on_wire.min(interface.snap_bytes) };
        let bytes = body.get(4..4_usize.checked_add(kept as usize)?)?;
        Some(Packet { time: None, link: interface.link, bytes })
    }
}

impl Interface {
    /// None where the offset leads before 1970.
    fn moment(&self, units: u64) -> Option<Moment> {
        let seconds = (units / self.units_per_second).checked_add_signed(self.offset_seconds)?;
        let fraction = u128::from(units % self.units_per_second) * 1_000_000_000 / u128::from(self.units_per_second);
        Some(Moment { seconds, nanos: fraction as u32 })
    }
}

/// The highest bit says that it is a power of two, else of ten; finer than 64 bits hold is taken as the finest.
fn units_per_second(resolution: u8) -> u64 {
    let exponent = u32::from(resolution & 0x7f);
    let base: u64 = if resolution & 0x80 == 0 { 10 } else { 2 };
    base.checked_pow(exponent).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Link type, time and bytes of a packet.
    type Seen = (u16, Option<Moment>, Vec<u8>);

    /// All packets, and why it ended early.
    fn read(bytes: &[u8]) -> (Vec<Seen>, Option<String>) {
        let mut capture = Capture::of(*bytes.first_chunk().unwrap()).expect("a capture");
        let (mut packets, mut at) = (Vec::new(), 0);
        loop {
            match capture.step(&bytes[at..]) {
                Step::More => return (packets, None),
                Step::Pass(length) => at += length,
                Step::Packet(length, packet) => {
                    packets.push((packet.link, packet.time, packet.bytes.to_vec()));
                    at += length;
                }
                Step::Broken(reason) => return (packets, Some(reason)),
            }
        }
    }

    fn words(endian: Endian, words: &[u32]) -> Vec<u8> {
        let bytes = |word: &u32| if endian == Endian::Big { word.to_be_bytes() } else { word.to_le_bytes() };
        words.iter().flat_map(bytes).collect()
    }

    fn block(endian: Endian, kind: u32, body: &[u8]) -> Vec<u8> {
        let length = body.len() as u32 + 12;
        [words(endian, &[kind, length]), body.to_vec(), words(endian, &[length])].concat()
    }

    #[test]
    fn pcap_is_read_in_both_byte_orders_and_units() {
        for endian in [Endian::Big, Endian::Little] {
            for (magic, fraction) in [(PCAP_MICROS, 500_000), (PCAP_NANOS, 500_000_000)] {
                let header = words(endian, &[magic, 0, 0, 0, 65_535, 1]);
                let packet = words(endian, &[7, fraction, 2, 2]);
                let file = [&header[..], &packet, &[8, 9], &packet, &[8]].concat();
                let time = Some(Moment { seconds: 7, nanos: 500_000_000 });
                assert_eq!(read(&file), (vec![(1, time, vec![8, 9])], None), "the second packet is cut");
            }
        }
    }

    #[test]
    fn pcapng_is_read_over_sections_interfaces_and_kinds_of_packets() {
        for endian in [Endian::Big, Endian::Little] {
            let section = block(endian, SECTION_HEADER, &words(endian, &[BYTE_ORDER_MAGIC, 0, u32::MAX, u32::MAX]));
            let link = |link: u32| words(endian, &[if endian == Endian::Big { link << 16 } else { link }, 0]);
            let option = |code: u32, size: u32| {
                words(endian, &[if endian == Endian::Big { code << 16 | size } else { size << 16 | code }])
            };
            let offset = if endian == Endian::Big { 100_i64.to_be_bytes() } else { 100_i64.to_le_bytes() };
            let nanos = [link(101), option(9, 1), vec![9, 0, 0, 0], option(14, 8), offset.to_vec()].concat();
            let enhanced =
                |interface, units: u32| [words(endian, &[interface, 0, units, 3, 3]), vec![1, 2, 3, 0]].concat();
            let file = [
                section.clone(),
                block(endian, INTERFACE, &link(1)),
                block(endian, INTERFACE, &nanos),
                block(endian, 0xbad, &[]),
                block(endian, ENHANCED_PACKET, &enhanced(0, 1_000_001)),
                block(endian, ENHANCED_PACKET, &enhanced(1, 1_000_000_001)),
                block(endian, SIMPLE_PACKET, &[words(endian, &[3]), vec![4, 5, 6, 0]].concat()),
                section,
                block(endian, ENHANCED_PACKET, &enhanced(0, 0)),
            ]
            .concat();
            let (packets, broken) = read(&file);
            let at = |seconds, nanos| Some(Moment { seconds, nanos });
            let expected =
                [(1, at(1, 1_000), vec![1, 2, 3]), (101, at(101, 1), vec![1, 2, 3]), (1, None, vec![4, 5, 6])];
            assert_eq!(packets, expected);
            assert_eq!(broken.unwrap(), "a packet of an unknown interface, or longer than its block");
        }
    }

    #[test]
    fn a_section_of_the_other_byte_order_follows() {
        let section = |endian| {
            let head = words(endian, &[BYTE_ORDER_MAGIC, 0, u32::MAX, u32::MAX]);
            let link = words(endian, &[if endian == Endian::Big { 101 << 16 } else { 101 }, 0]);
            let packet = [words(endian, &[0, 0, 7, 3, 3]), vec![1, 2, 3, 0]].concat();
            let blocks = [(SECTION_HEADER, head), (INTERFACE, link), (ENHANCED_PACKET, packet)];
            blocks.map(|(kind, body)| block(endian, kind, &body)).concat()
        };
        let file = [Endian::Big, Endian::Little, Endian::Big].map(section).concat();
        let packet = (101, Some(Moment { seconds: 0, nanos: 7_000 }), vec![1, 2, 3]);
        assert_eq!(read(&file), (vec![packet; 3], None));
    }

    #[test]
    fn what_cannot_be_right_ends_the_reading() {
        let broken = |bytes: Vec<u8>| read(&bytes).1.unwrap();
        let header = words(Endian::Big, &[PCAP_MICROS, 0, 0, 0, 0, 1]);
        let huge = [header, words(Endian::Big, &[0, 0, 1 << 20, 0])].concat();
        assert_eq!(broken(huge), "a packet of 1048576 bytes, should be 262144 at the most");
        let section = words(Endian::Big, &[SECTION_HEADER, 28, 0]);
        assert_eq!(broken(section), "a section of neither byte order");
        assert!(Capture::of(*b"{\"a\"").is_none());
    }

    #[test]
    fn resolutions_are_powers_of_ten_or_two() {
        assert_eq!(units_per_second(6), 1_000_000);
        assert_eq!(units_per_second(0x80 | 10), 1_024);
        assert_eq!(units_per_second(0x7f), u64::MAX);
    }
}
