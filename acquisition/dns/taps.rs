//! What is set of live collection, checked, and the collectors of it.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use contract::{Collector, Error, Result};

use super::file;
#[cfg(target_os = "linux")]
use super::filter::PORTS_MAX;
#[cfg(target_os = "linux")]
use super::interface::Interface;
use super::listen::{Listener, Place};
use super::live::{LiveCollector, Tap};
use super::queue::QueueSettings;
use super::recorder::Recorder;
use super::schema::SCHEMA;
use super::settings::Settings;
use super::tls;
use super::watch::{FILES_MAX, Folder, FolderCollector, OpenCapture};
use crate::Context;

/// Bytes that a queue may be set to; with `spill` one append to the log holds them all.
const QUEUE_BYTES_MAX: usize = 128 << 20;

/// Connections of a listener that may be set; each may hold a frame of a megabyte.
const CONNECTIONS_MAX: usize = 4_096;

/// One collector for each listener and interface that is set; none where none is.
///
/// # Errors
/// `Change` when a setting is wrong.
pub(super) fn collectors(settings: &Settings, context: &Context) -> Result<Vec<Box<dyn Collector>>> {
    let queue = queue_settings(settings, context)?;
    let mut collectors: Vec<Box<dyn Collector>> = Vec::new();
    let mut add = |tap: Box<dyn Tap>, place: String| -> Result<()> {
        let recorder = Recorder::new(settings)?;
        collectors.push(Box::new(LiveCollector::new(tap, &place, queue, recorder, context)));
        Ok(())
    };
    for (place, name) in settings.listeners.iter().enumerate() {
        add(Box::new(listener(name, settings)?), format!("l{place}"))?;
    }
    for (place, name) in settings.interfaces.iter().enumerate() {
        add(interface(name, settings)?, format!("i{place}"))?;
    }
    for name in &settings.directories {
        collectors.push(folder(name, settings, context)?);
    }
    Ok(collectors)
}

fn queue_settings(settings: &Settings, context: &Context) -> Result<QueueSettings> {
    within("queue_records_max", settings.queue_records_max, 1, 10_000_000)?;
    within("queue_bytes_max", settings.queue_bytes_max, 64 << 10, QUEUE_BYTES_MAX)?;
    within("sample_one_in", settings.sample_one_in, 2, 1_000_000)?;
    Ok(QueueSettings {
        overload: settings.overload,
        sample_one_in: settings.sample_one_in as u64,
        records_max: settings.queue_records_max,
        bytes_max: settings.queue_bytes_max,
        harvest: context.harvest,
    })
}

fn within(name: &str, value: usize, least: usize, most: usize) -> Result<()> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(Error::change(format!("use `dns.{name}` = {value} (should be {least} to {most})")))
}

fn listener(name: &str, settings: &Settings) -> Result<Listener> {
    within("connections_max", settings.connections_max, 1, CONNECTIONS_MAX)?;
    let wrong = || {
        let right = "`unix:/run/databroker/dnstap.sock`, `tcp:127.0.0.1:6000` or `tls:127.0.0.1:6001`";
        Error::change(format!("use listener `{name}` of `dns.listeners` (should be as {right})"))
    };
    let (kind, place) = name.split_once(':').ok_or_else(wrong)?;
    let address = || -> Result<SocketAddr> {
        let address: SocketAddr = place.parse().map_err(|_| wrong())?;
        if !settings.allow_other_hosts && !is_loopback(address.ip()) {
            let right = "set `dns.allow_other_hosts` to listen beyond this machine";
            return Err(Error::change(format!("use listener `{name}` of `dns.listeners` ({right})")));
        }
        Ok(address)
    };
    let place = match kind {
        "unix" if place.starts_with('/') => Place::Unix(PathBuf::from(place), unix_mode(&settings.unix_mode)?),
        "tcp" => Place::Tcp(address()?),
        "tls" => Place::Tls(address()?, tls::acceptor(settings)?),
        _ => return Err(wrong()),
    };
    Ok(Listener { name: name.to_owned(), place, connections_max: settings.connections_max })
}

#[cfg(target_os = "linux")]
fn interface(name: &str, settings: &Settings) -> Result<Box<dyn Tap>> {
    within("capture_buffer_bytes", settings.capture_buffer_bytes, 64 << 10, 1 << 30)?;
    let ports = settings.ports.clone();
    if !(1..=PORTS_MAX).contains(&ports.len()) {
        return Err(Error::change(format!("use `dns.ports` to capture (should be 1 to {PORTS_MAX} ports)")));
    }
    Ok(Box::new(Interface {
        name: name.to_owned(),
        ports,
        buffer_bytes: settings.capture_buffer_bytes,
        is_promiscuous: settings.promiscuous,
    }))
}

#[cfg(not(target_os = "linux"))]
fn interface(name: &str, _settings: &Settings) -> Result<Box<dyn Tap>> {
    Err(Error::change(format!("capture from `{name}` of `dns.interfaces` (only on Linux)")))
}

fn folder(name: &str, settings: &Settings, context: &Context) -> Result<Box<dyn Collector>> {
    within("directory_settle_seconds", settings.directory_settle_seconds as usize, 1, 86_400)?;
    if !name.starts_with('/') {
        let right = "should be as `/var/spool/dns`";
        return Err(Error::change(format!("use folder `{name}` of `dns.directories` ({right})")));
    }
    let settle = Duration::from_secs(settings.directory_settle_seconds.into());
    let (settings, clock) = (settings.clone(), context.clock.clone());
    let context = context.clone();
    let folder =
        Folder { path: PathBuf::from(name), settle, after_read: settings.directory_after_read, files_max: FILES_MAX };
    let open: OpenCapture =
        Arc::new(move |path, waiting| crate::file::open(path, &context, file::reading(&settings, waiting)?));
    Ok(Box::new(FolderCollector::new(SCHEMA.source, folder, clock, open)))
}

fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

fn unix_mode(text: &str) -> Result<u32> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| (0o200..=0o777).contains(mode));
    mode.ok_or_else(|| Error::change(format!("use `dns.unix_mode` = `{text}` (should be octal digits as `660`)")))
}
