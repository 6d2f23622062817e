//! A boundary lies right before or right after one effect: there the fleet can stop the world and call whoever waits for it.
//!
//! The tests kill a run at every one of them; what changes a node asks here before, and tells here after.

use std::fmt;
use std::sync::{Mutex, MutexGuard};

use super::clock::lock;

/// On which side of an effect the world stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The effect does not happen: the script that was about to make it ends there, as when its node's power goes.
    Before,
    /// The effect has happened: its script goes on to its end, as on a node whose client has gone.
    After,
}

/// One of the two sides of an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Boundary {
    /// The number of the effect since the fleet began, from 1 on.
    pub effect: usize,
    /// The side.
    pub side: Side,
}

/// Whether a change that was announced happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    Happens,
    /// The world has stopped right before it.
    Ends,
}

type Call = Box<dyn FnOnce() + Send>;

/// What is waited for.
#[derive(Default)]
struct Watch {
    announced: usize,
    happened: usize,
    awaited: Option<(Boundary, Call)>,
}

/// Counts the effects, and stops the world at the boundary that is waited for.
#[derive(Default)]
pub(crate) struct Boundaries(Mutex<Watch>);

impl fmt::Debug for Boundaries {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Boundaries").finish_non_exhaustive()
    }
}

impl Boundaries {
    /// Calls once when a boundary is reached, while nothing else can have an effect.
    pub(crate) fn stop_at(&self, boundary: Boundary, call: Call) {
        lock(&self.0).awaited = Some((boundary, call));
    }

    /// Begins to count from nothing.
    pub(crate) fn clear(&self) {
        let mut watch = lock(&self.0);
        watch.announced = 0;
        watch.happened = 0;
    }

    /// Says that an effect is about to happen.
    pub(crate) fn announce(&self) -> Turn {
        let mut watch = lock(&self.0);
        let effect = watch.announced + 1;
        if reach(&mut watch, Boundary { effect, side: Side::Before }) {
            return Turn::Ends;
        }
        watch.announced = effect;
        Turn::Happens
    }

    /// Says that an effect has happened.
    pub(crate) fn happened(&self) {
        let mut watch = lock(&self.0);
        let effect = watch.happened + 1;
        watch.happened = effect;
        // Not everything that happens by itself is announced.
        watch.announced = watch.announced.max(effect);
        reach(&mut watch, Boundary { effect, side: Side::After });
    }
}

/// Calls whoever waits for a boundary; the world stands still meanwhile, because whatever has an effect waits for the watch.
fn reach(watch: &mut MutexGuard<'_, Watch>, boundary: Boundary) -> bool {
    let Some((_, call)) = watch.awaited.take_if(|(awaited, _)| *awaited == boundary) else { return false };
    call();
    true
}
