//! Every limit that is not a setting, with why it is that number.

/// Bytes of one record's body that a processor looks at; a larger record becomes a dead letter.
/// GitHub's largest event seen is 0.25 MB and its webhooks stop at 25 MB; one record must never be
/// what fills the memory, so the limit lies between. A webhook's delivery beyond it is refused (413), since its sender
/// hears of it; what was polled or read from a file becomes the dead letter.
pub const RECORD_BYTES_MAX: usize = 8 << 20;

/// Bytes of one record's body that the log keeps; the rest of a larger one is cut off, and its dead letter
/// says so. Large enough to study what was sent, small enough to hold a few in memory.
pub const BODY_BYTES_MAX: usize = 32 << 20;

/// Bytes of a record's id. Ids of all sources are below 200; a longer one is replaced by its hash.
pub const ID_BYTES_MAX: usize = 512;

/// Nesting of one record's JSON; deeper is rejected. Events nest below 12; the stack of a parser that
/// recurses holds far more than this.
pub const JSON_DEPTH_MAX: usize = 128;

/// Records of one harvest of a backfill: one append, so one fsync, and one batch in memory.
pub const HARVEST_RECORDS_MAX: usize = 8_192;

/// Bytes of bodies of one harvest of a backfill, for the same reason; one larger record may exceed it.
pub const HARVEST_BYTES_MAX: usize = 8 << 20;

/// Processed batches that wait for a store. With the batch in hand this bounds what is in memory between
/// the log and a store to about four batches.
pub const QUEUED_BATCHES_MAX: usize = 2;

/// Bytes of memory for the ids of one source's committed rows, over all periods of event time: with four sources 128 MiB,
/// as much as the hot store holds until it commits. A day of 150,000,000 ids as GitHub and DNS number them fits, and of other
/// ids a month of 800,000, or of about 8,000,000 before many are looked up in vain; what finds no room is looked up altogether.
pub const KNOWN_IDS_BYTES_MAX: usize = 32 << 20;

/// Bytes of a webhook's request that comes as a form, in which a record's JSON takes half as much again.
pub const WEBHOOK_FORM_BYTES_MAX: usize = 2 * RECORD_BYTES_MAX;

/// Requests of one webhook whose bodies are in memory at a time, from the body's first byte to the answer: with the
/// limits above, and twice the bytes while a body is put together, at most 128 MiB.
pub const WEBHOOK_REQUESTS_MAX: usize = 4;

/// How far an event may lie after its fetch. Clocks differ by seconds; a day covers every time zone slip.
pub const FUTURE_SECONDS_MAX: u64 = 86_400;

/// Seconds of one search; then it answers what it found until then and says so. Longer than any page waits for, and short
/// enough that a few careless searches do not hold the machine.
pub const SEARCH_SECONDS_MAX: u64 = 30;

/// Clients that follow a source's rows at a time: each reads the log and runs the processor for itself, with a megabyte of
/// records in memory.
pub const TAILS_MAX: usize = 16;
