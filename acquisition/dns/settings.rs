//! What the user sets of DNS.

use serde::{Deserialize, Serialize};

use super::queue::Overload;
use crate::Secret;

/// The section `[dns]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// UDP and TCP ports that carry DNS in captures. Default: `[53, 5353, 5355]`, which are DNS, mDNS and LLMNR.
    pub ports: Vec<u16>,
    /// Whether messages on other ports are taken too: UDP datagrams that can be nothing but a DNS message, and bodies of
    /// HTTP/2 in the clear. Default: true.
    pub on_any_port: bool,
    /// How client addresses (also those in EDNS options, and all of mDNS and LLMNR) are written: `whole`, `prefix` (the
    /// rest is zero) or `hash` (keyed, so that the same client can still be told). Default: `whole`.
    pub addresses: AddressForm,
    /// Bits that `prefix` keeps of an IPv4 address, 0 to 32. Default: 24.
    pub ipv4_prefix: u8,
    /// Bits that `prefix` keeps of an IPv6 address, 0 to 128. Default: 48.
    pub ipv6_prefix: u8,
    /// What `hash` is keyed with; who has it can find the addresses again. Required with `hash`. Default: none.
    pub hash_key: Secret,
    /// How long a query waits for its response, 1 to 600. Default: 10, since resolvers give up before.
    pub pair_seconds: u32,
    /// A file that replaces the public suffix list that ships with the program, in the form of
    /// <https://publicsuffix.org/list/>; looked at again every minute. Default: empty, which takes the one that ships.
    pub public_suffix_list: String,
    /// Where to listen for dnstap: `unix:PATH`, `tcp:ADDRESS:PORT`, `tls:ADDRESS:PORT`. Default: none.
    pub listeners: Vec<String>,
    /// Whether `tcp:` and `tls:` may listen beyond this machine. Default: `false`.
    pub allow_other_hosts: bool,
    /// Permissions of `unix:` sockets, octal; who may write may send. Default: `660`: the owner and the group, which
    /// is the folder's where that has the setgid bit.
    pub unix_mode: String,
    /// The certificate chain of `tls:`, a PEM file. Default: none.
    pub tls_certificate_file: String,
    /// Its key, a PEM file. Default: none.
    pub tls_key_file: String,
    /// PEM certificates of the authorities of which senders to `tls:` must show a certificate. Default: empty, which
    /// asks for none.
    pub tls_client_ca_file: String,
    /// Connections of one listener at once, 1 to 4096; each may hold a message of a megabyte. Default: 256.
    pub connections_max: usize,
    /// Network interfaces to capture from: `eth0`; `any` is all of them. Needs `CAP_NET_RAW`. Default: none.
    pub interfaces: Vec<String>,
    /// Whether the interfaces take packets for others too while they are captured, as a mirror port needs; `any` takes
    /// what each interface does. Default: `false`.
    pub promiscuous: bool,
    /// Bytes that the kernel holds of an interface's packets until they are read, 64 KiB to 1 GiB; above the system's
    /// `net.core.rmem_max` it takes `CAP_NET_ADMIN`. Default: 16 MiB, a second of 100,000 packets.
    pub capture_buffer_bytes: usize,
    /// Folders in which captures appear, to be read as by a backfill: `/var/spool/dns`. Default: none.
    pub directories: Vec<String>,
    /// What is done with a file of them once all its records are in the log: `keep` or `delete`. Default: `keep`.
    pub directory_after_read: AfterRead,
    /// For so long a file of them must not change before it is read, 1 to 86400; one that is renamed into the folder
    /// is read at once. Default: 5.
    pub directory_settle_seconds: u32,
    /// What is done with live messages that come faster than the log takes them: `block` (their sender waits), `spill`
    /// (the same, with larger appends), `sample` (from half full on one in some is kept) or `drop`. Default: `block`.
    pub overload: Overload,
    /// One in how many `sample` keeps, 2 to 1000000. Default: 10.
    pub sample_one_in: usize,
    /// Live messages of one listener or interface that wait for the log, 1 to 10000000. Default: 65536.
    pub queue_records_max: usize,
    /// Bytes of them, 64 KiB to 128 MiB. Default: 32 MiB.
    pub queue_bytes_max: usize,
}

/// What becomes of a captured file that was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AfterRead {
    /// It stays, and is known by its name, length and time.
    #[default]
    Keep,
    /// It is removed.
    Delete,
}

/// How addresses are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AddressForm {
    /// As they are.
    #[default]
    Whole,
    /// Only the first bits; the others are zero.
    Prefix,
    /// A keyed hash of the same length.
    Hash,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ports: vec![53, 5353, 5355],
            on_any_port: true,
            addresses: AddressForm::Whole,
            ipv4_prefix: 24,
            ipv6_prefix: 48,
            hash_key: Secret::default(),
            pair_seconds: 10,
            public_suffix_list: String::new(),
            listeners: Vec::new(),
            allow_other_hosts: false,
            unix_mode: "660".to_owned(),
            tls_certificate_file: String::new(),
            tls_key_file: String::new(),
            tls_client_ca_file: String::new(),
            connections_max: 256,
            interfaces: Vec::new(),
            promiscuous: false,
            capture_buffer_bytes: 16 << 20,
            directories: Vec::new(),
            directory_after_read: AfterRead::Keep,
            directory_settle_seconds: 5,
            overload: Overload::Block,
            sample_one_in: 10,
            queue_records_max: 65_536,
            queue_bytes_max: 32 << 20,
        }
    }
}
