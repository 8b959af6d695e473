//! Local time.

use tz::{DateTime, TimeZone, UtcDateTime};

use super::digits::{decimal, zero_padded};

const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Turns seconds since the epoch into dates of a time zone.
#[derive(Clone, Debug)]
pub struct Calendar(TimeZone);

impl Calendar {
    /// UTC.
    #[must_use]
    pub fn utc() -> Self {
        Self(TimeZone::utc())
    }

    /// The time zone that the environment variable TZ names, or that of /etc/localtime; UTC if that
    /// cannot be read, as the C library does.
    #[must_use]
    pub fn local(tz: Option<&str>) -> Self {
        let zone = match tz {
            None => TimeZone::local(),
            Some("") => Ok(TimeZone::utc()),
            Some(tz) => TimeZone::from_posix_tz(tz),
        };
        Self(zone.unwrap_or_else(|_| TimeZone::utc()))
    }

    /// The date; `None` if the year is out of range.
    fn date(&self, seconds: u64) -> Option<DateTime> {
        let utc = UtcDateTime::from_timespec(i64::try_from(seconds).ok()?, 0).ok()?;
        utc.project(self.0.as_ref()).ok()
    }

    /// Appends a date as ctime(3) writes it, without a line feed; the number of seconds if there is no such date.
    pub(super) fn write(&self, out: &mut Vec<u8>, seconds: u64) {
        let Some(date) = self.date(seconds) else { return decimal(out, seconds) };
        out.extend_from_slice(name(&DAYS, date.week_day()));
        out.push(b' ');
        out.extend_from_slice(name(&MONTHS, date.month().wrapping_sub(1)));
        out.push(b' ');
        if date.month_day() < 10 {
            out.push(b' ');
        }
        decimal(out, date.month_day());
        for (separator, number) in
            [(b' ', date.hour()), (b':', date.minute()), (b':', date.second())]
        {
            out.push(separator);
            zero_padded(out, number, 2);
        }
        out.push(b' ');
        decimal(out, date.year().unsigned_abs());
    }

    /// Appends a time as XML elements. Days of the week count from Sunday, 1.
    pub(super) fn write_xml(&self, out: &mut Vec<u8>, seconds: u64) {
        let Some(date) = self.date(seconds) else { return };
        out.extend_from_slice(b"<when><hour>");
        decimal(out, date.hour());
        out.extend_from_slice(b"</hour><min>");
        zero_padded(out, date.minute(), 2);
        out.extend_from_slice(b"</min><sec>");
        zero_padded(out, date.second(), 2);
        out.extend_from_slice(b"</sec><wday>");
        decimal(out, date.week_day() + 1);
        out.extend_from_slice(b"</wday><day>");
        decimal(out, date.month_day());
        out.extend_from_slice(b"</day><month>");
        decimal(out, date.month());
        out.extend_from_slice(b"</month><year>");
        decimal(out, date.year().unsigned_abs());
        out.extend_from_slice(b"</year></when>");
    }
}

fn name<const N: usize>(names: &[&'static str; N], number: u8) -> &'static [u8] {
    names.get(usize::from(number)).copied().unwrap_or_default().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(calendar: &Calendar, seconds: u64) -> String {
        let mut out = Vec::new();
        calendar.write(&mut out, seconds);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn dates_are_those_of_ctime() {
        let utc = Calendar::utc();
        assert_eq!(text(&utc, 0), "Thu Jan  1 00:00:00 1970");
        assert_eq!(text(&utc, 1_795_649_136), "Wed Nov 25 23:25:36 2026");
        assert_eq!(text(&utc, u64::MAX), u64::MAX.to_string());
        let west = Calendar::local(Some("EST5EDT,M3.2.0,M11.1.0"));
        assert_eq!(text(&west, 1_795_649_136), "Wed Nov 25 18:25:36 2026");
        assert_eq!(text(&Calendar::local(Some("")), 0), text(&utc, 0));
        assert_eq!(text(&Calendar::local(Some("Nowhere/At_All")), 0), text(&utc, 0));
    }

    #[test]
    fn times_in_xml_are_elements() {
        let mut out = Vec::new();
        Calendar::utc().write_xml(&mut out, 1_795_649_256);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "<when><hour>23</hour><min>27</min><sec>36</sec><wday>4</wday><day>25</day>\
             <month>11</month><year>2026</year></when>"
        );
    }
}
