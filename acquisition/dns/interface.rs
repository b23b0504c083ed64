//! Captures DNS from a network interface: a packet socket, which needs the capability `CAP_NET_RAW` and nothing else.
//!
//! | what | how |
//! | --- | --- |
//! | any link layer | the kernel passes it (`SOCK_DGRAM`) and says the EtherType |
//! | only the ports of `dns.ports`, whatever `dns.on_any_port` says for files | the kernel's filter: [`super::filter`] |
//! | time | the kernel's, of each packet, in nanoseconds |
//! | loopback, where each packet passes twice | the filter leaves out what goes out |
//! | packets for others, as a mirror port sends them | taken where `dns.promiscuous` is set, for as long as the socket is open |
//! | `any` | all interfaces, with what each takes of itself; a packet that passes several of them (a bridge and its port) is seen on each |
//! | the interface is away | it is looked for again every five seconds |
//! | VLAN tags | the kernel takes off the outer one before |
//! | segments that the kernel or card has joined, checksums not yet filled in | read as they are; checksums are not checked |
//!
//! Named losses, each a packet or more that may have held a message: `kernel` (its buffer was full: the kernel's own
//! count, asked for with each batch, on a quiet interface ten times a second, and at the end), `packet_broken`, `packet_cut`
//! (above 64 KiB), `fragments`, `stream_holes`, `stream_pieces` (runs of bytes of TCP streams of which no message could be
//! made).
//! A sender cannot be made to wait, so with `block` and `spill` a full queue fills the kernel's buffer and then counts
//! as `kernel`.
//!
//! Source: <https://man7.org/linux/man-pages/man7/packet.7.html>.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use contract::{Error, RawRecord, Remedy, Result};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recvmsg,
    setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use socket2::{SockFilter, SockRef};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::capture::Packet;
use super::dnstap::Moment;
use super::filter;
use super::live::{Intake, LAST_READ_WAIT, Tap};
use super::packet_options::{be_promiscuous, take_dropped};
use super::packets::{PacketCounts, Packets};
use super::recorder::Sighting;

/// Bytes of a packet: what its length field can say, and an IPv6 header.
const PACKET_BYTES_MAX: usize = (64 << 10) + 40;

/// Packets that are read at once, and records that are queued at once.
const BATCH_MAX: usize = 512;

/// How long a read waits; the end of the program is noticed within it.
const READ_WAIT_MS: i64 = 100;

/// The link layer that records are read with: Linux cooked, 14 bytes of no concern and the EtherType.
const LINK_COOKED: u16 = 113;
const COOKED_BYTES: usize = 16;

/// The name of all interfaces.
const ANY: &str = "any";

/// How long an interface that is away is left alone; meanwhile nothing is captured.
const AWAY_WAIT: Duration = Duration::from_secs(5);

/// One of `dns.interfaces`, checked.
#[derive(Clone)]
pub(super) struct Interface {
    pub(super) name: String,
    pub(super) ports: Vec<u16>,
    pub(super) buffer_bytes: usize,
    pub(super) is_promiscuous: bool,
}

#[async_trait]
impl Tap for Interface {
    fn name(&self) -> String {
        format!("interface:{}", self.name)
    }

    async fn open(&self, intake: &Arc<Intake>, stop: watch::Receiver<bool>) -> Result<JoinSet<Result<()>>> {
        let (socket, address) = self.socket()?;
        let (name, intake) = (self.name.clone(), intake.clone());
        let reader = Reader {
            socket,
            index: address.map(|address| address.ifindex()),
            packets: Packets::new(&self.ports, false),
            records: Vec::new(),
            lost: PacketCounts::default(),
            intake,
        };
        let runtime = tokio::runtime::Handle::current();
        let mut tasks = JoinSet::new();
        tasks.spawn_blocking(move || reader.run(&runtime, &stop).map_err(|error| away(&name, error)));
        Ok(tasks)
    }
}

impl Interface {
    /// A socket that the kernel fills, and the interface's address; none of all interfaces.
    fn socket(&self) -> Result<(OwnedFd, Option<LinkAddr>)> {
        let failed = |error: io::Error| away(&self.name, error);
        let address = if self.name == ANY { None } else { Some(self.address().map_err(failed)?) };
        let protocol = SockProtocol::EthAll;
        let opened = socket(AddressFamily::Packet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, protocol);
        let socket = opened.map_err(|error| match error {
            Errno::EPERM | Errno::EACCES => failed(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the program needs CAP_NET_RAW: `setcap cap_net_raw+ep` on it, or `AmbientCapabilities=CAP_NET_RAW`",
            )),
            error => failed(error.into()),
        })?;
        let set = || -> io::Result<()> {
            let instruction = |of: filter::Instruction| SockFilter::new(of.code, of.yes, of.no, of.value);
            let program: Vec<_> = filter::program(&self.ports).into_iter().map(instruction).collect();
            SockRef::from(&socket).attach_filter(&program)?;
            setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
            setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::milliseconds(READ_WAIT_MS))?;
            // Beyond the system's limit where that is allowed, else up to it.
            setsockopt(&socket, sockopt::RcvBufForce, &self.buffer_bytes)
                .or_else(|_| setsockopt(&socket, sockopt::RcvBuf, &self.buffer_bytes))?;
            if let Some(address) = &address {
                bind(socket.as_raw_fd(), address)?;
                if self.is_promiscuous {
                    be_promiscuous(&socket, address.ifindex())?;
                }
            }
            Ok(())
        };
        set().map_err(failed)?;
        Ok((socket, address))
    }

    /// With no protocol in it, which leaves the socket's.
    fn address(&self) -> io::Result<LinkAddr> {
        let mut names = Vec::new();
        for interface in nix::ifaddrs::getifaddrs()? {
            let Some(address) = interface.address.and_then(|address| address.as_link_addr().copied()) else { continue };
            if interface.interface_name == self.name {
                return Ok(address);
            }
            names.push(interface.interface_name);
        }
        let known = format!("there is no such interface (known: {})", names.join(", "));
        Err(io::Error::new(io::ErrorKind::NotFound, known))
    }
}

fn away(name: &str, error: io::Error) -> Error {
    Error::new(Remedy::RetryAfter(AWAY_WAIT), format!("capture from `{name}`")).because(error)
}

/// Reads on a thread of its own.
struct Reader {
    socket: OwnedFd,
    /// Of the one interface; none where all are captured.
    index: Option<usize>,
    packets: Packets,
    /// Not queued yet.
    records: Vec<RawRecord>,
    /// By `packets`, and named.
    lost: PacketCounts,
    intake: Arc<Intake>,
}

/// What one read brought.
struct Read {
    bytes: usize,
    is_cut: bool,
    is_ours: bool,
    ethertype: u16,
    time: Option<Moment>,
}

impl Reader {
    fn run(mut self, runtime: &tokio::runtime::Handle, stop: &watch::Receiver<bool>) -> io::Result<()> {
        let mut buffer = vec![0; COOKED_BYTES + PACKET_BYTES_MAX];
        let (mut last_read_until, mut packets) = (None, 0);
        let outcome = loop {
            // What is there is read without a wait, and queued before there is one.
            let is_waiting = self.records.is_empty() && last_read_until.is_none();
            let flags = if is_waiting { MsgFlags::empty() } else { MsgFlags::MSG_DONTWAIT };
            match self.read(&mut buffer, flags) {
                Ok(read) => {
                    self.take(&mut buffer, &read);
                    packets += 1;
                    if packets < BATCH_MAX && self.records.len() < BATCH_MAX {
                        continue;
                    }
                }
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) if last_read_until.is_some() => break Ok(()),
                Err(Errno::EAGAIN) => {}
                Err(error) => break Err(error.into()),
            }
            packets = 0;
            self.pass_time();
            self.push(runtime, stop);
            if let Err(error) = self.note_dropped() {
                break Err(error);
            }
            let is_stopped = *stop.borrow() || stop.has_changed().is_err();
            match last_read_until {
                None if is_stopped => last_read_until = Some(Instant::now() + LAST_READ_WAIT),
                Some(until) if Instant::now() >= until => break Ok(()),
                _ => {}
            }
        };
        let (intake, records) = (self.intake.clone(), &mut self.records);
        let fetched_at = intake.clock.now();
        self.packets.end(&mut |seen| records.push(intake.recorder().captured(seen, intake.next_id(), fetched_at)));
        self.push(runtime, stop);
        // Now nothing becomes whole any more.
        let lost = self.packets.counts();
        self.note_lost(lost);
        outcome.and(self.note_dropped())
    }

    fn read(&self, buffer: &mut [u8], flags: MsgFlags) -> nix::Result<Read> {
        let mut control = nix::cmsg_space!(nix::sys::time::TimeSpec);
        let (_, packet) = buffer.split_at_mut(COOKED_BYTES);
        let mut slices = [IoSliceMut::new(packet)];
        let message = recvmsg::<LinkAddr>(self.socket.as_raw_fd(), &mut slices, Some(&mut control), flags)?;
        let mut time = None;
        for told in message.cmsgs()? {
            if let ControlMessageOwned::ScmTimestampns(at) = told {
                let (seconds, nanos) = (u64::try_from(at.tv_sec()), u32::try_from(at.tv_nsec()));
                time = seconds.ok().zip(nanos.ok()).map(|(seconds, nanos)| Moment { seconds, nanos });
            }
        }
        // Until it was bound, the socket was given the packets of all interfaces.
        let is_ours = |address: &LinkAddr| self.index.is_none_or(|index| address.ifindex() == index);
        Ok(Read {
            bytes: message.bytes,
            is_cut: message.flags.contains(MsgFlags::MSG_TRUNC),
            is_ours: message.address.as_ref().is_some_and(is_ours),
            ethertype: message.address.map_or(0, |address| u16::from_be(address.protocol())),
            time,
        })
    }

    /// Makes records of a packet and counts what was lost with it.
    fn take(&mut self, buffer: &mut [u8], read: &Read) {
        let intake = &self.intake;
        let now = intake.clock.now();
        if !read.is_ours {
            return;
        }
        if read.is_cut {
            return intake.queue.lose("packet_cut", 1, now);
        }
        buffer[COOKED_BYTES - 2..COOKED_BYTES].copy_from_slice(&read.ethertype.to_be_bytes());
        let records = &mut self.records;
        let mut sink = |seen: &Sighting<'_>| records.push(intake.recorder().captured(seen, intake.next_id(), now));
        let bytes = &buffer[..COOKED_BYTES + read.bytes];
        self.packets.add(&Packet { time: read.time, link: LINK_COOKED, bytes }, &mut sink);
        let lost = self.packets.lost();
        self.note_lost(lost);
    }

    /// Names what the packets lost since the last call.
    fn note_lost(&mut self, lost: PacketCounts) {
        let before = std::mem::replace(&mut self.lost, lost);
        let now = self.intake.clock.now();
        for (reason, count, before) in [
            ("packet_broken", lost.broken, before.broken),
            ("fragments", lost.fragments, before.fragments),
            ("stream_holes", lost.holes, before.holes),
            ("stream_pieces", lost.stream_pieces, before.stream_pieces),
        ] {
            self.intake.queue.lose(reason, count.saturating_sub(before), now);
        }
    }

    /// Names what the kernel dropped, also where no packet follows that it kept.
    fn note_dropped(&self) -> io::Result<()> {
        let dropped = take_dropped(&self.socket)?;
        self.intake.queue.lose("kernel", dropped.into(), self.intake.clock.now());
        Ok(())
    }

    /// On a quiet interface too, holes and fragments are not waited for without end.
    fn pass_time(&mut self) {
        let (intake, records) = (&self.intake, &mut self.records);
        let now = intake.clock.now();
        if let Some(moment) = Moment::of(now) {
            self.packets
                .pass_time(moment, &mut |seen| records.push(intake.recorder().captured(seen, intake.next_id(), now)));
            let lost = self.packets.lost();
            self.note_lost(lost);
        }
    }

    /// Waits for room in the queue, unless the collector that makes it is gone.
    fn push(&mut self, runtime: &tokio::runtime::Handle, stop: &watch::Receiver<bool>) {
        if self.records.is_empty() {
            return;
        }
        let mut stop = stop.clone();
        let is_abandoned = async move { while stop.changed().await.is_ok() {} };
        let pushed = self.intake.queue.push(std::mem::take(&mut self.records));
        runtime.block_on(async {
            tokio::select! {
                () = pushed => {}
                () = is_abandoned => {}
            }
        });
    }
}
