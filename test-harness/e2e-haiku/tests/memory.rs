//! The estimate of a model's memory against what the real engine reports in its log.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed step of a test should panic"
)]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use provisioners_model_provisioner::gguf::read_header;
use provisioners_model_provisioner::{Load, estimate};

/// Bytes of each kind of buffer, as the engine's log says them (in MiB, two digits).
#[derive(Debug, Default)]
struct Reported {
    weights: f64,
    kv: f64,
    compute: f64,
}

/// Starts the engine until it has reserved its last buffer.
fn reported(binary: &Path, model: &Path, flags: &[&str]) -> Reported {
    let mut engine = Command::new(binary)
        .args(["--model", model.to_str().unwrap(), "--host", "127.0.0.1", "--port", "0"])
        .args(["--no-webui", "--offline", "--fit", "off", "--no-warmup", "--verbose"])
        .args(flags)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut reported = Reported::default();
    for line in BufReader::new(engine.stderr.take().unwrap()).lines().map_while(Result::ok) {
        let mib = |line: &str| line.split_whitespace().rev().nth(1).unwrap().parse::<f64>().unwrap();
        if line.contains("model buffer size =") {
            reported.weights += mib(&line);
        } else if line.contains("KV buffer size =") {
            reported.kv += mib(&line);
        } else if line.contains("compute buffer size =") {
            reported.compute += mib(&line);
            break;
        }
    }
    engine.kill().unwrap();
    engine.wait().unwrap();
    reported
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / (1024.0 * 1024.0)
}

fn compare(binary: &Path, model: &Path, load: &Load, flags: &[&str]) {
    let (ctx, slots) = ((load.ctx * load.slots).to_string(), load.slots.to_string());
    let all = [&["--ctx-size", ctx.as_str(), "--parallel", slots.as_str()], flags].concat();
    let reported = reported(binary, model, &all);
    let estimated = estimate(&read_header(model).unwrap(), load).expect("an estimate");
    let what = format!("{}: {estimated:?} against {reported:?} with {all:?}", model.display());
    // The log rounds to 0.01 MiB; small models have padding between their tensors.
    let close = |ours: f64, theirs: f64| (ours - theirs).abs() <= theirs * 0.02 + 0.02;
    assert!(close(mib(estimated.weights_bytes), reported.weights), "weights of {what}");
    assert!(close(mib(estimated.kv_bytes), reported.kv), "keys and values of {what}");
    let compute = mib(estimated.compute_bytes);
    assert!(compute >= reported.compute && compute <= reported.compute * 1.7 + 1.0, "scratch of {what}");
    let total = reported.weights + reported.kv + reported.compute;
    assert!(mib(estimated.total_bytes()) + 0.02 >= total, "all of {what}");
}

/// MPROV-020, MPROV-021
#[test]
fn the_estimate_is_what_the_engine_reports_for_the_haiku_model_and_for_random_ones() {
    let prepared = test_harness_e2e_haiku::provisioned().unwrap();
    let binary = &prepared.binary_path;
    let said = prepared.memory.expect("the prepared engine carries its estimate");
    let haiku = estimate(&read_header(&prepared.model_path).unwrap(), &Load::new(2048, 1)).unwrap();
    assert_eq!(said, haiku, "engine-provisioner computes the same");
    compare(binary, &prepared.model_path, &Load::new(2048, 1), &[]);
    compare(binary, &prepared.model_path, &Load::new(1000, 3), &[]);

    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model.gguf");
    let shape =
        gguf_random::Shape { layers: 6, width: 512, heads: 8, vocab: 4000, ..gguf_random::Shape::default() };
    shape.write(&model).unwrap();
    compare(binary, &model, &Load::new(2048, 2), &[]);
    let quantised = Load {
        cache_type_k: "q8_0".to_owned(),
        cache_type_v: "q8_0".to_owned(),
        ubatch: 128,
        ..Load::new(2048, 2)
    };
    let flags = ["--cache-type-k", "q8_0", "--cache-type-v", "q8_0", "--ubatch-size", "128"];
    compare(binary, &model, &quantised, &flags);
    // A split model is read from all of its files, by us and by the engine.
    let split = shape.to_split("split", 3);
    for (name, bytes) in &split {
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    let first = dir.path().join(&split[0].0);
    let (whole, parts) = (read_header(&model).unwrap(), read_header(&first).unwrap());
    assert_eq!(
        (parts.files.len(), parts.parameters, parts.tensor_bytes),
        (3, whole.parameters, whole.tensor_bytes)
    );
    compare(binary, &first, &Load::new(2048, 2), &[]);
    let plain = Load { flash_attention: false, ..Load::new(2048, 2) };
    compare(binary, &model, &plain, &["--flash-attn", "off"]);
}
