//! Times as users give them: `2026-11-29T03:12:00Z`, `2026-11-29 03:12`, `03:12`, `-1h`.

use std::time::Duration;

use tz::{DateTime, TimeZone, UtcDateTime};

/// A time that the user gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Nanoseconds since the epoch.
    At(u64),
    /// So long before the end of the recording.
    BeforeEnd(Duration),
    /// The last time before the end of the recording that clocks on the wall had this time: hour, minute, second.
    Clock(u8, u8, u8),
}

impl When {
    /// From text. Without `Z` or an offset it is local time.
    ///
    /// # Errors
    /// What is accepted.
    pub fn parse(text: &str) -> Result<Self, String> {
        let other = || {
            "give a time such as 2026-11-29T03:12:00Z, \"2026-11-29 03:12\" or 03:12, or -1h for an hour before the end"
                .to_owned()
        };
        if let Some(ago) = text.strip_prefix('-') {
            return humantime::parse_duration(ago).map(Self::BeforeEnd).map_err(|_| other());
        }
        if let Ok(at) = humantime::parse_rfc3339(text) {
            return since_epoch(at).map(Self::At).ok_or_else(other);
        }
        if let Some(clock) = clock(text) {
            return Ok(Self::Clock(clock.0, clock.1, clock.2));
        }
        let (date, time) = text.split_once([' ', 'T']).ok_or_else(other)?;
        let mut parts = date.splitn(3, '-');
        let mut next =
            || parts.next().filter(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
        let date: Option<(i32, u8, u8)> =
            (|| Some((next()?.parse().ok()?, next()?.parse().ok()?, next()?.parse().ok()?)))();
        let (date, time) = date.zip(clock(time)).ok_or_else(other)?;
        local(&zone(), date, time).map(Self::At).ok_or_else(other)
    }

    /// Nanoseconds since the epoch, for a recording that ends at a time.
    #[must_use]
    pub fn of(self, end_ns: u64) -> u64 {
        match self {
            Self::At(ns) => ns,
            Self::BeforeEnd(ago) => end_ns.saturating_sub(ago.as_nanos() as u64),
            Self::Clock(hour, minute, second) => {
                last_before(&zone(), (hour, minute, second), end_ns).unwrap_or(end_ns)
            }
        }
    }
}

/// The zone that TZ names, or that of /etc/localtime.
fn zone() -> TimeZone {
    let named = std::env::var("TZ").ok().filter(|name| !name.is_empty());
    let zone = named.map_or_else(TimeZone::local, |name| TimeZone::from_posix_tz(&name));
    zone.unwrap_or_else(|_| TimeZone::utc())
}

fn since_epoch(at: std::time::SystemTime) -> Option<u64> {
    let since = at.duration_since(std::time::UNIX_EPOCH).ok()?;
    u64::try_from(since.as_nanos()).ok()
}

/// `03:12` or `03:12:30`.
fn clock(text: &str) -> Option<(u8, u8, u8)> {
    let mut parts = text.split(':');
    let mut number = |most: u8| -> Option<u8> {
        let part = parts.next()?;
        let digits =
            (1..=2).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
        part.parse().ok().filter(|number| digits && *number <= most)
    };
    let (hour, minute) = (number(23)?, number(59)?);
    let second = number(59);
    (parts.next().is_none() && (second.is_some() || text.matches(':').count() == 1)).then_some((
        hour,
        minute,
        second.unwrap_or(0),
    ))
}

/// A date and a time of a zone as nanoseconds since the epoch. Of two times that have the same name, when clocks are
/// set back, the first; a time that is left out when they are set forward is the one just after.
fn local(
    zone: &TimeZone,
    (year, month, day): (i32, u8, u8),
    (hour, minute, second): (u8, u8, u8),
) -> Option<u64> {
    let found = DateTime::find(year, month, day, hour, minute, second, 0, zone.as_ref()).ok()?;
    let seconds = found.earliest()?.unix_time();
    u64::try_from(seconds).ok()?.checked_mul(1_000_000_000)
}

fn last_before(zone: &TimeZone, time: (u8, u8, u8), end_ns: u64) -> Option<u64> {
    let end = i64::try_from(end_ns / 1_000_000_000).ok()?;
    // One day may lack the time, because clocks are set forward.
    (0..3).find_map(|days| {
        let day =
            UtcDateTime::from_timespec(end - days * 86_400, 0).ok()?.project(zone.as_ref()).ok()?;
        let at = local(zone, (day.year(), day.month(), day.month_day()), time)?;
        (at <= end_ns).then_some(at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn times_are_read_with_and_without_a_zone() {
        let utc = |text| When::parse(text).unwrap();
        assert_eq!(utc("2026-11-29T03:12:00Z"), When::At(1_795_921_920 * SECOND));
        assert_eq!(utc("2026-11-29T03:12:00.5Z"), When::At(1_795_921_920 * SECOND + SECOND / 2));
        assert_eq!(utc("-1h30m"), When::BeforeEnd(Duration::from_mins(90)));
        assert_eq!(utc("3:12"), When::Clock(3, 12, 0));
        assert_eq!(utc("23:59:58"), When::Clock(23, 59, 58));
        for bad in [
            "",
            "-",
            "yesterday",
            "24:00",
            "03:60",
            "3",
            "2026-13-01 00:00",
            "2026-11-29",
            "03:12:00:00",
            "1969-01-01 00:00",
        ] {
            assert!(When::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_time_of_the_clock_is_the_last_one_before_the_end() {
        let zone = TimeZone::from_posix_tz("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        // 2026-11-29 03:12 in Berlin is 02:12 UTC.
        let at = local(&zone, (2026, 11, 29), (3, 12, 0)).unwrap();
        assert_eq!(at, 1_795_918_320 * SECOND);
        assert_eq!(last_before(&zone, (3, 12, 0), at + SECOND), Some(at));
        assert_eq!(last_before(&zone, (3, 12, 0), at), Some(at));
        assert_eq!(last_before(&zone, (3, 12, 0), at - 1), Some(at - 86_400 * SECOND));
        // 2026-03-29 has no 02:30.
        assert!(local(&zone, (2026, 3, 29), (2, 30, 0)).is_some());
        assert_eq!(When::BeforeEnd(Duration::from_mins(1)).of(at), at - 60 * SECOND);
    }
}
