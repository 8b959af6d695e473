//! Expectations.

use nix::errno::Errno;

use super::Conntrack;
use crate::netlink::Error;
use crate::netlink::ctnetlink::{
    ConntrackExpectation, ExpectKey, ExpectRequest, Expectation, NewExpectation, expect_requests,
};

impl Conntrack {
    /// Hands the expectations that `request` asks for to `each` as they arrive. Returns the number of those that
    /// could not be decoded.
    pub fn expectations_with(
        &mut self,
        request: &ExpectRequest,
        mut each: impl FnMut(Expectation<'_>),
    ) -> Result<u64, Error> {
        let mut rejected = 0;
        let mut answer = expect_requests::list(&mut self.requests, request)?;
        while let Some(found) = answer.advance(&self.requests, &mut self.buffer)? {
            match expect_requests::decode(&found.message(&self.buffer)) {
                Ok(expectation) => each(expectation),
                Err(error) => {
                    log::debug!("expectation skipped: {error}");
                    rejected += 1;
                }
            }
        }
        Ok(rejected)
    }

    /// The expectations that `request` asks for; there are rarely more than some hundreds
    /// (net.netfilter.nf_conntrack_expect_max). Those that cannot be decoded are left out, and logged.
    pub fn expectations(
        &mut self,
        request: &ExpectRequest,
    ) -> Result<Vec<ConntrackExpectation>, Error> {
        let mut all = Vec::new();
        let rejected = self.expectations_with(request, |expectation| {
            all.push(ConntrackExpectation::from(&expectation));
        })?;
        if rejected > 0 {
            log::warn!("{rejected} expectations could not be decoded");
        }
        Ok(all)
    }

    /// An expectation; `None` if there is none, or one with another identifier.
    pub fn get_expectation(
        &mut self,
        key: &ExpectKey,
    ) -> Result<Option<ConntrackExpectation>, Error> {
        self.get_expectation_with(key, |expectation| expectation.into())
    }

    /// As [`Self::get_expectation`], without copying: the expectation is handed to `make`.
    pub fn get_expectation_with<T>(
        &mut self,
        key: &ExpectKey,
        mut make: impl FnMut(&Expectation<'_>) -> T,
    ) -> Result<Option<T>, Error> {
        let mut answer = expect_requests::get(&mut self.requests, key)?;
        let mut found = None;
        loop {
            match answer.advance(&self.requests, &mut self.buffer) {
                Ok(Some(message)) => {
                    let decoded = expect_requests::decode(&message.message(&self.buffer));
                    found = Some(decoded.map(|expectation| make(&expectation)));
                }
                Ok(None) => break,
                Err(error) if error.is_refused(Errno::ENOENT) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        let malformed = |source| Error::Malformed { request: "expectation get", source };
        found.transpose().map_err(malformed)
    }

    /// Makes an expectation.
    ///
    /// # Errors
    /// EEXIST if there is one of the same tuple, ENOENT if there is no such master, EOPNOTSUPP if the
    /// master has no helper.
    pub fn create_expectation(&mut self, expectation: &NewExpectation) -> Result<(), Error> {
        expect_requests::create(&mut self.requests, &mut self.buffer, expectation, true)
    }

    /// Makes an expectation; if there is one of the same tuple, that one gets the timeout.
    pub fn create_or_update_expectation(
        &mut self,
        expectation: &NewExpectation,
    ) -> Result<(), Error> {
        expect_requests::create(&mut self.requests, &mut self.buffer, expectation, false)
    }

    /// Removes an expectation; false if there was none, or one with another identifier.
    pub fn delete_expectation(&mut self, key: &ExpectKey) -> Result<bool, Error> {
        match expect_requests::delete(&mut self.requests, &mut self.buffer, key) {
            Ok(()) => Ok(true),
            Err(error) if error.is_refused(Errno::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes all expectations, or those of flows with this helper.
    pub fn flush_expectations(&mut self, helper: Option<&str>) -> Result<(), Error> {
        expect_requests::flush(&mut self.requests, &mut self.buffer, helper)
    }
}
