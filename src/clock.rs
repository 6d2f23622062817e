//! The clock is the one place where the time of day is read.
//!
//! The face makes it; `gather` and `execute` ask it. Decisions get the time as a value.
#![expect(clippy::disallowed_methods, reason = "this is the clock that everybody else asks")]

use jiff::Timestamp;

/// Tells the time of day.
#[derive(Debug, Clone, Copy, Default)]
pub enum Clock {
    /// The clock of this machine.
    #[default]
    System,
    /// A clock that stands still, for tests and reproducible documents.
    Fixed(Timestamp),
}

impl Clock {
    /// Returns the time of day.
    pub fn now(&self) -> Timestamp {
        match self {
            Self::System => Timestamp::now(),
            Self::Fixed(timestamp) => *timestamp,
        }
    }
}
