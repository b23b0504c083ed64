//! From an error to a message and an exit code.

use std::process::ExitCode;

use contract::Error;

/// Wrong use or settings (`EX_USAGE` of sysexits.h).
pub(crate) const WRONG_USE: u8 = 64;
/// A peer is away (`EX_UNAVAILABLE`).
pub(crate) const PEER_AWAY: u8 = 69;
/// A defect of ours, or a broken disk (`EX_SOFTWARE`).
pub(crate) const DEFECT: u8 = 70;

/// Says the error and answers its code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    eprintln!("databroker: {error:#}");
    ExitCode::from(code(error))
}

/// The exit code of an error.
pub(crate) fn code(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<Error>() {
        Some(error) => serving::exit_code(error),
        None if error.downcast_ref::<std::io::Error>().is_some() => WRONG_USE,
        None => DEFECT,
    }
}
