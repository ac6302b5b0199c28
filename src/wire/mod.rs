//! The messages of the link and their encoding.
