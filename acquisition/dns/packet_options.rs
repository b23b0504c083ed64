//! Two options of packet sockets that `nix` does not list, made with its macro for that: the call stands in `nix`.
//!
//! Source: <https://man7.org/linux/man-pages/man7/packet.7.html>.

use std::io;
use std::os::fd::OwnedFd;

use nix::libc::{PACKET_ADD_MEMBERSHIP, PACKET_MR_PROMISC, PACKET_STATISTICS, SOL_PACKET, packet_mreq, tpacket_stats};
use nix::sys::socket::{getsockopt, setsockopt};
use nix::{getsockopt_impl, libc, setsockopt_impl, sockopt_impl};

sockopt_impl!(Statistics, GetOnly, SOL_PACKET, PACKET_STATISTICS, tpacket_stats);
sockopt_impl!(AddMembership, SetOnly, SOL_PACKET, PACKET_ADD_MEMBERSHIP, packet_mreq);

/// How many packets the kernel dropped since it was asked last, since the socket's buffer was full.
pub(super) fn take_dropped(socket: &OwnedFd) -> io::Result<u32> {
    Ok(getsockopt(socket, Statistics)?.tp_drops)
}

/// Has an interface take the packets for others too, for as long as the socket is open.
pub(super) fn be_promiscuous(socket: &OwnedFd, interface: usize) -> io::Result<()> {
    let number = |wide: Result<_, std::num::TryFromIntError>| wide.map_err(io::Error::other);
    let membership = packet_mreq {
        mr_ifindex: number(i32::try_from(interface))?,
        mr_type: PACKET_MR_PROMISC as u16,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    Ok(setsockopt(socket, AddMembership, &membership)?)
}
