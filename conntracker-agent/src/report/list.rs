//! The flows of a report: a list in memory, or one in a file.

use std::{borrow::Cow, io};

use crate::model::{Flow, order::same_ends};

/// How many flows are taken from a file at once.
const AT_ONCE: usize = 1_024;

/// Flows in the order of a report, which can be gone through more than once.
pub trait FlowList {
    /// Calls `visit` with all flows, some at a time. Flows with equal addresses and ports stay together: the text format
    /// prints one line for them.
    ///
    /// # Errors
    /// Those of `visit`, and of the file that the flows are in.
    fn each(&self, visit: &mut dyn FnMut(&[Flow]) -> io::Result<()>) -> io::Result<()>;

    /// All flows, in memory.
    ///
    /// # Errors
    /// Those of the file that the flows are in.
    fn whole(&self) -> io::Result<Cow<'_, [Flow]>>;

    /// How many there are.
    fn count(&self) -> usize;
}

impl FlowList for Vec<Flow> {
    fn each(&self, visit: &mut dyn FnMut(&[Flow]) -> io::Result<()>) -> io::Result<()> {
        visit(self)
    }

    fn whole(&self) -> io::Result<Cow<'_, [Flow]>> {
        Ok(Cow::Borrowed(self))
    }

    fn count(&self) -> usize {
        self.len()
    }
}

/// Calls `visit` with flows that come one by one.
pub(super) fn each_of(
    flows: impl Iterator<Item = io::Result<Flow>>,
    visit: &mut dyn FnMut(&[Flow]) -> io::Result<()>,
) -> io::Result<()> {
    let mut some: Vec<Flow> = Vec::with_capacity(AT_ONCE);
    for flow in flows {
        let flow = flow?;
        if some.len() >= AT_ONCE && some.last().is_some_and(|last| !same_ends(&last.key, &flow.key))
        {
            visit(&some)?;
            some.clear();
        }
        some.push(flow);
    }
    visit(&some)
}
