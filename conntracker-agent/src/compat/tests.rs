//! Command lines, and what they ask for.
