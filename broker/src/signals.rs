//! Ctrl-C and SIGTERM: the first asks to end in good order, a second ends at once.

use std::process::exit;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The exit code of a process that a second Ctrl-C ended: 128 and the number of SIGINT, as shells have it.
const INTERRUPTED: i32 = 130;

/// Listens from now on; the token is cancelled by the first signal.
///
/// # Panics
/// If the system lets nobody hear signals.
pub(crate) fn listen() -> CancellationToken {
    let hear = |kind| signal(kind).expect("signals can be heard");
    let (mut interrupt, mut terminate) = (hear(SignalKind::interrupt()), hear(SignalKind::terminate()));
    let asked = CancellationToken::new();
    tokio::spawn({
        let asked = asked.clone();
        async move {
            next(&mut interrupt, &mut terminate).await;
            asked.cancel();
            next(&mut interrupt, &mut terminate).await;
            // Whatever is in hand is as after a crash: the next start goes on from there.
            eprintln!("databroker: ended at once, as asked a second time");
            exit(INTERRUPTED);
        }
    });
    asked
}

async fn next(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
