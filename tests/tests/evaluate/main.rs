//! The evaluator against the kernel: the expressions that it decodes are those that nft prints.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the failure")]

mod expressions;
mod render;
