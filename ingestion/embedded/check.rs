//! The full check of what is on disk.

use std::io;

use contract::{Error, OffsetRange, Result};

use crate::frame::Ends;
use crate::segment::{self, HEADER_BYTES, Header};
use crate::shared::Shared;
use crate::survey::{Damage, Manner, survey};
use crate::walk::Walk;

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Check {
    /// Segments read.
    pub segments: usize,
    /// Frames whose head is good.
    pub frames: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes read.
    pub bytes: u64,
    /// What is damaged.
    pub damages: Vec<Damage>,
}

/// Reads all that is on stable storage.
pub(crate) fn check_all(shared: &Shared) -> Result<Check> {
    let (segments, state_ends) = {
        let state = shared.state();
        let segments: Vec<(u64, u64)> = state.segments().map(|s| (s.first_sequence, s.length)).collect();
        (segments, state.ends.clone())
    };
    let mut check = Check::default();
    let mut ends = None;
    for (first_sequence, length) in segments {
        match check_segment(shared, first_sequence, length, &mut ends, &mut check) {
            // Retention removed it meanwhile, or there is nothing at all yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            checked => checked.map_err(|error| {
                Error::stop(format!("check log segment `{}`", segment::log_name(first_sequence))).because(error)
            })?,
        }
    }
    note_lost_end(&mut check, ends, &state_ends);
    Ok(check)
}

fn check_segment(
    shared: &Shared,
    first_sequence: u64,
    length: u64,
    ends: &mut Option<Ends>,
    check: &mut Check,
) -> io::Result<()> {
    let name = segment::log_name(first_sequence);
    let file = shared.disk.open_to_read(&shared.folders.journal.join(&name))?;
    let mut header = vec![0; HEADER_BYTES as usize];
    file.read_at(0, &mut header)?;
    if segment::read_header(&header, first_sequence) != Header::Good {
        let reason = "the header of the segment is damaged; its frames are not".to_owned();
        let damage =
            Damage { segment: name.clone(), byte: 0, bytes: HEADER_BYTES, lost: Vec::new(), reason, quarantine: None };
        check.damages.push(damage);
    }
    let mut walk = Walk::new(&*file, HEADER_BYTES, length, first_sequence);
    let manner = Manner { may_be_torn: false, verify_batches: true };
    let found = survey(&mut walk, &name, manner, ends, |_| {})?;
    check.segments += 1;
    check.frames += found.frames;
    check.records += found.records;
    check.bytes += length;
    check.damages.extend(found.damages);
    Ok(())
}

/// Offsets at the very end that only the memory of the running log still knows of.
fn note_lost_end(check: &mut Check, ends: Option<Ends>, state_ends: &Ends) {
    let (Some(ends), Some(last)) = (ends, check.damages.last_mut()) else { return };
    for (topic, partition, to) in state_ends.iter() {
        let from = ends.of(topic, partition);
        if from < to {
            last.lost.push((topic.clone(), OffsetRange { partition, from, to }));
        }
    }
}
