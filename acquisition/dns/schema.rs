//! The columns of `silver.dns`, once: the list and the places by which the processor writes them.

use contract::{Column, Kind, Search};

use crate::columns::columns;

const fn member(name: &'static str, kind: Kind, doc: &'static str) -> Column {
    Column { name, kind, search: Search::Exact, doc }
}

const QUESTION: &[Column] = &[
    member("questions.name", Kind::Text, "The name, as `qname`."),
    member("questions.type", Kind::Text, "The type: `A`; `TYPE1234` where it has no name."),
    member("questions.class", Kind::Text, "The class: `IN`; `CLASS1234` where it has no name."),
];

/// The members of a list of records.
macro_rules! record {
    ($list:literal) => {
        &[
            member(concat!($list, ".name"), Kind::Text, "Whose record it is, as `qname`."),
            member(concat!($list, ".type"), Kind::Text, "The type: `A`; `TYPE1234` where it has no name."),
            member(concat!($list, ".class"), Kind::Text, "The class: `IN`; `CLASS1234` where it has no name."),
            member(concat!($list, ".ttl"), Kind::Integer, "How many seconds it may be kept."),
            member(
                concat!($list, ".data"),
                Kind::Text,
                "The data in presentation form; as RFC 3597 has it (`\\# 2 01ff`) where it has none.",
            ),
        ]
    };
}

const ANSWER: &[Column] = record!("answers");
const AUTHORITY: &[Column] = record!("authorities");
const ADDITIONAL: &[Column] = record!("additionals");

const EXTENDED_ERROR: &[Column] = &[
    member("extended_errors.code", Kind::Integer, "The number of RFC 8914."),
    member("extended_errors.purpose", Kind::Text, "Its name: `DNSSEC Bogus`."),
    member("extended_errors.text", Kind::Text, "What the server adds."),
];

columns! {
    "dns" by Day
    ID = "id", Integer, Exact, "The message's id, which its response repeats.";
    QR = "qr", Boolean, Exact, "Whether it is a response.";
    OPCODE = "opcode", Text, Exact, "`QUERY`, `IQUERY`, `STATUS`, `NOTIFY`, `UPDATE`, `DSO`; `OPCODE7` where it has no name.";
    RCODE = "rcode", Text, Exact, "Of a response: `NOERROR`, `NXDOMAIN` and so on, with the bits of EDNS; `RCODE12` where it has no name.";
    RCODE_NUMBER = "rcode_number", Integer, Exact, "The same as a number; the header alone has its lower four bits.";
    QNAME = "qname", Text, Exact, "The first question's name in lower case, without a dot at its end; `.` is the root, `\\.` a dot in a label, `\\n` or octal `\\001` a control character, U+FFFD what is not UTF-8.";
    QNAME_RAW = "qname_raw", Text, Exact, "The same as it was sent: with its letters' case, and decimal `\\000` to `\\255` for control characters and bytes that are not UTF-8, as RFC 4343 has it.";
    QTYPE = "qtype", Text, Exact, "The first question's type: `A`; `TYPE1234` where it has no name.";
    QTYPE_NUMBER = "qtype_number", Integer, Exact, "The same as a number.";
    QCLASS = "qclass", Text, Exact, "The first question's class: `IN`; `CLASS1234` where it has no name.";
    QUESTIONS = "questions", StructList(QUESTION), Exact, "All questions, where there are several, as mDNS has them.";
    UNICAST_RESPONSE = "unicast_response", Boolean, Exact, "Of an mDNS question: whether the answer should come to the asker alone.";
    AA = "aa", Boolean, Exact, "Authoritative answer.";
    TC = "tc", Boolean, Exact, "Truncated.";
    RD = "rd", Boolean, Exact, "Recursion desired.";
    RA = "ra", Boolean, Exact, "Recursion available.";
    Z = "z", Boolean, Exact, "The bit that must be zero.";
    AD = "ad", Boolean, Exact, "Authentic data.";
    CD = "cd", Boolean, Exact, "Checking disabled.";
    QUESTION_COUNT = "question_count", Integer, Exact, "Questions, as the header says.";
    ANSWER_COUNT = "answer_count", Integer, Exact, "Answers, as the header says.";
    AUTHORITY_COUNT = "authority_count", Integer, Exact, "Authority records, as the header says.";
    ADDITIONAL_COUNT = "additional_count", Integer, Exact, "Additional records, as the header says; the EDNS record is one.";
    ANSWERS = "answers", StructList(ANSWER), Exact, "The answers that could be read; of an update the prerequisites.";
    AUTHORITIES = "authorities", StructList(AUTHORITY), Exact, "The authority records that could be read; of an update what it changes.";
    ADDITIONALS = "additionals", StructList(ADDITIONAL), Exact, "The additional records that could be read, without the EDNS record.";
    CLIENT_IP = "client_ip", Text, Exact, "Who asks, as `dns.addresses` says.";
    CLIENT_PORT = "client_port", Integer, Exact, "The port that asks.";
    SERVER_IP = "server_ip", Text, Exact, "Who is asked.";
    SERVER_PORT = "server_port", Integer, Exact, "The port that is asked.";
    TRANSPORT = "transport", Text, Exact, "`udp`, `tcp`, `dot`, `doh`, `doq`, `dnscrypt-udp`, `dnscrypt-tcp`.";
    QUERY_TIME = "query_time", Timestamp, Exact, "When the query was seen; of a response, if it was.";
    RESPONSE_TIME = "response_time", Timestamp, Exact, "When the response was seen.";
    LATENCY_US = "latency_us", Integer, Exact, "Microseconds from the query to its response.";
    SIZE_BYTES = "size_bytes", Integer, Exact, "Bytes of the message, without the length before it in TCP.";
    MESSAGE_TYPE = "message_type", Text, Exact, "What dnstap calls it: `CLIENT_QUERY`, `RESOLVER_RESPONSE`; what was captured is `TOOL_QUERY` or `TOOL_RESPONSE`.";
    SERVER_IDENTITY = "server_identity", Text, Exact, "Which server sent the dnstap message, as it calls itself.";
    SERVER_VERSION = "server_version", Text, Exact, "What software that is.";
    EDNS_VERSION = "edns_version", Integer, Exact, "Version of EDNS; absent without EDNS.";
    EDNS_UDP_SIZE = "edns_udp_size", Integer, Exact, "Bytes of a UDP message that the sender takes.";
    EDNS_DO = "edns_do", Boolean, Exact, "Whether DNSSEC records are wanted.";
    EDNS_OPTIONS = "edns_options", TextList, Exact, "Names of the EDNS options in their order: `COOKIE`; `OPTION1234` where one has no name.";
    EDNS_CLIENT_SUBNET = "edns_client_subnet", Text, Exact, "Whom the answer is for: `192.0.2.0/24`.";
    EDNS_CLIENT_SUBNET_SCOPE = "edns_client_subnet_scope", Integer, Exact, "Bits of the subnet that the answer is good for.";
    EDNS_NSID = "edns_nsid", Text, Exact, "Which server answered; in hexadecimal where it is not printable.";
    EDNS_CLIENT_COOKIE = "edns_client_cookie", Text, Exact, "The client's cookie in hexadecimal.";
    EDNS_SERVER_COOKIE = "edns_server_cookie", Text, Exact, "The server's cookie in hexadecimal.";
    EXTENDED_ERRORS = "extended_errors", StructList(EXTENDED_ERROR), Exact, "What went wrong, beyond the RCODE.";
    REGISTRABLE_DOMAIN = "registrable_domain", Text, Exact, "The public suffix of the name and one label before it: `example.co.uk`.";
    PUBLIC_SUFFIX = "public_suffix", Text, Exact, "Below what anyone can register: `co.uk`; the last label where the list knows none.";
    LABEL_COUNT = "label_count", Integer, Exact, "Labels of the name; 0 is the root.";
    ENTROPY = "entropy", Float, Exact, "Shannon entropy of the bytes of the name in lower case, without the dots between labels, in bits a byte; names that machines make have more.";
    MALFORMED = "malformed", Text, Exact, "What is wrong with the message; what comes before that is in the row.";
}
