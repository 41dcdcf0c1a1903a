//! Cron schedules, as upstream reads them: five fields, names, steps, `@daily` and the like, `@every`.
//!
//! In: the text, a time zone, an instant. Out: the next instant, or why the text is no schedule. Pure.
//!
//! Written here because the field's libraries read other dialects (seconds, `L`, `W`, Sunday as 7), which would accept
//! what upstream refuses and the reverse.

use std::time::Duration;

use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};

/// Days after which a schedule that was never due is given up: some dates exist only in leap years.
const HORIZON_YEARS: i16 = 5;

/// When something is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule(Kind);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Fields(Box<Fields>),
    Every(Duration),
}

/// One bit for each value a field may have.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fields {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Both day fields restrict: either will do. Otherwise both must hold.
    either_day: bool,
}

/// What a field may hold.
struct Range {
    name: &'static str,
    low: u32,
    high: u32,
    /// Names of the values from `low` on.
    names: &'static [&'static str],
}

const MINUTE: Range = Range { name: "minute", low: 0, high: 59, names: &[] };
const HOUR: Range = Range { name: "hour", low: 0, high: 23, names: &[] };
const DAY: Range = Range { name: "day of month", low: 1, high: 31, names: &[] };
const MONTH: Range = Range {
    name: "month",
    low: 1,
    high: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
const WEEKDAY: Range =
    Range { name: "day of week", low: 0, high: 6, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] };

/// Why a text is no schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// Not five fields.
    #[error("expected exactly 5 fields, found {}: [{}]", .0.len(), .0.join(" "))]
    FieldCount(Vec<String>),
    /// Neither a number nor a name of the field.
    #[error("{field}: cannot read {text:?}")]
    Unreadable {
        /// The field.
        field: &'static str,
        /// What it says.
        text: String,
    },
    /// A number the field cannot have.
    #[error("{field}: {value} is not between {low} and {high}")]
    OutOfRange {
        /// The field.
        field: &'static str,
        /// What it says.
        value: u32,
        /// The lowest it may say.
        low: u32,
        /// The highest it may say.
        high: u32,
    },
    /// A range without any value.
    #[error("{field}: the range {text:?} ends before it begins, or its step is 0")]
    Empty {
        /// The field.
        field: &'static str,
        /// What it says.
        text: String,
    },
    /// An `@` word that does not exist.
    #[error("unrecognized descriptor: {0}")]
    Descriptor(String),
    /// `@every` without a duration.
    #[error("failed to parse duration {0:?}")]
    Duration(String),
}

impl Schedule {
    /// Reads a schedule.
    pub fn parse(text: &str) -> Result<Self, ScheduleError> {
        let text = text.trim();
        if let Some(descriptor) = text.strip_prefix('@') {
            return Self::descriptor(descriptor);
        }
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields.as_slice() else {
            return Err(ScheduleError::FieldCount(fields.iter().map(|&field| field.to_owned()).collect()));
        };
        let (days, every_day) = read(days, &DAY)?;
        let (weekdays, every_weekday) = read(weekdays, &WEEKDAY)?;
        Ok(Self(Kind::Fields(Box::new(Fields {
            minutes: read(minutes, &MINUTE)?.0,
            hours: read(hours, &HOUR)?.0,
            days,
            months: read(months, &MONTH)?.0,
            weekdays,
            either_day: !every_day && !every_weekday,
        }))))
    }

    fn descriptor(descriptor: &str) -> Result<Self, ScheduleError> {
        let fields = match descriptor {
            "yearly" | "annually" => "0 0 1 1 *",
            "monthly" => "0 0 1 * *",
            "weekly" => "0 0 * * 0",
            "daily" | "midnight" => "0 0 * * *",
            "hourly" => "0 * * * *",
            _ => {
                let every = descriptor.strip_prefix("every ");
                let every = every.ok_or_else(|| ScheduleError::Descriptor(format!("@{descriptor}")))?;
                // Less than a second is a second.
                let period = duration(every.trim())?.max(Duration::from_secs(1));
                return Ok(Self(Kind::Every(period)));
            }
        };
        Self::parse(fields)
    }

    /// The first instant after `after` that the schedule names in this zone; `None` if there is none for years.
    pub fn next_after(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match &self.0 {
            Kind::Every(period) => {
                let period = SignedDuration::try_from(*period).ok()?;
                let next = after.checked_add(period).ok()?;
                Timestamp::from_second(next.as_second()).ok()
            }
            Kind::Fields(fields) => fields.next_after(after, zone),
        }
    }
}

/// The bits of one field, and whether it says "any".
fn read(text: &str, range: &Range) -> Result<(u64, bool), ScheduleError> {
    let (mut bits, mut any) = (0, false);
    for part in text.split(',') {
        let (of_part, any_in_part) = read_part(part, range)?;
        bits |= of_part;
        any |= any_in_part;
    }
    Ok((bits, any))
}

fn read_part(text: &str, range: &Range) -> Result<(u64, bool), ScheduleError> {
    let unreadable = || ScheduleError::Unreadable { field: range.name, text: text.to_owned() };
    let (span, step) = match text.split_once('/') {
        Some((span, step)) => (span, Some(step.parse::<u32>().map_err(|_| unreadable())?)),
        None => (text, None),
    };
    let any = matches!(span, "*" | "?");
    let (first, last) = match span.split_once('-') {
        _ if any => (range.low, range.high),
        Some((first, last)) => (value(first, range, text)?, value(last, range, text)?),
        None => {
            let first = value(span, range, text)?;
            // `5/10` means from 5 on.
            (first, if step.is_some() { range.high } else { first })
        }
    };
    for value in [first, last] {
        if !(range.low..=range.high).contains(&value) {
            let (low, high) = (range.low, range.high);
            return Err(ScheduleError::OutOfRange { field: range.name, value, low, high });
        }
    }
    let step_size = step.unwrap_or(1);
    if first > last || step_size == 0 {
        return Err(ScheduleError::Empty { field: range.name, text: text.to_owned() });
    }
    let stride = usize::try_from(step_size).map_err(|_| unreadable())?;
    let bits = (first..=last).step_by(stride).fold(0, |bits, value| bits | 1_u64 << value);
    Ok((bits, any && step_size == 1))
}

fn value(text: &str, range: &Range, whole: &str) -> Result<u32, ScheduleError> {
    let named = range.names.iter().position(|name| name.eq_ignore_ascii_case(text));
    if let Some(position) = named.and_then(|position| u32::try_from(position).ok()) {
        return Ok(range.low + position);
    }
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|_| digits)
        .ok_or_else(|| ScheduleError::Unreadable { field: range.name, text: whole.to_owned() })
}

/// A duration as Go writes them: `1h30m`, `90s`.
fn duration(text: &str) -> Result<Duration, ScheduleError> {
    let wrong = || ScheduleError::Duration(text.to_owned());
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(digits);
        let unit = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let seconds = match unit {
            "h" => 3600,
            "m" => 60,
            "s" => 1,
            _ => return Err(wrong()),
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let part = number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)?;
        total = total.checked_add(part).ok_or_else(wrong)?;
        rest = tail;
    }
    if total.is_zero() { Err(wrong()) } else { Ok(total) }
}

impl Fields {
    /// Walks forward, the largest unit first. Hours and minutes go by the clock that never jumps: an hour that a zone
    /// leaves out is not due, one that it has twice is due twice.
    fn next_after(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let mut at = Timestamp::from_second((after.as_second().div_euclid(60) + 1) * 60).ok()?;
        let last_year = zone.to_datetime(at).year().saturating_add(HORIZON_YEARS);
        loop {
            let there = zone.to_datetime(at);
            if there.year() > last_year {
                return None;
            }
            at = if !has(self.months, there.month()) {
                let next = there.date().first_of_month().checked_add(1.month()).ok()?;
                forward(at, next.at(0, 0, 0, 0), zone)?
            } else if !self.is_day(there) {
                forward(at, there.date().tomorrow().ok()?.to_datetime(Time::midnight()), zone)?
            } else if !has(self.hours, there.hour()) {
                at.checked_add(SignedDuration::from_mins(60 - i64::from(there.minute()))).ok()?
            } else if !has(self.minutes, there.minute()) {
                at.checked_add(SignedDuration::from_mins(1)).ok()?
            } else {
                return Some(at);
            };
        }
    }

    fn is_day(&self, there: DateTime) -> bool {
        let day = has(self.days, there.day());
        let weekday = has(self.weekdays, there.weekday().to_sunday_zero_offset());
        if self.either_day { day || weekday } else { day && weekday }
    }
}

fn has(bits: u64, value: i8) -> bool {
    u32::try_from(value).is_ok_and(|value| bits & (1_u64 << value) != 0)
}

/// The instant of a local time that lies ahead; never back, whatever the zone does to its clocks.
fn forward(at: Timestamp, local: DateTime, zone: &TimeZone) -> Option<Timestamp> {
    let there = zone.to_timestamp(local).ok()?;
    Some(if there > at { there } else { at.checked_add(SignedDuration::from_hours(1)).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(text: &str, after: &str) -> String {
        let after: Timestamp = after.parse().unwrap();
        let next = Schedule::parse(text).unwrap().next_after(after, &TimeZone::UTC);
        next.map_or_else(|| "never".to_owned(), |next| next.to_string())
    }

    #[test]
    fn next_time_follows_every_kind_of_field() {
        let cases = [
            ("* * * * *", "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"),
            ("* * * * *", "2026-01-01T00:00:59Z", "2026-01-01T00:01:00Z"),
            ("*/15 * * * *", "2026-01-01T00:46:00Z", "2026-01-01T01:00:00Z"),
            ("5/20 * * * *", "2026-01-01T00:26:00Z", "2026-01-01T00:45:00Z"),
            ("30 2 * * *", "2026-01-01T03:00:00Z", "2026-01-02T02:30:00Z"),
            ("0 0 29 2 *", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("0 0 30 2 *", "2026-01-01T00:00:00Z", "never"),
            ("0 9-17/4 * * mon-fri", "2026-01-02T17:00:00Z", "2026-01-05T09:00:00Z"),
            // Both day fields restrict: either will do.
            ("0 0 13 * FRI", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"),
            ("0 0 13 * ?", "2026-01-01T00:00:00Z", "2026-01-13T00:00:00Z"),
            ("0 0 1,15 JUN *", "2026-06-01T00:00:00Z", "2026-06-15T00:00:00Z"),
            ("@weekly", "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z"),
            ("@every 1h30m", "2026-01-01T00:00:10Z", "2026-01-01T01:30:10Z"),
        ];
        for (text, after, expected) in cases {
            assert_eq!(next(text, after), expected, "{text} after {after}");
        }
    }

    #[test]
    fn hours_that_clocks_skip_are_not_due() {
        // Clocks go from 2 to 3 on 29 March 2026.
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let schedule = Schedule::parse("30 2 * * *").unwrap();
        let next = |after: &str| schedule.next_after(after.parse().unwrap(), &zone).unwrap().to_string();
        assert_eq!(next("2026-03-28T00:00:00Z"), "2026-03-28T01:30:00Z");
        assert_eq!(next("2026-03-28T02:00:00Z"), "2026-03-30T00:30:00Z");
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for text in [
            "",
            "* * * *",
            "* * * * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * * 13 *",
            "* * * * 7",
            "5-1 * * * *",
            "*/0 * * * *",
            "a * * * *",
            "+5 * * * *",
            "@sometimes",
            "@every",
            "@every x",
            "@every 5",
            "TZ=UTC * * * * *",
        ] {
            assert!(Schedule::parse(text).is_err(), "{text}");
        }
    }
}
