//! DNS over HTTP/2 in the clear, as a proxy in front of a server makes it: bodies that are DNS messages (RFC 8484).
//! Queries in a URL are not read, since they stand in compressed headers. Source of the frames: RFC 9113, section 4.1.

use std::collections::BTreeMap;

use super::message::is_whole_message;

/// What a client says first: RFC 9113, section 3.4.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes of a frame; 16,384 unless both sides say more.
const FRAME_BYTES_MAX: usize = 128 << 10;

/// Bytes of a DNS message.
const BODY_BYTES_MAX: usize = 65_535;

/// Bodies of one side that are not whole yet; servers allow about a hundred.
const BODIES_MAX: usize = 256;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const END_STREAM: u8 = 1;
const PADDED: u8 = 8;

/// The bodies that one side of a connection sends, by HTTP/2 stream.
#[derive(Debug, Default)]
pub(super) struct Bodies {
    open: BTreeMap<u32, Vec<u8>>,
    open_bytes: usize,
    /// Nothing that follows can be told apart.
    is_lost: bool,
}

impl Bodies {
    /// Reads whole frames from the front of `bytes`, and hands out the DNS messages that end in them; answers how many
    /// bytes are done.
    pub(super) fn take(&mut self, bytes: &[u8], sink: &mut dyn FnMut(&[u8])) -> usize {
        let mut at = if bytes.starts_with(PREFACE) { PREFACE.len() } else { 0 };
        while let Some((head, rest)) = bytes.get(at..).and_then(|rest| rest.split_first_chunk::<9>()) {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            if length > FRAME_BYTES_MAX {
                self.lose();
            }
            if self.is_lost {
                return bytes.len();
            }
            let Some(payload) = rest.get(..length) else { break };
            let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
            self.frame(head[3], head[4], stream, payload, sink);
            at += head.len() + length;
        }
        at
    }

    /// What the bodies that are not whole take.
    pub(super) fn held_bytes(&self) -> usize {
        self.open_bytes
    }

    /// Gives up, since frames have no mark to find them by.
    pub(super) fn lose(&mut self) {
        self.is_lost = true;
        self.open.clear();
        self.open_bytes = 0;
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8], sink: &mut dyn FnMut(&[u8])) {
        match kind {
            DATA => {
                let has_room = self.open.len() < BODIES_MAX || self.open.contains_key(&stream);
                let body = unpadded(flags, payload).unwrap_or_default();
                if has_room {
                    let open = self.open.entry(stream).or_default();
                    // One byte more than a message may have shows that it is none.
                    let room = BODY_BYTES_MAX + 1 - open.len();
                    let taken = body.get(..room).unwrap_or(body);
                    open.extend_from_slice(taken);
                    self.open_bytes += taken.len();
                }
            }
            HEADERS => {}
            RESET => {
                self.close(stream);
                return;
            }
            _ => return,
        }
        if flags & END_STREAM != 0
            && let Some(body) = self.close(stream)
            && is_whole_message(&body)
        {
            sink(&body);
        }
    }

    fn close(&mut self, stream: u32) -> Option<Vec<u8>> {
        let body = self.open.remove(&stream)?;
        self.open_bytes -= body.len();
        Some(body)
    }
}

fn unpadded(flags: u8, payload: &[u8]) -> Option<&[u8]> {
    if flags & PADDED == 0 {
        return Some(payload);
    }
    let (&padding, rest) = payload.split_first()?;
    rest.get(..rest.len().checked_sub(usize::from(padding))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &[u8] = b"\0\0\x01\0\0\x01\0\0\0\0\0\0\x01a\0\0\x01\0\x01";

    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        [&[0, 0, payload.len() as u8, kind, flags, 0, 0, 0, stream], payload].concat()
    }

    /// How many messages come out of bytes that arrive one by one.
    fn messages(stream: &[u8]) -> usize {
        let (mut bodies, mut bytes, mut count) = (Bodies::default(), stream[..PREFACE.len()].to_vec(), 0);
        for &byte in &stream[PREFACE.len()..] {
            bytes.push(byte);
            let done = bodies.take(&bytes, &mut |message| {
                assert_eq!(message, MESSAGE);
                count += 1;
            });
            bytes.drain(..done);
        }
        assert_eq!(bodies.held_bytes(), 0);
        count
    }

    #[test]
    fn bodies_that_are_messages_come_out_whole() {
        let (first, second) = MESSAGE.split_at(7);
        let padded = [&[2], second, &[0, 0]].concat();
        let stream = [
            PREFACE.to_vec(),
            frame(4, 0, 0, &[]),
            frame(HEADERS, 4, 1, b"headers"),
            frame(DATA, 0, 1, first),
            frame(DATA, END_STREAM, 3, MESSAGE),
            frame(DATA, END_STREAM | PADDED, 1, &padded),
            frame(DATA, END_STREAM, 5, b"no DNS"),
            frame(DATA, 0, 7, MESSAGE),
            frame(RESET, 0, 7, &[0; 4]),
            frame(HEADERS, END_STREAM, 7, &[]),
            frame(DATA, 0, 9, MESSAGE),
            frame(HEADERS, END_STREAM, 9, b"trailers"),
        ];
        assert_eq!(messages(&stream.concat()), 3);
    }

    #[test]
    fn a_frame_beyond_the_limit_ends_the_reading() {
        let stream = [PREFACE, &[0xff; 9], &frame(DATA, END_STREAM, 1, MESSAGE)].concat();
        assert_eq!(messages(&stream), 0);
    }
}
