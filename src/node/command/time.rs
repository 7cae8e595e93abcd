//! Times in requests in RESP: seconds or milliseconds, from now or since 1970.

use crate::base::time::Now;
use crate::node::command::error::{BadSeconds, CommandError};
use crate::store::Expiry;
use crate::wire::resp::parse::number;

/// The form of a time: its unit and its origin.
#[derive(Debug, Clone, Copy)]
pub(in crate::node) struct TimeForm {
    unit_ms: i64,
    is_absolute: bool,
}

impl TimeForm {
    pub(in crate::node) const SECONDS: Self = Self { unit_ms: 1_000, is_absolute: false };
    pub(in crate::node) const MILLIS: Self = Self { unit_ms: 1, is_absolute: false };
    pub(in crate::node) const UNIX_SECONDS: Self = Self { unit_ms: 1_000, is_absolute: true };
    pub(in crate::node) const UNIX_MILLIS: Self = Self { unit_ms: 1, is_absolute: true };

    /// The form of an option of SET.
    pub(in crate::node) fn of_option(option: &[u8]) -> Option<Self> {
        let options = [
            ("EX", Self::SECONDS),
            ("PX", Self::MILLIS),
            ("EXAT", Self::UNIX_SECONDS),
            ("PXAT", Self::UNIX_MILLIS),
        ];
        options.iter().find(|(name, _)| option.eq_ignore_ascii_case(name.as_bytes())).map(|(_, form)| *form)
    }

    /// The time in `text`, in milliseconds since 1970; possibly in the past.
    pub(in crate::node) fn moment<'a>(
        self,
        now: Now,
        command: &'static str,
        text: &'a [u8],
    ) -> Result<i64, CommandError<'a>> {
        let given = number(text).ok_or(CommandError::BadSeconds(command, text, BadSeconds::NoNumber))?;
        let origin = if self.is_absolute { 0 } else { wall_ms(now) };
        let moment = given.checked_mul(self.unit_ms).and_then(|ms| ms.checked_add(origin));
        moment.ok_or(CommandError::BadSeconds(command, text, BadSeconds::TooMany))
    }

    /// The expiry of a value set with the time in `text`, which must be above 0; possibly in the past.
    pub(in crate::node) fn expiry<'a>(
        self,
        now: Now,
        command: &'static str,
        text: &'a [u8],
    ) -> Result<Expiry, CommandError<'a>> {
        let moment = self.moment(now, command, text)?;
        if number(text).is_some_and(|given| given <= 0) {
            return Err(CommandError::BadSeconds(command, text, BadSeconds::Zero));
        }
        expiry_at(now, command, text, moment)
    }
}

/// The expiry at `moment`, in milliseconds since 1970; an error about `text` if it is after the year 9999.
pub(in crate::node) fn expiry_at<'a>(
    now: Now,
    command: &'static str,
    text: &'a [u8],
    moment: i64,
) -> Result<Expiry, CommandError<'a>> {
    let expiry = Expiry::at(now, u64::try_from(moment).unwrap_or(0));
    expiry.ok_or(CommandError::BadSeconds(command, text, BadSeconds::TooMany))
}

/// The wall clock in milliseconds since 1970.
pub(in crate::node) fn wall_ms(now: Now) -> i64 {
    i64::try_from(now.wall_ms()).unwrap_or(i64::MAX)
}
