//! What the queue promises: classes, turns, places, bounds, and that it says beforehand what it does.

use proptest::prelude::*;

use super::fair::DEBTORS;
use super::places::MOST;
use super::*;

const BATCH_WAIT: Duration = Duration::from_secs(30);

fn queue(capacity: u32, policy: FullPolicy) -> Queue<u64> {
    Queue::new(capacity, policy, BATCH_WAIT)
}

fn caller(n: u64) -> CallerId {
    CallerId::key(&n.to_string())
}

fn task(of: u64, seq: u64, tokens_out: u64, now: Instant) -> Waiting<u64> {
    let size = Size { tokens_in: 0, tokens_out };
    Waiting { caller: caller(of), size, since: now, deadline: None, item: seq }
}

fn place(priority: Priority, seq: u64) -> Place {
    Place { priority, seq }
}

fn add(queue: &mut Queue<u64>, priority: Priority, seq: u64) -> Result<Option<u64>, NoPlace> {
    queue.admit(place(priority, seq), task(0, seq, 64, Instant::now()))
}

fn take(queue: &mut Queue<u64>, now: Instant) -> Option<u64> {
    queue.take_first(now, |_| Some(())).map(|(item, ())| item)
}

fn drain(queue: &mut Queue<u64>) -> Vec<u64> {
    std::iter::from_fn(|| take(queue, Instant::now())).collect()
}

/// ORCHD-FAIR-003
#[test]
fn interactive_goes_first_and_every_sixth_start_is_batch() {
    let mut queue = queue(64, FullPolicy::Reject);
    add(&mut queue, Priority::Batch, 0).unwrap();
    add(&mut queue, Priority::Batch, 1).unwrap();
    for seq in 2..20 {
        add(&mut queue, Priority::Interactive, seq).unwrap();
    }
    let order = drain(&mut queue);
    let at = |seq| order.iter().position(|taken| *taken == seq).unwrap();
    assert_eq!((at(0), at(1)), (5, 11), "{order:?}");
}

/// ORCHD-FAIR-003
#[test]
fn a_batch_task_that_waited_long_goes_as_soon_as_it_is_owed_anything() {
    let mut queue = queue(64, FullPolicy::Reject);
    let now = Instant::now();
    queue.admit(place(Priority::Batch, 0), task(0, 0, 1_000, now)).unwrap();
    for seq in 1..9 {
        queue.admit(place(Priority::Interactive, seq), task(0, seq, 64, now)).unwrap();
    }
    assert_eq!(take(&mut queue, now + BATCH_WAIT), Some(1));
    assert_eq!(take(&mut queue, now + BATCH_WAIT), Some(0));
}

/// ORCHD-FAIR-001
#[test]
fn callers_take_turns_however_many_tasks_one_of_them_has() {
    let mut queue = queue(64, FullPolicy::Reject);
    for seq in 0..20 {
        queue.admit(place(Priority::Interactive, seq), task(0, seq, 64, Instant::now())).unwrap();
    }
    for seq in 20..23 {
        queue.admit(place(Priority::Interactive, seq), task(1, seq, 64, Instant::now())).unwrap();
    }
    let order = drain(&mut queue);
    assert_eq!(order[..7], [0, 20, 1, 21, 2, 22, 3]);
}

/// ORCHD-FAIR-001
#[test]
fn turns_are_weighed_by_tokens() {
    let mut queue = queue(200, FullPolicy::Reject);
    for seq in 0..10 {
        queue.admit(place(Priority::Interactive, seq), task(0, seq, 640, Instant::now())).unwrap();
    }
    for seq in 10..110 {
        queue.admit(place(Priority::Interactive, seq), task(1, seq, 64, Instant::now())).unwrap();
    }
    let order = drain(&mut queue);
    let large = order[..44].iter().filter(|seq| **seq < 10).count();
    assert_eq!(large, 4, "ten small ones for each large one: {order:?}");
}

/// ORCHD-FAIR-002
#[test]
fn a_caller_that_was_charged_too_little_waits_for_it() {
    let mut queue = queue(64, FullPolicy::Reject);
    for seq in 0..6 {
        queue.admit(place(Priority::Interactive, seq), task(seq % 2, seq, 64, Instant::now())).unwrap();
    }
    assert_eq!((take(&mut queue, Instant::now()), take(&mut queue, Instant::now())), (Some(0), Some(1)));
    let (charged, real) = (Size { tokens_in: 0, tokens_out: 64 }, Size { tokens_in: 0, tokens_out: 640 });
    queue.settle(Priority::Interactive, &caller(0), charged, real);
    assert_eq!(drain(&mut queue), [3, 5, 2, 4]);
}

/// Whether a caller that comes back goes behind one that comes after it for the first time.
fn still_owes(queue: &mut Queue<u64>, of: u64) -> bool {
    let places = [1_000_000, 1_000_001].map(|seq| place(Priority::Interactive, seq));
    for (place, of) in places.into_iter().zip([of, u64::MAX]) {
        queue.take_over(place, task(of, place.seq, 64, Instant::now())).unwrap();
    }
    let [back, new] = places.map(|place| queue.ahead_of(place).unwrap().position);
    back > new
}

/// A queue in which one caller waits while so many others have had a task each, of which the first was
/// the smallest.
fn with_debtors(debtors: usize) -> Queue<u64> {
    let (mut queue, now) = (queue(1, FullPolicy::Reject), Instant::now());
    queue.take_over(place(Priority::Interactive, 0), task(0, 0, 64, now)).unwrap();
    for of in 1..=debtors as u64 {
        queue.take_over(place(Priority::Interactive, of), task(of, of, 10_000 + of, now)).unwrap();
        assert!(queue.take_first(now, |seq| (*seq == of).then_some(())).is_some());
    }
    queue
}

/// ORCHD-FAIR-001
#[test]
fn who_owes_is_not_forgotten_while_others_wait_and_of_too_many_who_owes_least_is() {
    assert!(still_owes(&mut with_debtors(1), 1));
    assert!(still_owes(&mut with_debtors(DEBTORS), 1));
    assert!(!still_owes(&mut with_debtors(DEBTORS + 1), 1));
    assert!(still_owes(&mut with_debtors(DEBTORS + 1), 2));
}

/// ORCHD-FAIR-001
#[test]
fn where_nobody_waits_nobody_is_owed() {
    let (mut queue, now) = (queue(8, FullPolicy::Reject), Instant::now());
    queue.admit(place(Priority::Interactive, 0), task(0, 0, 100_000, now)).unwrap();
    assert_eq!(take(&mut queue, now), Some(0));
    assert!(!still_owes(&mut queue, 0));
}

/// ORCHD-FAIR-001
#[test]
fn who_owes_nothing_any_more_comes_back_as_somebody_new() {
    let (mut queue, now) = (queue(8, FullPolicy::Reject), Instant::now());
    let mut come = |of, seq, tokens| {
        queue.take_over(place(Priority::Interactive, seq), task(of, seq, tokens, now)).unwrap();
    };
    come(0, 0, 64);
    (1..5).for_each(|seq| come(1, seq, 640));
    assert_eq!([0, 1, 2].map(|_| take(&mut queue, now).unwrap()), [0, 1, 2]);
    let mut come = |of, seq| {
        queue.take_over(place(Priority::Interactive, seq), task(of, seq, 64, now)).unwrap();
    };
    come(2, 10);
    come(0, 11);
    assert_eq!(
        drain(&mut queue)[..2],
        [10, 11],
        "rounds that passed while nothing of its waited are not saved up"
    );
}

/// ORCHD-FAIR-003
#[test]
fn what_batch_was_owed_is_over_when_none_of_it_waits() {
    let mut queue = queue(64, FullPolicy::Reject);
    let now = Instant::now();
    queue.admit(place(Priority::Batch, 0), task(0, 0, 1_000, now)).unwrap();
    for seq in 1..9 {
        queue.admit(place(Priority::Interactive, seq), task(0, seq, 64, now)).unwrap();
    }
    assert_eq!([1, 2, 3].map(|_| take(&mut queue, now).unwrap()), [1, 2, 3]);
    assert_eq!(queue.remove(place(Priority::Batch, 0)), Some(0));
    assert_eq!(take(&mut queue, now), Some(4));
    // Worth less than what the one before it was owed.
    queue.admit(place(Priority::Batch, 9), task(0, 9, 32, now)).unwrap();
    assert_eq!([1, 2, 3].map(|_| take(&mut queue, now).unwrap()), [5, 6, 7]);
}

/// ORCHD-ADMIT-003
#[test]
fn a_queue_that_is_made_smaller_keeps_what_waits_and_takes_no_more() {
    let mut queue = queue(4, FullPolicy::Reject);
    for seq in 0..3 {
        add(&mut queue, Priority::Interactive, seq).unwrap();
    }
    queue.resize(2, FullPolicy::Reject);
    assert_eq!(add(&mut queue, Priority::Interactive, 3), Err(NoPlace::Full { waiting: 3 }));
    queue.resize(5, FullPolicy::Reject);
    add(&mut queue, Priority::Interactive, 4).unwrap();
    assert_eq!(drain(&mut queue), [0, 1, 2, 4]);
    add(&mut queue, Priority::Batch, 5).unwrap();
    queue.resize(1, FullPolicy::DropLru);
    assert_eq!(add(&mut queue, Priority::Interactive, 6), Ok(Some(5)), "the new policy holds at once");
}

/// ORCHD-FAIR-004
#[test]
fn a_caller_that_is_alone_has_every_place() {
    let mut queue = queue(4, FullPolicy::Reject);
    for seq in 0..4 {
        add(&mut queue, Priority::Interactive, seq).unwrap();
    }
    assert_eq!(add(&mut queue, Priority::Interactive, 4), Err(NoPlace::Full { waiting: 4 }));
}

/// ORCHD-FAIR-004
#[test]
fn a_flood_leaves_the_places_of_those_that_came_lately() {
    let mut queue = queue(8, FullPolicy::Reject);
    let now = Instant::now();
    let mut admit =
        |of, seq, at| queue.admit(place(Priority::Interactive, seq), task(of, seq, 64, at)).map(|_| ());
    admit(1, 0, now).unwrap();
    let flood: Vec<_> = (1..9).map(|seq| admit(0, seq, now)).collect();
    assert_eq!(flood.iter().filter(|place| place.is_ok()).count(), 4);
    assert_eq!(flood[4], Err(NoPlace::OverShare { held: 4 }));
    for seq in 10..13 {
        admit(1, seq, now).unwrap();
    }
    assert_eq!(admit(1, 13, now), Err(NoPlace::Full { waiting: 8 }));
    let much_later = now + Duration::from_secs(60);
    assert_eq!(take(&mut queue, now), Some(0));
    let alone = queue.admit(place(Priority::Interactive, 14), task(0, 14, 64, much_later));
    assert_eq!(alone, Ok(None), "who has not come for long leaves its places");
}

/// ORCHD-FAIR-004
#[test]
fn more_callers_than_are_kept_count_of_share_like_so_many() {
    let (now, mut places) = (Instant::now(), Places::default());
    let share_among = |places: &mut Places, callers: usize| {
        (0..callers).for_each(|of| places.saw(&caller(of as u64), now));
        places.share(3 * MOST, now)
    };
    assert_eq!(share_among(&mut places, MOST / 3), 9);
    assert_eq!(share_among(&mut places, MOST), 3);
    assert_eq!(share_among(&mut places, 2 * MOST), 3);
}

/// ORCHD-FAIR-004
#[test]
fn neither_class_takes_the_others_places() {
    let now = Instant::now();
    let fill = |first, then| {
        let mut queue = queue(8, FullPolicy::Reject);
        let mut add = |priority, seq| queue.admit(place(priority, seq), task(0, seq, 64, now)).is_ok();
        assert!(add(first, 0));
        let then = (1..20).filter(|seq| add(then, *seq)).count();
        (then, (20..40).filter(|seq| add(first, *seq)).count() + 1)
    };
    assert_eq!(fill(Priority::Interactive, Priority::Batch), (2, 6), "batch leaves three quarters");
    assert_eq!(fill(Priority::Batch, Priority::Interactive), (6, 2), "and has one");
}

/// ORCHD-FAIR-005
#[test]
fn a_full_queue_drops_a_batch_task_of_the_caller_with_the_most_or_refuses() {
    let mut dropping = queue(3, FullPolicy::DropLru);
    let now = Instant::now();
    for (of, seq) in [(7, 0), (8, 1), (8, 2)] {
        dropping.admit(place(Priority::Batch, seq), task(of, seq, 64, now)).unwrap();
    }
    assert_eq!(add(&mut dropping, Priority::Interactive, 3), Ok(Some(1)));
    assert_eq!(add(&mut dropping, Priority::Interactive, 4), Ok(Some(0)));
    assert_eq!(add(&mut dropping, Priority::Interactive, 5), Ok(Some(2)));
    assert_eq!(add(&mut dropping, Priority::Interactive, 6), Err(NoPlace::Full { waiting: 3 }));
    let mut refusing = queue(1, FullPolicy::Reject);
    add(&mut refusing, Priority::Batch, 0).unwrap();
    assert_eq!(add(&mut refusing, Priority::Interactive, 1), Err(NoPlace::Full { waiting: 1 }));
}

#[test]
fn a_task_that_cannot_run_now_does_not_hold_up_the_ones_behind_it() {
    let mut queue = queue(16, FullPolicy::Reject);
    for seq in 0..3 {
        add(&mut queue, Priority::Interactive, seq).unwrap();
    }
    let taken = queue.take_first(Instant::now(), |seq| (*seq > 0).then_some(()));
    assert_eq!(taken.map(|(seq, ())| seq), Some(1));
    assert_eq!(drain(&mut queue), [0, 2]);
}

/// What is looked up of each waiting task against what is found by going through them.
fn looked_up_is_walked<T>(queue: &Queue<T>, priority: impl Fn(u64) -> Priority) -> Result<(), TestCaseError> {
    let mut walked = Ahead { position: 0, total: Size::default() };
    for (seq, waiting) in queue.order() {
        prop_assert_eq!(queue.ahead_of(place(priority(seq), seq)), Some(walked), "{}", seq);
        walked.position += 1;
        walked.total += waiting.size;
    }
    Ok(())
}

/// What the queue tells of itself against the tasks that are in its order.
fn tells_what_waits(
    queue: &Queue<u64>,
    places: &std::collections::BTreeMap<u64, (Priority, Waiting<u64>)>,
) -> Result<(), TestCaseError> {
    let waiting: Vec<_> = queue.order().collect();
    let total = waiting.iter().fold(Size::default(), |mut total, (_, waiting)| {
        total += waiting.size;
        total
    });
    prop_assert_eq!(queue.total(), total);
    prop_assert_eq!(queue.next_deadline(), waiting.iter().filter_map(|(_, waiting)| waiting.deadline).min());
    prop_assert!(queue.first_ones().map(|waiting| waiting.item).eq(waiting.iter().map(|(seq, _)| *seq)));
    let waiting: std::collections::BTreeSet<u64> = waiting.into_iter().map(|(seq, _)| seq).collect();
    for (seq, (priority, _)) in places {
        prop_assert_eq!(queue.waits(place(*priority, *seq)), waiting.contains(seq), "{}", seq);
    }
    Ok(())
}

/// ORCHD-GATE-002
#[test]
fn a_task_put_back_goes_first_and_pays_once() {
    let mut queue = queue(4, FullPolicy::Reject);
    for seq in 0..4 {
        let waiting = task(seq % 2, seq, 64, Instant::now());
        queue.admit(place(Priority::Interactive, seq), waiting).unwrap();
    }
    assert_eq!(take(&mut queue, Instant::now()), Some(0));
    queue.put_back(place(Priority::Interactive, 0), task(0, 0, 64, Instant::now())).unwrap();
    assert_eq!(drain(&mut queue), [0, 1, 2, 3]);
}

#[derive(Debug, Clone)]
enum Act {
    Admit { of: u64, batch: bool, tokens: u64, deadline_s: Option<u64> },
    Take { only_even: bool },
    PutBack,
    Remove(u64),
    Expire(u64),
    Settle { of: u64, real: u64 },
}

fn act() -> impl Strategy<Value = Act> {
    let deadline = proptest::option::weighted(0.2, 0..60_u64);
    prop_oneof![
        6 => (0..4_u64, any::<bool>(), 1..2_000_u64, deadline)
            .prop_map(|(of, batch, tokens, deadline_s)| Act::Admit { of, batch, tokens, deadline_s }),
        4 => any::<bool>().prop_map(|only_even| Act::Take { only_even }),
        1 => Just(Act::PutBack),
        1 => (0..60_u64).prop_map(Act::Remove),
        1 => (0..60_u64).prop_map(Act::Expire),
        1 => (0..4_u64, 0..4_000_u64).prop_map(|(of, real)| Act::Settle { of, real }),
    ]
}

/// A queue and everything that went in and came out of it.
struct Play {
    queue: Queue<u64>,
    start: Instant,
    places: std::collections::BTreeMap<u64, (Priority, Waiting<u64>)>,
    taken: Vec<u64>,
    left: Vec<u64>,
    over: usize,
}

impl Play {
    fn act(&mut self, seq: u64, act: &Act) -> Result<(), TestCaseError> {
        match *act {
            Act::Admit { of, batch, tokens, deadline_s } => {
                let priority = if batch { Priority::Batch } else { Priority::Interactive };
                let deadline = deadline_s.map(|s| self.start + Duration::from_secs(s));
                let make = || Waiting { deadline, ..task(of, seq, tokens, self.start) };
                if let Ok(dropped) = self.queue.admit(place(priority, seq), make()) {
                    self.left.extend(dropped);
                    self.places.insert(seq, (priority, make()));
                }
            }
            Act::Take { only_even } => {
                let expected = self.queue.order().next().map(|(seq, _)| seq);
                let offer = |seq: &u64| (!only_even || seq.is_multiple_of(2)).then_some(());
                let taken = self.queue.take_first(self.start, offer).map(|(seq, ())| seq);
                if !only_even {
                    prop_assert_eq!(taken, expected, "what goes is what was said");
                }
                self.taken.extend(taken);
            }
            Act::PutBack => {
                if let Some((seq, (priority, waiting))) =
                    self.taken.pop().and_then(|seq| Some((seq, self.places.get(&seq)?)))
                {
                    let again = Waiting { caller: waiting.caller.clone(), item: seq, ..*waiting };
                    self.queue.put_back(place(*priority, seq), again).unwrap();
                    self.over += 1;
                }
            }
            Act::Remove(seq) => {
                if let Some((priority, _)) = self.places.get(&seq) {
                    self.left.extend(self.queue.remove(place(*priority, seq)));
                }
            }
            Act::Expire(s) => {
                self.left.extend(self.queue.take_expired(self.start + Duration::from_secs(s)));
            }
            Act::Settle { of, real } => {
                let size = |tokens_out| Size { tokens_in: 0, tokens_out };
                self.queue.settle(Priority::Interactive, &caller(of), size(64), size(real));
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    /// ORCHD-FAIR-006
    #[test]
    fn the_bound_holds_every_task_leaves_once_and_the_order_said_is_the_order_taken(
        acts in proptest::collection::vec(act(), 0..120),
        drop_lru: bool,
    ) {
        let policy = if drop_lru { FullPolicy::DropLru } else { FullPolicy::Reject };
        let mut play = Play {
            queue: queue(8, policy), start: Instant::now(), places: Default::default(),
            taken: Vec::new(), left: Vec::new(), over: 0,
        };
        for (seq, act) in (0..).zip(&acts) {
            play.act(seq, act)?;
            prop_assert!(play.queue.len() <= 8 + play.over);
            prop_assert_eq!(play.queue.len() + play.left.len() + play.taken.len(), play.places.len());
            prop_assert_eq!(play.queue.order().count(), play.queue.len());
            tells_what_waits(&play.queue, &play.places)?;
            looked_up_is_walked(&play.queue, |seq| play.places[&seq].0)?;
        }
        let Play { mut queue, mut left, taken, places, .. } = play;
        left.extend(taken);
        left.extend(queue.close());
        left.sort_unstable();
        prop_assert!(left.iter().eq(places.keys()));
        prop_assert_eq!(queue.next_deadline(), None);
        prop_assert_eq!(queue.total(), Size::default());
    }

    /// ORCHD-FAIR-006, ORCHD-FAIR-008: with many tasks, of sizes from nothing to a book, of few and of
    /// many callers, some of which owe much.
    #[test]
    fn a_place_that_is_looked_up_is_the_one_that_is_walked_to(
        callers in 1..60_u64,
        tasks in proptest::collection::vec((any::<u64>(), 0..14_u32, any::<bool>()), 1..400),
        taken in 0..40_usize,
        owed in proptest::collection::vec((0..60_u64, 0..200_000_u64), 0..6),
    ) {
        let mut queue = queue(1_000, FullPolicy::Reject);
        let now = Instant::now();
        let class = |batch: bool| if batch { Priority::Batch } else { Priority::Interactive };
        for (seq, (random, doublings, batch)) in (0..).zip(&tasks) {
            let waiting = task(random % callers, seq, random % (1 << doublings), now);
            queue.take_over(place(class(*batch), seq), waiting).unwrap();
        }
        prop_assert_eq!(queue.order().count(), tasks.len());
        for _ in 0..taken {
            take(&mut queue, now);
        }
        for (of, real) in owed {
            let size = |tokens_out| Size { tokens_in: 0, tokens_out };
            queue.settle(Priority::Interactive, &caller(of), size(64), size(real));
            queue.settle(Priority::Batch, &caller(of), size(real), size(64));
        }
        looked_up_is_walked(&queue, |seq| class(tasks[seq as usize].2))?;
    }

    /// ORCHD-FAIR-003: no starvation, whatever the sizes: under a flood that never ends, of both
    /// classes and from other callers, every task goes after a bounded amount of others' work.
    #[test]
    fn nobody_starves(mine in 1..4_000_u64, theirs in 1..4_000_u64, callers in 1..6_u64, batch: bool) {
        let mut queue = queue(64, FullPolicy::Reject);
        let now = Instant::now();
        let priority = if batch { Priority::Batch } else { Priority::Interactive };
        queue.admit(place(priority, 0), task(99, 0, mine, now)).unwrap();
        let (mut seq, mut work) = (1, 0);
        loop {
            for of in 0..callers {
                for priority in [Priority::Interactive, Priority::Batch] {
                    let _either_way = queue.admit(place(priority, seq), task(of, seq, theirs, now));
                    seq += 1;
                }
            }
            match take(&mut queue, now) {
                Some(0) => break,
                Some(_) => work += theirs,
                None => prop_assert!(false, "a queue with tasks gives one"),
            }
            // Its own turn after everybody's equal share, and for batch six times that.
            let turn = (mine + 16 + theirs) * (callers + 1);
            prop_assert!(work <= turn * if batch { 9 } else { 2 } + 9 * theirs, "{} after {}", work, turn);
        }
    }

    /// ORCHD-FAIR-006
    #[test]
    fn the_same_input_gives_the_same_order(acts in proptest::collection::vec(act(), 0..80)) {
        let start = Instant::now();
        let play = || {
            let mut play = Play {
                queue: queue(16, FullPolicy::Reject), start, places: Default::default(),
                taken: Vec::new(), left: Vec::new(), over: 0,
            };
            for (seq, act) in (0..).zip(&acts) {
                play.act(seq, act)?;
            }
            Ok::<_, TestCaseError>((play.taken, play.queue.close()))
        };
        prop_assert_eq!(play()?, play()?);
    }
}
