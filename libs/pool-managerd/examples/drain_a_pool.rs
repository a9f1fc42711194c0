//! A client of pool-managerd: drains a pool, says how far that is, and what came of it.
//!
//! `cargo run -p pool-managerd --example drain_a_pool -- http://127.0.0.1:9200 POOL TOKEN`
#![allow(clippy::print_stdout, reason = "it prints what goes on")]

use std::time::Duration;

use serde_json::{Value, json};

type Error = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [base, pool, token] = &arguments[..] else { return Err("URL, POOL and TOKEN are needed".into()) };
    let ended = drain(base, pool, token, |view| println!("{}", view["progress"]["doing"])).await?;
    println!("{}: {}", ended["state"], ended["outcome"]["message"]);
    Ok(())
}

/// Lets what runs go on for a minute; returns the operation as it ended.
pub async fn drain(
    base: &str,
    pool: &str,
    token: &str,
    mut on_view: impl FnMut(&Value),
) -> Result<Value, Error> {
    let http = reqwest::Client::builder().no_proxy().build()?;
    let order = http.post(format!("{base}/v2/pools/{pool}/drain")).json(&json!({"deadline_ms": 60_000}));
    let answer = order.bearer_auth(token).send().await?;
    let (status, body) = (answer.status().as_u16(), answer.json::<Value>().await?);
    if status != 202 {
        return Err(format!("{status} {}: {}", body["error"]["code"], body["error"]["message"]).into());
    }
    let operation = body["operation_id"].as_str().ok_or("the 202 names no operation")?;
    loop {
        let view = http.get(format!("{base}/v2/operations/{operation}")).bearer_auth(token).send().await?;
        let view: Value = view.error_for_status()?.json().await?;
        if view["state"] != "running" {
            return Ok(view);
        }
        on_view(&view);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
