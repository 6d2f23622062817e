//! The tries of a rotation that fails at Rancher, which tries again without an end (rancher/rancher#23423).

use std::collections::HashMap;

use tokio::time::{Duration, Instant};

use crate::rancher::Cluster;

/// How often a rotation has to fail in the same way before nobody waits for it any longer. Rancher pauses for 30 s, 60 s, 2 min, and so
/// on up to 10 min in between: what passes by itself, such as a node that restarts, has passed by then.
const ENDLESS: usize = 3;

/// From how many digits on a number in a message is one that differs in each try: of a temporary file, of a process, of a time.
const PASSING_NUMBER: usize = 6;

/// A message that comes back sooner than this belongs to the same try, which may say the same of several nodes: less than Rancher's
/// shortest pause.
const GAP: Duration = Duration::from_secs(20);

/// What Rancher said while a rotation failed, and how often.
///
/// Between two tries Rancher's condition stays false, and the place in which it said what went wrong shows what it does meanwhile: a
/// rotation has failed once more where a message is there again that was there some time before, with anything else in between.
#[derive(Debug)]
pub(super) struct Tries {
    /// How long ago a message must have come last to be one of another try now.
    gap: Duration,
    /// When each message came last, and how often it was counted.
    seen: HashMap<String, (Instant, usize)>,
    /// What was there at the last look: the message, and when it was written.
    last: Option<(String, Option<String>)>,
}

impl Tries {
    /// Begins to count; `patience` is how long the rotation may take in all.
    pub(super) fn new(patience: Duration) -> Self {
        // The Rancher of a rehearsal pauses for less, and whoever waits for it waits for less.
        Self { gap: GAP.min(patience / 30), seen: HashMap::new(), last: None }
    }

    /// Returns whether no failure was seen yet.
    pub(super) fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// Notes that the rotation is not failing at this look.
    pub(super) fn goes_on(&mut self) {
        self.last = None;
    }

    /// Notes what Rancher says of a failure, and returns how often it has failed so, where that is once more than before.
    pub(super) fn fails(&mut self, cluster: &Cluster, now: Instant) -> Option<usize> {
        let said = (without_passing_numbers(&cluster.transitioning_message), cluster.updated_at.clone());
        if self.last.as_ref() == Some(&said) {
            return None;
        }
        self.last = Some(said.clone());
        let (came, times) = self.seen.entry(said.0).or_insert((now, 0));
        // Measured from its last coming, counted or not: two messages that take turns are one slow try, however long.
        let since = now.duration_since(std::mem::replace(came, now));
        if *times > 0 && since < self.gap {
            return None;
        }
        *times += 1;
        Some(*times)
    }

    /// Returns whether so many failures are without an end.
    pub(super) fn are_endless(times: usize) -> bool {
        times >= ENDLESS
    }
}

/// Returns a message without the numbers that differ in each try.
fn without_passing_numbers(message: &str) -> String {
    let mut text = String::new();
    let mut digits = String::new();
    for character in message.chars().chain(['\n']) {
        if character.is_ascii_digit() {
            digits.push(character);
            continue;
        }
        text.push_str(if digits.len() < PASSING_NUMBER { &digits } else { "#" });
        digits.clear();
        text.push(character);
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn says(message: &str, updated_at: &str) -> Cluster {
        let body = json!({
            "id": "c-1", "state": "updating", "transitioning": "error", "transitioningMessage": message,
            "conditions": [{ "type": "Updated", "status": "False", "lastUpdateTime": updated_at }],
        });
        Cluster::parse(&body.to_string()).unwrap()
    }

    /// Returns how often each look found a failure.
    fn counted(looks: &[(u64, &str, &str)]) -> Vec<Option<usize>> {
        let mut tries = Tries::new(Duration::from_mins(20));
        let began = Instant::now();
        looks
            .iter()
            .map(|(after, message, at)| tries.fails(&says(message, at), began + Duration::from_secs(*after)))
            .collect()
    }

    #[test]
    fn a_message_that_comes_back_is_another_failure() {
        let looks = [
            (0, "CA Certificate or Key is empty", "10:00:00"),
            (1, "CA Certificate or Key is empty", "10:00:00"),
            (31, "Initiating Kubernetes cluster", "10:00:31"),
            (36, "CA Certificate or Key is empty", "10:00:36"),
            (98, "CA Certificate or Key is empty", "10:01:38"),
        ];
        assert_eq!(counted(&looks), [Some(1), None, Some(1), Some(2), Some(3)]);
        assert!(Tries::are_endless(3) && !Tries::are_endless(2));
    }

    #[test]
    fn what_is_said_of_node_after_node_in_one_try_is_one_failure() {
        let looks = [
            (0, "retrying", "10:00:00"),
            (2, "next node", "10:00:02"),
            (4, "retrying", "10:00:04"),
            (6, "next node", "10:00:06"),
            (8, "retrying", "10:00:08"),
        ];
        assert_eq!(counted(&looks), [Some(1), Some(1), None, None, None]);
    }

    #[test]
    fn messages_that_take_turns_in_one_slow_try_are_one_failure() {
        let turns: Vec<(u64, &str, String)> = (0..100)
            .step_by(5)
            .zip(["retrying", "next node"].into_iter().cycle())
            .map(|(after, message)| (after, message, format!("second {after}")))
            .collect();
        let looks: Vec<(u64, &str, &str)> =
            turns.iter().map(|(after, message, at)| (*after, *message, at.as_str())).collect();
        let counted = counted(&looks);
        assert_eq!(counted[..2], [Some(1), Some(1)]);
        assert!(counted[2..].iter().all(Option::is_none), "{counted:?}");
    }

    #[test]
    fn a_longer_patience_does_not_join_tries() {
        assert_eq!(Tries::new(Duration::from_hours(2)).gap, GAP);
        assert_eq!(Tries::new(Duration::from_mins(10)).gap, GAP);
    }

    #[test]
    fn numbers_of_one_try_alone_do_not_hide_that_it_is_the_same() {
        let looks = [
            (0, "exit status 1, yaml-2019779396: no matches on 10.0.0.1", "10:00:00"),
            (40, "exit status 1, yaml-1234567890: no matches on 10.0.0.1", "10:00:40"),
            (80, "exit status 1, yaml-1234567890: no matches on 10.0.0.2", "10:01:20"),
        ];
        assert_eq!(counted(&looks), [Some(1), Some(2), Some(1)]);
    }
}
