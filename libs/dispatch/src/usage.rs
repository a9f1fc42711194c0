//! What each caller has used of each pool, and of each model in it, since counting began. Counted when a
//! task ends, exactly as the metrics are; the metrics have no callers, and this has no tasks.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use wire::PoolId;
use wire::usage::UsageRow;

use crate::core::{Account, TaskCore};
use crate::ending::Ending;

/// Callers name themselves where no tokens are configured: the table must not grow with every name.
const MAX_ROWS: usize = 10_000;
/// Who takes what there is no row for.
const OTHERS: &str = "others";
/// A caller without a key.
const NOBODY: &str = "local";

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Usage(Mutex<Table>);

type Table = BTreeMap<(String, PoolId, Option<String>), UsageRow>;

impl Usage {
    /// Counts a task that has ended.
    pub(crate) fn count(&self, core: &TaskCore, account: &Account, ending: &Ending) {
        let caller = core.caller.key_name().unwrap_or(NOBODY);
        let mut table = self.lock();
        let row = row(&mut table, caller, &core.pool.id, account.model.as_deref());
        row.tasks += 1;
        row.tokens_in += account.used.tokens_in.unwrap_or(0);
        row.tokens_out += account.used.tokens_out;
        row.decode_time_ms += account.decode.map_or(0, crate::ending::millis);
        match ending {
            Ending::Finished(_) | Ending::Spent => {}
            Ending::Cancelled(_) => row.cancelled += 1,
            Ending::Failed(_) => row.failed += 1,
        }
    }

    /// By caller, then pool, then model.
    pub(crate) fn rows(&self) -> Vec<UsageRow> {
        self.lock().values().cloned().collect()
    }

    /// Adds what was counted before this process began.
    pub(crate) fn add(&self, rows: Vec<UsageRow>) {
        let mut table = self.lock();
        for before in rows {
            let row = row(&mut table, &before.caller, &before.pool_id, before.model.as_deref());
            row.tasks += before.tasks;
            row.failed += before.failed;
            row.cancelled += before.cancelled;
            row.tokens_in += before.tokens_in;
            row.tokens_out += before.tokens_out;
            row.decode_time_ms += before.decode_time_ms;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn row<'a>(table: &'a mut Table, caller: &str, pool: &PoolId, model: Option<&str>) -> &'a mut UsageRow {
    let key = |caller: &str| (caller.to_owned(), pool.clone(), model.map(str::to_owned));
    let known = table.len() < MAX_ROWS || table.contains_key(&key(caller));
    let caller = if known { caller } else { OTHERS };
    let new = || UsageRow::new(caller, pool.clone(), model.map(str::to_owned));
    table.entry(key(caller)).or_insert_with(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(caller: &str, tokens_out: u64) -> UsageRow {
        UsageRow { tasks: 1, tokens_out, ..UsageRow::new(caller, PoolId::try_new("p").unwrap(), None) }
    }

    /// ORCHD-USAGE-002
    #[test]
    fn rows_add_up_and_there_are_never_more_than_so_many() {
        let usage = Usage::default();
        usage.add((0..MAX_ROWS + 500).map(|n| of(&format!("c{n:05}"), 1)).collect());
        usage.add(vec![of("c00000", 5)]);
        let rows = usage.rows();
        assert!(rows.len() <= MAX_ROWS + 1, "{}", rows.len());
        assert_eq!((rows[0].tasks, rows[0].tokens_out), (2, 6));
        let all: u64 = rows.iter().map(|row| row.tasks).sum();
        assert_eq!(all, MAX_ROWS as u64 + 501, "nothing is lost");
        assert_eq!(rows.iter().find(|row| row.caller == OTHERS).unwrap().tasks, 500);
    }
}
