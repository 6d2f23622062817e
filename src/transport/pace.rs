//! The pace is how many connections may be open at a time: it falls where hosts turn some away or the way is clogged, and rises
//! with quick answers.
//!
//! The fan-out tells it how each connection went. It has no clock: times are told, so that every course can be played in a test.
//!
//! Both reasons to slow down are guesses that the next answers judge. A host that hangs up in the handshake may have too many logins
//! at once (`MaxStartups`), and then lets the same login in later; or it may be broken, and then it was no reason. A login that takes
//! long may wait behind the others on a slow link, and then it is faster with fewer of them; or the host is far away.

use std::time::Duration;

/// How many connections it begins with, where more are allowed: as many as keep the processors of a small bastion busy with logins.
/// More would take memory alone there; where answers stay prompt, every one of them adds one, which doubles the limit round by round.
const BEGINNING: usize = 16;

/// The fewest connections that it falls to; a way that is clogged by so few is not made better by fewer.
const FLOOR: usize = 4;

/// How many times longer than the best a login takes at most while nothing is in its way.
const PROMPT: u32 = 2;

/// How many times longer than the best a login takes on a way that is clogged.
const CLOGGED: u32 = 8;

/// How many connections may be open at a time.
#[derive(Debug, Clone)]
pub(super) struct Pace {
    ceiling: usize,
    limit: usize,
    /// Counts how often the limit fell: what began before the last fall says nothing about the limit since.
    round: u64,
    /// What was not found to be too much: beneath it, every prompt answer raises the limit; above, a whole round of quick ones.
    proven: usize,
    /// Quick answers since the last rise.
    quick: usize,
    best: Option<Duration>,
    /// How long a login takes at least that is called slow.
    tolerated: Duration,
    /// How long the login took for which the limit fell last, until the next round has shown whether that helped.
    slow: Option<Duration>,
    /// Whether a login that was turned away has been let in later.
    is_crowded: bool,
}

/// The beginning of a connection, by which its end is judged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start {
    round: u64,
}

impl Pace {
    /// Returns a pace with a ceiling. Logins shorter than `tolerated` are never called slow.
    pub(super) fn new(ceiling: usize, tolerated: Duration) -> Self {
        let ceiling = ceiling.max(1);
        Self {
            ceiling,
            limit: ceiling.min(BEGINNING),
            round: 0,
            proven: ceiling,
            quick: 0,
            best: None,
            tolerated,
            slow: None,
            is_crowded: false,
        }
    }

    /// Returns how many connections may be open now.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Returns whether hosts are known to turn logins away for being too many, so that it is worth coming back more often.
    pub(super) fn is_crowded(&self) -> bool {
        self.is_crowded
    }

    /// Notes that a connection begins.
    pub(super) fn begin(&self) -> Start {
        Start { round: self.round }
    }

    /// Notes that a host hung up before the login.
    pub(super) fn turned_away(&mut self, start: Start) {
        self.fall(start, self.limit / 2);
    }

    /// Notes that a login that was turned away before was let in: there were too many.
    pub(super) fn let_in_later(&mut self) {
        self.is_crowded = true;
    }

    /// Notes that a host turned every attempt away: it was not for too many others that it did.
    pub(super) fn never_let_in(&mut self) {
        if !self.is_crowded {
            self.limit = (self.limit * 2).min(self.ceiling);
            self.proven = self.proven.max(self.limit);
        }
    }

    /// Notes how long a login took, from the first packet on.
    pub(super) fn answered(&mut self, start: Start, took: Duration) {
        let best = self.best.map_or(took, |best| best.min(took));
        self.best = Some(best);
        if took > self.tolerated.max(best.saturating_mul(CLOGGED)) {
            self.answered_late(start, took);
        } else {
            self.answered_quickly(start, took <= best.saturating_mul(PROMPT));
        }
    }

    fn answered_late(&mut self, start: Start, took: Duration) {
        match self.slow {
            // Fewer at a time, and it takes as long: the host is far away.
            Some(slow) if start.round == self.round && took > slow.mul_f64(0.8) => {
                self.tolerated = took.saturating_mul(2);
                self.slow = None;
                self.limit = self.ceiling;
                self.proven = self.ceiling;
            }
            _ => {
                if self.fall(start, self.limit * 3 / 4) {
                    self.slow = Some(took);
                }
            }
        }
    }

    fn answered_quickly(&mut self, start: Start, is_prompt: bool) {
        if start.round != self.round || self.limit >= self.ceiling {
            return;
        }
        self.slow = None;
        self.quick += 1;
        if is_prompt && self.limit < self.proven || self.quick >= self.limit {
            self.limit += 1;
            self.quick = 0;
        }
    }

    /// Lowers the limit, once for all that began under it; returns whether it did.
    fn fall(&mut self, start: Start, to: usize) -> bool {
        if start.round != self.round {
            return false;
        }
        self.round += 1;
        self.limit = to.max(FLOOR.min(self.ceiling));
        self.proven = self.limit;
        self.quick = 0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_millis(40);

    fn pace() -> Pace {
        Pace::new(64, Duration::from_secs(2))
    }

    #[test]
    fn a_crowd_that_is_turned_away_halves_the_limit_once() {
        let mut pace = pace();
        let crowd: Vec<Start> = (0..64).map(|_| pace.begin()).collect();
        for start in crowd {
            pace.turned_away(start);
        }
        assert_eq!(pace.limit(), 8);
        let next = pace.begin();
        pace.turned_away(next);
        assert_eq!(pace.limit(), 4);
    }

    #[test]
    fn it_begins_in_the_middle_and_rises_with_prompt_answers_at_once_and_slowly_with_others() {
        let mut pace = pace();
        assert_eq!(pace.limit(), 16);
        let answer = |pace: &mut Pace, took: Duration, count: usize| {
            for _ in 0..count {
                let start = pace.begin();
                pace.answered(start, took);
            }
        };
        answer(&mut pace, QUICK, 4);
        assert_eq!(pace.limit(), 20);
        answer(&mut pace, QUICK * 3, 19);
        assert_eq!(pace.limit(), 20);
        answer(&mut pace, QUICK * 3, 1);
        assert_eq!(pace.limit(), 21);
        answer(&mut pace, QUICK * 2, 100);
        assert_eq!(pace.limit(), 64);
    }

    #[test]
    fn the_limit_has_a_floor_and_a_ceiling() {
        let mut pace = pace();
        for _ in 0..100 {
            let start = pace.begin();
            pace.turned_away(start);
        }
        assert_eq!(pace.limit(), FLOOR);
        for _ in 0..10_000 {
            let start = pace.begin();
            pace.answered(start, QUICK);
        }
        assert_eq!(pace.limit(), 64);
        assert_eq!(Pace::new(2, Duration::ZERO).limit(), 2);
        let mut narrow = Pace::new(2, Duration::ZERO);
        let start = narrow.begin();
        narrow.turned_away(start);
        assert_eq!(narrow.limit(), 2, "the floor is not above the ceiling");
    }

    #[test]
    fn quick_answers_raise_it_slowly_above_what_was_too_much() {
        let mut pace = pace();
        let start = pace.begin();
        pace.turned_away(start);
        let answer = |pace: &mut Pace, count: usize| {
            for _ in 0..count {
                let start = pace.begin();
                pace.answered(start, QUICK);
            }
        };
        answer(&mut pace, 7);
        assert_eq!(pace.limit(), 8);
        answer(&mut pace, 1);
        assert_eq!(pace.limit(), 9);
        answer(&mut pace, 9);
        assert_eq!(pace.limit(), 10);
    }

    #[test]
    fn a_host_that_never_lets_anybody_in_was_no_reason() {
        let mut pace = pace();
        for _ in 0..3 {
            let start = pace.begin();
            pace.turned_away(start);
        }
        assert_eq!(pace.limit(), 4);
        pace.never_let_in();
        pace.never_let_in();
        pace.never_let_in();
        assert_eq!(pace.limit(), 32, "the floor was reached after two, and each of the three is taken back");
    }

    #[test]
    fn a_crowd_stays_a_crowd_although_one_host_is_broken() {
        let mut pace = pace();
        let start = pace.begin();
        pace.turned_away(start);
        pace.let_in_later();
        pace.never_let_in();
        assert!(pace.is_crowded());
        assert_eq!(pace.limit(), 8);
    }

    #[test]
    fn a_clogged_way_lowers_it_as_long_as_that_helps() {
        let mut pace = pace();
        let first = pace.begin();
        pace.answered(first, QUICK);
        let crowd = [pace.begin(), pace.begin()];
        for start in crowd {
            pace.answered(start, Duration::from_secs(6));
        }
        assert_eq!(pace.limit(), 12);
        let fewer = pace.begin();
        pace.answered(fewer, Duration::from_secs(4));
        assert_eq!(pace.limit(), 9);
        let fewest = pace.begin();
        pace.answered(fewest, Duration::from_secs(1));
        assert_eq!(
            pace.limit(),
            9,
            "a second is no reason, and above what is proven one quick answer is not enough"
        );
    }

    #[test]
    fn hosts_that_are_far_away_are_no_reason() {
        let mut pace = pace();
        let near = pace.begin();
        pace.answered(near, QUICK);
        for _ in 0..100 {
            let far = pace.begin();
            pace.answered(far, Duration::from_secs(3));
        }
        assert_eq!(pace.limit(), 64);
    }

    #[test]
    fn short_times_are_never_slow() {
        let mut pace = pace();
        for took in [1, 1900] {
            let start = pace.begin();
            pace.answered(start, Duration::from_millis(took));
        }
        assert_eq!(pace.limit(), 17, "the first raised it, the second did not lower it");
    }
}
