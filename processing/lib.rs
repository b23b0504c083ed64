//! processing
