//! Views: questions in SQL whose answers are kept.
//!
//! A view is one file of SQL over silver (`file.rs` says its form, `check.rs` what its first statement may be). The **batch
//! layer** (`run.rs`) computes the first statement over what silver has committed, whole or for the days that changed, and puts
//! it into `gold.NAME`; the same Delta commit holds the watermark: silver's next offset per partition. The **speed layer**
//! is the same statement over the rows at or past the watermark, those that wait for their commit too. The **serving layer**
//! (`answer.rs`) merges both by the keys and shows the second statement of that.
//!
//! Whatever the watermark is, the merged answer is the statement over everything: see the table of cases at
//! [`contract::Views`], and the property test in `views_test.rs` that cuts the rows anywhere.

mod answer;
mod check;
mod dialect;
mod file;
mod gold;
mod library;
mod moment;
mod run;
mod runs;
mod shipped;
pub(crate) mod sketch;
mod spark;
mod times;
#[cfg(test)]
mod views_test;

pub(crate) use gold::Gold;
pub use library::Explained;
pub(crate) use library::{Checked, GoldSchema};
pub use run::{ViewEngine, ViewRun};
