//! The evaluator against the kernel: the expressions that it decodes are those that nft prints, and the packets that
//! it evaluates do what the kernel's trace says that they did.

#![expect(clippy::expect_used, clippy::unwrap_used, reason = "in a test a panic is the failure")]

mod expressions;
mod flows;
mod language;
mod programs;
mod recorded;
mod render;
mod router;
mod routing;
mod traces;
