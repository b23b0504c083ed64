//! `databroker`: collects public signals, logs them, makes typed rows exactly once, keeps ten days searchable
//! and everything for good. See README.md for what it does and ARCHITECTURE.md for how.
#![forbid(unsafe_code)]

mod arguments;
mod broker;
mod commands;
mod failure;
mod hot;
mod lag;
mod output;
mod running;
mod settings;
mod signals;
mod sql_clients;
mod tail;
mod views;

use std::process::ExitCode;

use clap::Parser;

/// The allocator: the pipeline's threads free what others allocated, which mimalloc does without a lock.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    use_small_pages();
    let arguments = match arguments::Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let code = if error.use_stderr() { failure::WRONG_USE } else { 0 };
            // Nothing can be said where neither output takes it.
            error.print().unwrap_or_default();
            return ExitCode::from(code);
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => {
            let outcome = runtime.block_on(commands::run(arguments));
            // What still runs on threads of its own was given up: it may not hold up the end.
            runtime.shutdown_background();
            outcome
        }
        Err(error) => Err(anyhow::Error::new(error).context("start the runtime")),
    };
    outcome.unwrap_or_else(|error| failure::report(&error))
}

/// Huge pages double what an idle process holds, and cost more to clear than they save. Where the kernel knows none,
/// nothing is lost.
fn use_small_pages() {
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_thp_disable(true).unwrap_or_default();
}
