//! A backoff is how often something is tried and how long is waited in between.
//!
//! The settings have one for making connections; whoever repeats other things over the network takes the pauses of its own.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};

/// How often something is tried; the pause doubles each time and gets a random part, so that many do not come back at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// How often it is tried at most, the first time included.
    pub attempts: u32,
    /// The shortest pause after the first failure; the random part is at most as long again.
    pub pause: Duration,
}

impl Backoff {
    /// Returns a backoff that never tries again.
    pub const fn once() -> Self {
        Self { attempts: 1, pause: Duration::ZERO }
    }

    /// Returns the pauses between the attempts, one fewer than those.
    pub fn pauses(&self) -> impl Iterator<Item = Duration> + Send + use<> {
        ExponentialBuilder::new()
            .with_min_delay(self.pause)
            .without_max_delay()
            .with_max_times(self.attempts.saturating_sub(1) as usize)
            .with_jitter()
            .build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_differ() {
        let backoff = Backoff { attempts: 4, pause: Duration::from_millis(100) };
        let all: Vec<Vec<Duration>> = (0..50).map(|_| backoff.pauses().collect()).collect();
        for pauses in &all {
            assert_eq!(pauses.len(), 3);
            for (pause, shortest) in pauses.iter().zip([100, 200, 400].map(Duration::from_millis)) {
                assert!((shortest..=2 * shortest).contains(pause), "{pause:?}");
            }
        }
        assert!(all.iter().any(|pauses| *pauses != all[0]), "chance has a part in it");
        assert_eq!(Backoff::once().pauses().count(), 0);
    }
}
