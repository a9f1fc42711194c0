//! The example of a client, on the built binary: what it understood is what the contract says.

use serde_json::json;

use crate::house::{House, until};

#[path = "../../examples/submit_and_follow.rs"]
#[allow(dead_code, unreachable_pub, reason = "it is a program of its own, too")]
mod example;

/// OV-006, STREAM-002: what a client that follows the contract is told is what there is.
#[tokio::test(flavor = "multi_thread")]
async fn the_example_of_a_client_gets_its_answer_and_a_refusal_says_why() {
    let house = House::new(1);
    let daemon = house.start();
    until(async || house.get(&daemon, "/v2/pools/p/health").await["ready"] == true).await;
    let task = json!({"model": "p", "task_id": "mine", "prompt": "once upon a time", "max_tokens": 12});
    let mut text = String::new();
    let end = example::answer(&daemon.base, &task, |piece| text.push_str(piece)).await.unwrap();
    let events = house.events(&daemon, "mine", None).await;
    let told: String = events.iter().filter_map(|(_, _, data)| data["t"].as_str()).collect();
    assert_eq!((text, &end), (told, &events.last().unwrap().2));
    assert_eq!(end["tokens_out"], 12, "{end}");

    let unknown = json!({"model": "nobody", "prompt": "x", "max_tokens": 1});
    let refused = example::answer(&daemon.base, &unknown, |_| ()).await.unwrap_err().to_string();
    assert!(refused.contains("404") && refused.contains("MODEL_NOT_FOUND"), "{refused}");
}
