//! Days of load on the real queue and the real estimator, without clocks and engines: what they
//! promise about fairness, waiting and foresight, measured. `cargo xtask simulate` prints the table.
//!
//! Engines are a slot and a duration: seconds per prompt token and per generated token, with noise.
//! What is simulated is when tasks come and how large they are; who goes next, who is refused and
//! what is foretold is the code that serves.

mod costs;
mod load;
mod oracle;
mod report;
mod world;

use load::Load;
use report::{Report, jain};
use world::run;

const HOUR: f64 = 3_600.0;

/// A day with a morning and an evening, ten callers, one of them half of all load.
fn day(slots: usize) -> Load {
    Load {
        seed: slots as u64,
        slots,
        hours: 24.0,
        offered: |hour| 1.2 - (hour / 24.0 * std::f64::consts::TAU).cos(),
        ..Load::STEADY
    }
}

fn steady(slots: usize, offered: fn(f64) -> f64) -> Load {
    Load { seed: 7 + slots as u64, slots, hours: 3.0, offered, ..Load::STEADY }
}

/// ORCHD-FAIR-001, ORCHD-FAIR-003, ORCHD-FAIR-004
#[test]
fn a_day_of_mixed_load_is_fair_and_nobody_is_forgotten() {
    let reports = [1, 2, 8].map(|slots| run(&day(slots))).to_vec();
    Report::print("a day, 0.2 to 2.2 times the capacity, one caller half of it", &reports);
    for report in &reports {
        assert_eq!(report.lost, 0, "every admitted task ran");
        assert!(report.peak_waiting <= 256, "the queue is bounded");
        assert!(report.fairness >= 0.95, "Jain's index is {}", report.fairness);
    }
}

/// ORCHD-FAIR-001: all ten want more than their tenth.
#[test]
fn under_a_flood_ten_callers_get_a_tenth_each() {
    let reports = [1, 2, 8].map(|slots| run(&steady(slots, |_| 3.0))).to_vec();
    Report::print("three hours at three times the capacity, one caller half of it", &reports);
    for report in &reports {
        assert!(jain(&report.work) >= 0.95, "Jain's index is {}", jain(&report.work));
    }
}

/// ORCHD-FAIR-003
#[test]
fn batch_keeps_its_share_under_interactive_overload() {
    let load = |slots| Load { batch: 0.3, ..steady(slots, |_| 4.0) };
    let reports = [1, 2, 8].map(|slots| run(&load(slots))).to_vec();
    Report::print("three hours at four times the capacity, most of it interactive", &reports);
    for report in &reports {
        assert!(report.batch_share >= 0.10, "batch had {} of the slots", report.batch_share);
        assert!(report.batch_share <= 0.20, "and no more than is its own: {}", report.batch_share);
    }
}

/// So many clients for each slot, one of which it serves.
fn clients(slots: usize, per_slot: usize) -> Load {
    Load { clients: slots * per_slot, oracle: ASKED, ..steady(slots, |_| 1.0) }
}

/// The oracle takes minutes where nothing is optimised.
const ASKED: bool = !cfg!(debug_assertions);

fn runs(load: impl Fn(usize) -> Load) -> Vec<Report> {
    [1, 2, 8].map(|slots| run(&load(slots))).to_vec()
}

/// ORCHD-ETA-001, ORCHD-ETA-007: while a queue stands, be it that clients wait for their last task before
/// they send the next, or that more come than can be served.
#[test]
fn starts_are_foretold_within_a_quarter_under_a_steady_load() {
    let standing = runs(|slots| clients(slots, 25));
    Report::print("three hours of clients with one task each, 25 of them for each slot", &standing);
    let crowded = runs(|slots| steady(slots, |_| 3.0));
    Report::print("three hours at three times the capacity, for the estimates", &crowded);
    for report in standing.iter().chain(&crowded) {
        assert!(report.median_error <= 0.25, "the median error is {}", report.median_error);
    }
}

/// ORCHD-ETA-006: how long an answer will be nobody knows, nor who comes meanwhile. Where few wait that is
/// most of the wait, for whoever knows all the rest as well: how well a start can be foretold there is
/// printed, and what is told must not be far from it.
#[test]
fn what_is_told_is_not_far_from_what_can_be_known() {
    let check = |times: &str, offered: fn(f64) -> f64| {
        let reports = runs(|slots| Load { oracle: ASKED, ..steady(slots, offered) });
        Report::print(&format!("three hours at {times} times the capacity"), &reports);
        for report in reports {
            assert!(report.median_error <= 0.45, "the median error is {}", report.median_error);
            let Some(least) = report.least_error else { continue };
            assert!((0.1..=report.median_error + 0.05).contains(&least), "the oracle's is {least}");
        }
    };
    check("1.3", |_| 1.3);
    check("0.9", |_| 0.9);
    let like = runs(|slots| Load { spread: 0.2, batch: 0.0, oracle: ASKED, ..steady(slots, |_| 0.9) });
    Report::print("three hours at 0.9 times the capacity, tasks of like size", &like);
}
