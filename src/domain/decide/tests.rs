//! The decision about one mutation.
