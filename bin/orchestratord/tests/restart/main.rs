//! The built binary killed and started again: what was accepted is there, once, as it was.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test helper fails by panicking")]

mod consumer;
mod house;
mod released;
mod survives;
mod verify;

use std::time::{Duration, Instant};

use house::{House, body, frames, holds_text, until};
use serde_json::json;

/// R15 with fewer tasks; ORCHD-JOURNAL-001, ORCHD-JOURNAL-002, ORCHD-JOURNAL-003, STREAM-002
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_loses_no_task_and_doubles_none() {
    const STREAMS: usize = 4;
    let waiting: usize = std::env::var("RESTART_WAITING").map_or(60, |count| count.parse().unwrap());
    let house = House::new(STREAMS as u32);
    house.stub.set_faults(|faults| faults.token = Duration::from_millis(10));
    let daemon = house.start();
    let mut readers = Vec::new();
    for n in 0..STREAMS {
        let id = format!("stream-{n}");
        house.submit(&daemon, &id, 1_000_000).await;
        let url = format!("{}/v2/tasks/{id}/events", daemon.base);
        let mut answer = house.http.get(url).send().await.unwrap();
        let mut text = String::new();
        while frames(&text).len() < 10 {
            text.push_str(std::str::from_utf8(&answer.chunk().await.unwrap().unwrap()).unwrap());
        }
        readers.push(tokio::spawn(async move {
            // Until the kill breaks it off.
            while let Ok(Some(bytes)) = answer.chunk().await {
                text.push_str(std::str::from_utf8(&bytes).unwrap());
            }
            (id, frames(&text))
        }));
    }
    for n in 0..waiting {
        house.submit(&daemon, &format!("waits-{n}"), 3).await;
    }
    daemon.kill();
    house.stub.set_faults(|faults| faults.token = Duration::ZERO);

    let began = Instant::now();
    let daemon = house.start();
    until(async || house.get(&daemon, "/readyz").await["ready"] == true).await;
    println!("{waiting} waiting and {STREAMS} streaming: ready {:?} after the start", began.elapsed());
    let (status, conflict) = house.post(&daemon, &body("waits-0", 4)).await;
    assert_eq!((status, &conflict["error"]["code"]), (409, &json!("CONFLICT")), "{conflict}");
    for n in 0..waiting {
        let id = format!("waits-{n}");
        let events = house.events(&daemon, &id, None).await;
        assert_eq!(events.last().unwrap().1, "end", "{id}: {events:?}");
        assert_eq!(house.get(&daemon, &format!("/v2/tasks/{id}")).await["state"], "done");
    }
    for reader in readers {
        let (id, before) = reader.await.unwrap();
        let (last, ..) = before.last().unwrap();
        let after = house.events(&daemon, &id, Some(last)).await;
        let all = house.events(&daemon, &id, None).await;
        assert!(all.len() >= before.len() + after.len());
        assert_eq!(all[..before.len()], before, "what was seen is what is kept");
        assert_eq!(all[before.len()..], after, "and a reader goes on right behind it");
        let tokens: Vec<_> =
            all.iter().filter(|event| event.1 == "token").map(|event| &event.2["i"]).collect();
        assert!(tokens.iter().enumerate().all(|(n, i)| **i == n), "{id}: {tokens:?}");
        assert_eq!(all.iter().filter(|event| event.1 == "end" || event.1 == "error").count(), 1);
    }
    let generations = house.generations();
    assert_eq!(generations.len(), waiting + STREAMS);
    for (prompt, times) in generations.iter().filter(|(prompt, _)| prompt.contains("waits-")) {
        assert_eq!(*times, 1, "{prompt}");
    }
    until(async || !holds_text(&house.journal(), "PROMPT of")).await;
    daemon.terminate();
    let daemon = house.start();
    let list = house.get(&daemon, "/v2/tasks?limit=1000").await;
    assert_eq!(list["tasks"].as_array().unwrap().len(), waiting + STREAMS);
}

/// STREAM-002, ORCHD-JOURNAL-002: as a power cut leaves it, without the end of what its reader has seen.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_events_that_were_lost_is_told_where_they_break_off() {
    let house = House::new(1);
    house.stub.set_faults(|faults| faults.token = Duration::from_millis(5));
    let daemon = house.start();
    house.submit(&daemon, "cut", 200).await;
    let mut answer = house.http.get(format!("{}/v2/tasks/cut/events", daemon.base)).send().await.unwrap();
    let mut text = String::new();
    while frames(&text).len() < 40 {
        text.push_str(std::str::from_utf8(&answer.chunk().await.unwrap().unwrap()).unwrap());
    }
    daemon.kill();
    while let Ok(Some(bytes)) = answer.chunk().await {
        text.push_str(std::str::from_utf8(&bytes).unwrap());
    }
    let seen = frames(&text);
    let file = house.journal().join("events/00000001.events");
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    house.stub.set_faults(|faults| faults.token = Duration::ZERO);

    let daemon = house.start();
    let all = house.events(&daemon, "cut", None).await;
    assert_eq!(all.last().unwrap().1, "end", "{all:?}");
    for event in &seen {
        let named = all.iter().find(|there| there.0 == event.0);
        assert!(named.is_none_or(|there| there == event), "{event:?} is {named:?} now");
    }
    let lost = seen.iter().position(|event| all.iter().all(|there| there.0 != event.0)).unwrap();
    assert_eq!(all[..lost], seen[..lost]);
    let (ids, resumed) = (|events: &[house::Seen]| events.last().unwrap().0.clone(), &all[lost]);
    assert_eq!(resumed.1, "resumed", "{resumed:?}");
    let from = resumed.2["from_index"].as_u64().unwrap();
    assert_eq!(from, seen[..lost].iter().filter(|event| event.1 == "token").count() as u64);
    for unknown in [ids(&seen), seen[lost].0.clone()] {
        assert_eq!(house.events(&daemon, "cut", Some(&unknown)).await, all[lost..], "behind {unknown}");
    }
    for at in [0, lost - 2, lost - 1, lost, lost + 1, all.len() - 2] {
        assert_eq!(house.events(&daemon, "cut", Some(&all[at].0)).await, all[at + 1..], "{:?}", all[at].0);
    }
    let tokens: Vec<_> = all.iter().filter(|event| event.1 == "token").map(|event| &event.2["i"]).collect();
    assert!(tokens.iter().enumerate().all(|(n, i)| **i == n) && tokens.len() == 200, "{tokens:?}");
    // And what the last process said is named the same by the next one.
    daemon.kill();
    let daemon = house.start();
    assert_eq!(house.events(&daemon, "cut", None).await, all);
}

/// ORCHD-JOURNAL-004: tasks that are so short that many are over before they are recorded.
#[tokio::test(flavor = "multi_thread")]
async fn no_prompt_stays_on_disk_however_short_its_task_is() {
    const CLIENTS: usize = 16;
    const EACH: usize = 32;
    let house = std::sync::Arc::new(House::new(CLIENTS as u32));
    let daemon = std::sync::Arc::new(house.start());
    until(async || house.get(&daemon, "/readyz").await["ready"] == true).await;
    let clients = (0..CLIENTS).map(|client| {
        let (house, daemon) = (std::sync::Arc::clone(&house), std::sync::Arc::clone(&daemon));
        tokio::spawn(async move {
            for n in 0..EACH {
                house.submit(&daemon, &format!("short-{client}-{n}"), 1).await;
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
    for client in 0..CLIENTS {
        let events = house.events(&daemon, &format!("short-{client}-{}", EACH - 1), None).await;
        assert_eq!(events.last().unwrap().1, "end", "{events:?}");
    }
    until(async || !holds_text(&house.journal(), "PROMPT of")).await;
    // A prompt that was forgotten would keep its file, and every later one's bytes in it.
    let bytes = || std::fs::read_dir(house.journal().join("prompts")).unwrap().map(|file| file.unwrap());
    until(async || bytes().all(|file| file.metadata().is_ok_and(|file| file.len() == 0))).await;
}

/// ORCHD-STOP-003, ORCHD-STOP-004
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_at_a_stop_runs_after_the_next_start() {
    let house = House::new(1);
    house.stub.set_faults(|faults| faults.mute = true);
    let daemon = house.start();
    house.submit(&daemon, "runs", 3).await;
    until(async || house.get(&daemon, "/v2/tasks/runs").await["state"] == "running").await;
    house.submit(&daemon, "waits", 3).await;
    daemon.terminate();
    house.stub.set_faults(|faults| faults.mute = false);
    let daemon = house.start();
    // The one that had an engine, too: it had said nothing yet.
    for task in ["waits", "runs"] {
        let events = house.events(&daemon, task, None).await;
        assert_eq!(events.last().unwrap().1, "end", "{task}: {events:?}");
    }
}

/// ORCHD-JOURNAL-007
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_journal_stops_the_start_with_what_to_do_and_repair_does_it() {
    let house = House::new(1);
    let daemon = house.start();
    house.submit(&daemon, "whole", 5).await;
    house.events(&daemon, "whole", None).await;
    let held = house.output(&["journal", "check"]);
    assert_eq!(held.status.code(), Some(100), "{held:?}");
    daemon.terminate();
    let sound = house.output(&["journal", "check"]);
    assert!(sound.status.success(), "{sound:?}");
    assert!(String::from_utf8_lossy(&sound.stdout).contains("1 have ended"), "{sound:?}");

    let file = house.journal().join("events/00000001.events");
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x20;
    std::fs::write(&file, bytes).unwrap();
    let stopped = house.output(&[]);
    assert_eq!(stopped.status.code(), Some(2), "{stopped:?}");
    let said = String::from_utf8_lossy(&stopped.stderr);
    assert!(said.contains(file.to_str().unwrap()) && said.contains("damaged at byte "), "{said}");
    assert!(said.contains("journal repair") && said.contains("set the journal aside"), "{said}");
    let damaged = house.output(&["journal", "check"]);
    assert_eq!(damaged.status.code(), Some(1), "{damaged:?}");
    let repaired = house.output(&["journal", "repair"]);
    assert!(repaired.status.success(), "{repaired:?}");
    assert!(String::from_utf8_lossy(&repaired.stdout).contains("task number 1 keeps "), "{repaired:?}");
    assert!(house.output(&["journal", "check"]).status.success());
    let daemon = house.start();
    let events = house.events(&daemon, "whole", None).await;
    assert_eq!(events.last().unwrap().2["code"], "INTERRUPTED", "{events:?}");
    assert_eq!(house.get(&daemon, "/v2/tasks/whole").await["state"], "interrupted");
}
