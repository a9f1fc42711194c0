//! Who knows everything but the future: how tasks come and how long answers are, as the load draws them,
//! what each task that is there has told, and the very queue. What it guesses is the middle of futures
//! that are played through; how far even that is off is as well as a start can be foretold.

use super::load::{Load, Random};
use super::report::WORTH_S;
use super::world::World;

/// Futures per guess.
const PLAYS: usize = 31;

/// Seconds that a task waits which has just come.
pub(super) fn guess(world: &World, load: &Load, task: usize) -> Option<f64> {
    let mut random = Random(task as u64);
    let mean = load.mean(&mut random);
    // What is foretold is held against waits that are worth foretelling.
    let waits = (0..PLAYS).map(|_| play(world, load, mean, task, &mut random));
    let mut waits: Vec<f64> = waits.filter(|wait| *wait >= WORTH_S).collect();
    waits.sort_by(f64::total_cmp);
    waits.get(waits.len() / 2).copied()
}

fn play(world: &World, load: &Load, mean: f64, task: usize, random: &mut Random) -> f64 {
    let now = world.arrivals[task].at;
    let mut world = world.imagined(load, task, random);
    let mut next = (load.clients == 0).then(|| load.next(random, now, mean));
    loop {
        if let Some(started) = world.outcomes[task].started {
            return started - now;
        }
        let end = world.next_end();
        match next {
            Some(arrival) if end.is_none_or(|end| end > arrival.at) => {
                world.come(arrival);
                next = Some(load.next(random, arrival.at, mean));
            }
            Some(_) => world.end_next(),
            None => world.end_next_of(load, random),
        }
    }
}
