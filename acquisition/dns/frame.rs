//! Frame Streams: how dnstap messages stand in a file or a connection.
//!
//! Source: the control and data frames of <https://farsightsec.github.io/fstrm/>. A data frame is its length (32 bits,
//! big-endian) and its bytes; the length 0 introduces a control frame: its length, its type, its fields.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::dnstap::{CONTENT_TYPE, DNSTAP_BYTES_MAX};

/// Bytes of one control frame: what the reference implementation takes.
const CONTROL_BYTES_MAX: usize = 512;

/// The only field of control frames.
const FIELD_CONTENT_TYPE: u32 = 1;

/// The types of control frames, by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ControlType {
    /// Answers READY: what the reader takes.
    Accept = 1,
    /// Data follows.
    Start = 2,
    /// No more data.
    Stop = 3,
    /// What the writer offers, where both talk.
    Ready = 4,
    /// Answers STOP, where both talk.
    Finish = 5,
}

/// A control frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Control {
    pub(super) kind: ControlType,
    /// What the frames hold, as offered or chosen; none says anything goes.
    pub(super) content_types: Vec<Bytes>,
}

impl Control {
    /// Whether dnstap messages are among what is offered or chosen.
    pub(super) fn allows_dnstap(&self) -> bool {
        self.content_types.is_empty() || self.content_types.iter().any(|name| name == CONTENT_TYPE)
    }
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    Data(Bytes),
    Control(Control),
}

/// What keeps bytes from being a Frame Stream; nothing after it can be told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BrokenFrame {
    /// A data frame of more than [`DNSTAP_BYTES_MAX`] bytes.
    TooLarge(u32),
    /// A control frame of more than 512 bytes, or of an unknown type, or with fields that do not fit.
    Control,
}

impl BrokenFrame {
    /// The sentence for a reader.
    pub(super) fn reason(self) -> String {
        match self {
            Self::TooLarge(length) => {
                format!("a frame of {length} bytes, should be {DNSTAP_BYTES_MAX} at the most")
            }
            Self::Control => "a control frame that Frame Streams does not have".to_owned(),
        }
    }
}

/// Takes the next frame off the buffer's front; none while it is not whole.
///
/// # Errors
/// When the buffer does not start with a frame; it stays as it is.
pub(super) fn next_frame(buffer: &mut BytesMut) -> Result<Option<Frame>, BrokenFrame> {
    let Some(length) = number_at(buffer, 0) else { return Ok(None) };
    if length == 0 {
        return next_control(buffer).map(|control| control.map(Frame::Control));
    }
    if length as usize > DNSTAP_BYTES_MAX {
        return Err(BrokenFrame::TooLarge(length));
    }
    if buffer.len() - 4 < length as usize {
        return Ok(None);
    }
    buffer.advance(4);
    Ok(Some(Frame::Data(buffer.split_to(length as usize).freeze())))
}

fn next_control(buffer: &mut BytesMut) -> Result<Option<Control>, BrokenFrame> {
    let Some(length) = number_at(buffer, 4) else { return Ok(None) };
    if !(4..=CONTROL_BYTES_MAX).contains(&(length as usize)) {
        return Err(BrokenFrame::Control);
    }
    let Some(control) = buffer.get(8..8 + length as usize) else { return Ok(None) };
    let kind = match number_at(control, 0) {
        Some(1) => ControlType::Accept,
        Some(2) => ControlType::Start,
        Some(3) => ControlType::Stop,
        Some(4) => ControlType::Ready,
        Some(5) => ControlType::Finish,
        _ => return Err(BrokenFrame::Control),
    };
    let mut content_types = Vec::new();
    let mut fields = control.get(4..).unwrap_or_default();
    while !fields.is_empty() {
        let (field, length) = (number_at(fields, 0), number_at(fields, 4));
        let name = length.and_then(|length| fields.get(8..8 + length as usize)).ok_or(BrokenFrame::Control)?;
        if field == Some(FIELD_CONTENT_TYPE) {
            content_types.push(Bytes::copy_from_slice(name));
        }
        fields = fields.get(8 + name.len()..).unwrap_or_default();
    }
    buffer.advance(8 + length as usize);
    Ok(Some(Control { kind, content_types }))
}

/// A control frame as it is sent; READY, ACCEPT and START name the content type.
pub(super) fn control_frame(kind: ControlType) -> Bytes {
    let names_content = matches!(kind, ControlType::Accept | ControlType::Start | ControlType::Ready);
    let content_type = if names_content { CONTENT_TYPE } else { &[] };
    let fields_len = if names_content { 8 + content_type.len() } else { 0 };
    let mut out = BytesMut::with_capacity(12 + fields_len);
    out.put_u32(0);
    out.put_u32(4 + fields_len as u32);
    out.put_u32(kind as u32);
    if names_content {
        out.put_u32(FIELD_CONTENT_TYPE);
        out.put_u32(content_type.len() as u32);
        out.put_slice(content_type);
    }
    out.freeze()
}

fn number_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|&chunk| u32::from_be_bytes(chunk))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> Vec<u8> {
        let data: &[u8] = &[0, 0, 0, 3, 1, 2, 3];
        [&control_frame(ControlType::Start)[..], data, data, &control_frame(ControlType::Stop)].concat()
    }

    #[test]
    fn frames_come_out_however_the_bytes_arrive() {
        let (mut buffer, mut frames) = (BytesMut::new(), Vec::new());
        for byte in stream() {
            buffer.put_u8(byte);
            frames.extend(next_frame(&mut buffer).unwrap());
        }
        let control = |kind, content_types| Frame::Control(Control { kind, content_types });
        let data = Frame::Data(Bytes::from_static(&[1, 2, 3]));
        let start = control(ControlType::Start, vec![Bytes::from_static(CONTENT_TYPE)]);
        assert_eq!(frames, [start, data.clone(), data, control(ControlType::Stop, Vec::new())]);
        assert!(buffer.is_empty());
    }

    #[test]
    fn what_is_no_frame_is_refused_before_it_is_waited_for() {
        let refuse = |bytes: &[u8]| next_frame(&mut BytesMut::from(bytes)).unwrap_err();
        assert_eq!(refuse(&[0x7f, 0, 0, 0]), BrokenFrame::TooLarge(0x7f00_0000));
        assert_eq!(refuse(&[0, 0, 0, 0, 0, 0, 2, 1]), BrokenFrame::Control);
        assert_eq!(refuse(&[0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 9]), BrokenFrame::Control);
        let field_beyond_the_end = [0, 0, 0, 0, 0, 0, 0, 12, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 9];
        assert_eq!(refuse(&field_beyond_the_end), BrokenFrame::Control);
    }
}
