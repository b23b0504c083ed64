//! cold-store
