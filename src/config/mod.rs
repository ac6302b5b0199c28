//! Configuration: file and flags into checked options.
