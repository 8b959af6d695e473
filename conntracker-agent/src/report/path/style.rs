//! Colours, for a terminal.

use std::fmt::{self, Display};

/// Whether colours set off what a reader looks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    /// Text alone: files and pipes.
    #[default]
    Plain,
    /// With the terminal's own colours, so that its owner's choice of them holds.
    Coloured,
}

/// Parameters of the escape sequence that begins a colour (SGR of ECMA-48).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colour {
    Dim = 2,
    Red = 31,
    Green = 32,
}

impl Style {
    pub(super) fn paint(self, colour: Colour, text: impl Display) -> impl Display {
        fmt::from_fn(move |f| match self {
            Self::Plain => text.fmt(f),
            Self::Coloured => write!(f, "\x1b[{}m{text}\x1b[0m", colour as u8),
        })
    }
}
