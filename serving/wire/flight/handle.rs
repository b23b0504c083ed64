//! What clients show again to get rows: a statement with its parameters, so that nothing is kept for them here.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use contract::Error;
use tonic::Status;

use super::status::{status, wrong};

/// Bytes of a statement's text; as over HTTP.
const TEXT_BYTES_MAX: usize = 1 << 20;

/// Bytes of parameters, in Arrow's IPC form.
const PARAMETERS_BYTES_MAX: usize = 1 << 20;

/// The name of one answer, by which it is cancelled.
pub(crate) type AnswerId = [u8; 16];

/// A statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Handle {
    pub(crate) id: AnswerId,
    pub(crate) text: String,
    /// One row, as an IPC stream; empty where there are none.
    pub(crate) parameters: Bytes,
}

impl Handle {
    /// A statement under a new name.
    pub(crate) fn new(text: String, parameters: Bytes) -> Result<Self, Status> {
        if text.len() > TEXT_BYTES_MAX || parameters.len() > PARAMETERS_BYTES_MAX {
            return Err(wrong(format!(
                "a statement may have {TEXT_BYTES_MAX} bytes and its parameters {PARAMETERS_BYTES_MAX}; these have {} and {}",
                text.len(),
                parameters.len()
            )));
        }
        let mut id = AnswerId::default();
        let random = getrandom::fill(&mut id);
        random.map_err(|cause| status(&Error::stop("name an answer").because(cause)))?;
        Ok(Self { id, text, parameters })
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(20 + self.text.len() + self.parameters.len());
        bytes.put_slice(&self.id);
        bytes.put_u32(u32::try_from(self.text.len()).expect("a text is limited"));
        bytes.put_slice(self.text.as_bytes());
        bytes.put_slice(&self.parameters);
        bytes.freeze()
    }

    pub(crate) fn decode(mut bytes: Bytes) -> Result<Self, Status> {
        let unknown = || wrong("the handle is none of this server's");
        let id: AnswerId = bytes.first_chunk().copied().ok_or_else(unknown)?;
        bytes.advance(id.len());
        let length = bytes.try_get_u32().map_err(|_| unknown())?;
        let length = usize::try_from(length).map_err(|_| unknown())?;
        if length > bytes.len() {
            return Err(unknown());
        }
        let text = String::from_utf8(bytes.split_to(length).to_vec()).map_err(|_| unknown())?;
        Ok(Self { id, text, parameters: bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_is_read_as_it_was_written_and_no_other_bytes_are() {
        let handle = Handle::new("SELECT 'é'".to_owned(), Bytes::from_static(b"row")).expect("small");
        assert_eq!(Handle::decode(handle.encode()).expect("ours"), handle);
        let whole = handle.encode();
        for length in [0, 15, 19, 25] {
            assert!(Handle::decode(whole.slice(..length)).is_err(), "{length}");
        }
        assert!(Handle::new("x".repeat(TEXT_BYTES_MAX + 1), Bytes::new()).is_err());
    }
}
