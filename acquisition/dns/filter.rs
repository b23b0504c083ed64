//! What the kernel hands over of an interface's packets: a program for its classic packet filter, made of the ports.
//!
//! It sees a packet from the network layer on, as sockets of the kind `SOCK_DGRAM` do. It lets through
//!
//! - UDP and TCP from or to one of the ports, and to the ports of VXLAN and Geneve;
//! - what only the reader of packets can tell: fragments, of which the later ones have no ports, extension headers, IP in
//!   IP, GRE, and what has a VLAN tag or MPLS label before it;
//! - nothing else.
//!
//! A loopback interface shows each packet twice; what goes out is left out there, so that it is neither read nor counted
//! as dropped twice.
//!
//! Source: <https://www.kernel.org/doc/html/latest/networking/filter.html>.

/// Ports of a filter: each takes eight of the 4,096 instructions that a program may have.
pub(super) const PORTS_MAX: usize = 256;

/// VXLAN, also GPE, and Geneve, in which packets may be that carry DNS.
const TUNNEL_PORTS: [u16; 3] = [4789, 4790, 6081];

/// One instruction: `struct sock_filter`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Instruction {
    pub(super) code: u16,
    /// How many instructions are left out if a test holds.
    pub(super) yes: u8,
    /// And if not.
    pub(super) no: u8,
    pub(super) value: u32,
}

const LOAD_BYTE: u16 = 0x30;
const LOAD_HALF: u16 = 0x28;
const LOAD_HALF_FROM_X: u16 = 0x48;
/// X becomes the length of an IPv4 header.
const LOAD_X_HEADER: u16 = 0xb1;
const JUMP: u16 = 0x05;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_BITS: u16 = 0x45;
const RETURN: u16 = 0x06;

/// More bytes than a packet has: all of it.
const KEEP: Instruction = Instruction { code: RETURN, yes: 0, no: 0, value: 1 << 18 };
const DROP: Instruction = Instruction { code: RETURN, yes: 0, no: 0, value: 0 };

/// Where a load finds the packet's EtherType: `SKF_AD_OFF + SKF_AD_PROTOCOL`.
const ETHERTYPE: u32 = 0xffff_f000;

/// The same for who it is for: `SKF_AD_OFF + SKF_AD_PKTTYPE`.
const PACKET_TYPE: u32 = 0xffff_f004;

/// And for what kind of interface it passes: `SKF_AD_OFF + SKF_AD_HATYPE`.
const INTERFACE_TYPE: u32 = 0xffff_f01c;

/// `ARPHRD_LOOPBACK`.
const LOOPBACK: u32 = 772;

/// `PACKET_OUTGOING`.
const OUTGOING: u32 = 4;

const IPV4: u32 = 0x0800;
const IPV6: u32 = 0x86dd;
const TAGGED: [u32; 5] = [0x8100, 0x88a8, 0x9100, 0x8847, 0x8848];

const TCP: u32 = 6;
const UDP: u32 = 17;
/// IP in IP, IPv6 in IP, GRE, and the authentication header, behind which anything may be.
const TUNNELS: [u32; 4] = [4, 41, 47, 51];
/// Hop-by-hop options, routing, fragment, destination options, mobility.
const EXTENSIONS: [u32; 5] = [0, 43, 44, 60, 135];

/// The program for at most [`PORTS_MAX`] ports.
pub(super) fn program(ports: &[u16]) -> Vec<Instruction> {
    let ports: Vec<u32> = ports.iter().chain(&TUNNEL_PORTS).map(|&port| port.into()).collect();
    let ipv4 = ipv4(&ports);
    let mut program = vec![load(LOAD_HALF, INTERFACE_TYPE), jump(JUMP_IF_EQUAL, LOOPBACK, 0, 3)];
    program.extend([load(LOAD_HALF, PACKET_TYPE), jump(JUMP_IF_EQUAL, OUTGOING, 0, 1), DROP]);
    program.push(load(LOAD_HALF, ETHERTYPE));
    program.extend(keep_if(&TAGGED));
    program.extend([jump(JUMP_IF_EQUAL, IPV4, 1, 0), jump(JUMP, ipv4.len() as u32, 0, 0)]);
    program.extend(ipv4);
    program.extend([jump(JUMP_IF_EQUAL, IPV6, 1, 0), DROP]);
    program.extend(ipv6(&ports));
    program
}

/// Source: <https://www.rfc-editor.org/rfc/rfc791#section-3.1>.
fn ipv4(ports: &[u32]) -> Vec<Instruction> {
    let mut part = vec![load(LOAD_BYTE, 9)];
    part.extend(keep_if(&TUNNELS));
    part.extend(drop_unless_tcp_or_udp());
    // A fragment: its offset is not zero, or more follow. The first has ports; without it the others are of no use.
    part.extend([load(LOAD_HALF, 6), jump(JUMP_IF_BITS, 0x3fff, 0, 1), KEEP]);
    part.push(load(LOAD_X_HEADER, 0));
    for port_at in [0, 2] {
        part.push(load(LOAD_HALF_FROM_X, port_at));
        part.extend(keep_if(ports));
    }
    part.push(DROP);
    part
}

/// Source: <https://www.rfc-editor.org/rfc/rfc8200#section-3>.
fn ipv6(ports: &[u32]) -> Vec<Instruction> {
    let mut part = vec![load(LOAD_BYTE, 6)];
    part.extend(keep_if(&TUNNELS));
    part.extend(keep_if(&EXTENSIONS));
    part.extend(drop_unless_tcp_or_udp());
    for port_at in [40, 42] {
        part.push(load(LOAD_HALF, port_at));
        part.extend(keep_if(ports));
    }
    part.push(DROP);
    part
}

/// Returns at once where what is loaded is one of the values, so that no jump is long.
fn keep_if(values: &[u32]) -> impl Iterator<Item = Instruction> {
    values.iter().flat_map(|&value| [jump(JUMP_IF_EQUAL, value, 0, 1), KEEP])
}

fn drop_unless_tcp_or_udp() -> [Instruction; 3] {
    [jump(JUMP_IF_EQUAL, TCP, 2, 0), jump(JUMP_IF_EQUAL, UDP, 1, 0), DROP]
}

fn load(code: u16, at: u32) -> Instruction {
    Instruction { code, yes: 0, no: 0, value: at }
}

fn jump(code: u16, value: u32, yes: u8, no: u8) -> Instruction {
    Instruction { code, yes, no, value }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel does with a program: whether the packet is kept.
    fn keeps(program: &[Instruction], ethertype: u16, packet: &[u8]) -> bool {
        keeps_of(program, 1, ethertype, packet)
    }

    /// The same of a kind of interface.
    fn keeps_of(program: &[Instruction], interface: u32, ethertype: u16, packet: &[u8]) -> bool {
        let half = |at: usize| Some(u32::from(u16::from_be_bytes(*packet.get(at..)?.first_chunk()?)));
        let (mut a, mut x, mut at) = (0, 0, 0);
        loop {
            let Instruction { code, yes, no, value } = program[at];
            let place = value as usize;
            at += 1;
            let loaded = match code {
                LOAD_HALF if value == ETHERTYPE => Some(ethertype.into()),
                LOAD_HALF if value == INTERFACE_TYPE => Some(interface),
                // What is at hand goes out.
                LOAD_HALF if value == PACKET_TYPE => Some(OUTGOING),
                LOAD_HALF => half(place),
                LOAD_HALF_FROM_X => half(x + place),
                LOAD_BYTE => packet.get(place).copied().map(u32::from),
                LOAD_X_HEADER => {
                    x = packet.get(place).map_or(0, |byte| usize::from(byte & 0xf) * 4);
                    Some(a)
                }
                JUMP => {
                    at += place;
                    Some(a)
                }
                JUMP_IF_EQUAL | JUMP_IF_BITS => {
                    let holds = if code == JUMP_IF_EQUAL { a == value } else { a & value != 0 };
                    at += usize::from(if holds { yes } else { no });
                    Some(a)
                }
                RETURN => return value > 0,
                _ => panic!("instruction {code:#x}"),
            };
            match loaded {
                Some(loaded) => a = loaded,
                None => return false,
            }
        }
    }

    fn ipv4(protocol: u8, fragment: u16, options: usize, ports: [u16; 2]) -> Vec<u8> {
        let mut packet = vec![0; 20 + options];
        packet[0] = 0x45 + (options / 4) as u8;
        packet[6..8].copy_from_slice(&fragment.to_be_bytes());
        packet[9] = protocol;
        packet.extend(ports.iter().flat_map(|port| port.to_be_bytes()));
        packet
    }

    fn ipv6(next: u8, ports: [u16; 2]) -> Vec<u8> {
        let mut packet = vec![0; 40];
        packet[6] = next;
        packet.extend(ports.iter().flat_map(|port| port.to_be_bytes()));
        packet
    }

    #[test]
    fn packets_of_the_ports_pass_and_others_do_not() {
        let program = program(&[53, 5353]);
        let v4 = |packet: Vec<u8>| keeps(&program, 0x0800, &packet);
        let v6 = |packet: Vec<u8>| keeps(&program, 0x86dd, &packet);
        for protocol in [6, 17] {
            for (ports, expected) in
                [([53, 9], true), ([9, 53], true), ([5353, 5353], true), ([9, 80], false), ([53 << 8, 9], false)]
            {
                assert_eq!(v4(ipv4(protocol, 0, 0, ports)), expected, "{protocol} {ports:?}");
                assert_eq!(v4(ipv4(protocol, 0, 8, ports)), expected, "{protocol} {ports:?} after options");
                assert_eq!(v6(ipv6(protocol, ports)), expected, "{protocol} {ports:?} in IPv6");
            }
        }
        assert!(!v4(ipv4(1, 0, 0, [53, 53])), "ICMP");
        assert!(!keeps(&program, 0x0806, &ipv4(17, 0, 0, [53, 53])), "ARP");
        assert!(!v4(vec![0x45; 3]) && !v6(Vec::new()), "cut");
    }

    #[test]
    fn what_only_the_reader_can_tell_passes() {
        let program = program(&[53]);
        assert!(keeps(&program, 0x0800, &ipv4(17, 0x2001, 0, [9, 9])), "a later fragment");
        assert!(keeps(&program, 0x0800, &ipv4(17, 0x2000, 0, [9, 9])), "a first one, without which it is of no use");
        assert!(!keeps(&program, 0x0800, &ipv4(17, 0x4000, 0, [9, 9])), "one that must not be fragmented");
        assert!(keeps(&program, 0x0800, &ipv4(51, 0, 0, [9, 9])), "an authentication header");
        for protocol in [4, 41, 47] {
            assert!(keeps(&program, 0x0800, &ipv4(protocol, 0, 0, [9, 9])), "a tunnel");
        }
        assert!(keeps(&program, 0x86dd, &ipv6(44, [9, 9])), "an extension header");
        assert!(keeps(&program, 0x8100, &[]), "a VLAN tag");
        assert!(keeps(&program, 0x0800, &ipv4(17, 0, 0, [9, 4789])), "VXLAN");
    }

    #[test]
    fn what_goes_out_is_left_out_on_loopback_only() {
        for (interface, expected) in [(1, true), (LOOPBACK, false)] {
            assert_eq!(keeps_of(&program(&[53]), interface, 0x0800, &ipv4(17, 0, 0, [53, 9])), expected);
        }
    }

    #[test]
    fn the_longest_program_is_one_that_the_kernel_takes() {
        let ports: Vec<u16> = (0..PORTS_MAX as u16).collect();
        let length = program(&ports).len();
        assert!(length <= 4_096, "{length}");
    }
}
