//! hot-store
