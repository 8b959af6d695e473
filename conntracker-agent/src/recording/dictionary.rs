//! Strings and paths, which a part states once and then refers to by number.
//!
//! Numbers are given in order, and none is given twice in a part: a reference to a statement that was lost with its
//! block finds nothing, never another one.

mod paths;
mod strings;

use std::sync::Arc;

use serde_json::Error;

pub(super) use self::{paths::PathStatement, strings::StringStatement};
use self::{
    paths::{PathWriter, StatedPaths},
    strings::{StatedStrings, StringWriter},
};
use crate::model::path::Traversal;

/// What a part has stated, and is still to state.
#[derive(Debug, Default)]
pub(super) struct Dictionaries {
    strings: StringWriter,
    paths: PathWriter,
}

impl Dictionaries {
    /// The number of a string.
    pub fn string(&mut self, text: &str) -> u64 {
        self.strings.number(text)
    }

    /// The number of a path, whatever it translates.
    pub fn path(&mut self, path: &Arc<Traversal>) -> u64 {
        self.paths.number(path)
    }

    /// Strings that are new since the last call.
    pub fn new_strings(&mut self) -> Option<StringStatement> {
        self.strings.statement()
    }

    /// Paths that are new since the last call.
    pub fn new_paths(&mut self) -> Option<PathStatement> {
        self.paths.statement()
    }
}

/// What the blocks of a part have stated, for a reader.
#[derive(Debug, Default)]
pub(super) struct Stated {
    strings: StatedStrings,
    paths: StatedPaths,
}

impl Stated {
    /// Takes a statement of strings.
    pub fn add_strings(&mut self, json: &[u8]) -> Result<(), Error> {
        self.strings.add(serde_json::from_slice(json)?);
        Ok(())
    }

    /// Takes a statement of paths.
    pub fn add_paths(&mut self, json: &[u8]) -> Result<(), Error> {
        self.paths.add(serde_json::from_slice(json)?);
        Ok(())
    }

    /// The string of a number; some words if its statement is lost.
    pub fn string(&self, number: u64) -> &str {
        self.strings.get(number)
    }

    /// Likewise, for a name that few strings are.
    pub fn static_string(&self, number: u64) -> &'static str {
        crate::model::intern_name(self.strings.get(number))
    }

    /// The path of a number; `None` if its statement is lost.
    pub fn path(&self, number: u64) -> Option<&Arc<Traversal>> {
        self.paths.get(number)
    }
}
