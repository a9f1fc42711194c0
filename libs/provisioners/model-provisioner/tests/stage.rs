//! Staging, from the outside: what a pool's `model:` line leads to.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step of a test should panic")]

use std::cell::Cell;
use std::path::Path;

use provisioners_model_provisioner::{Cancel, ModelProvisioner, ModelRef, StageError, StageEvent};

fn stage(cache: &Path, reference: &str, expected: Option<&str>) -> Result<wire::ModelRecord, StageError> {
    let reference = ModelRef::parse(reference).unwrap();
    ModelProvisioner::new(cache).stage(&reference, expected, &|_| (), &Cancel::new())
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

fn model(dir: &Path) -> std::path::PathBuf {
    let path = dir.join("tiny.gguf");
    gguf_random::Shape { name: "tiny".into(), ..Default::default() }.write(&path).unwrap();
    path
}

/// MPROV-005
#[test]
fn the_builtin_model_is_written_once_and_described() {
    let cache = tempfile::tempdir().unwrap();
    let first = stage(cache.path(), "builtin:haiku", None).unwrap();
    assert_eq!(first.architecture, "llama");
    assert!(first.path.starts_with(cache.path().join("models/builtin").join(&first.digest)));
    assert_eq!(first.path.file_name().unwrap(), "haiku.gguf");
    assert_eq!(first.model_ref, "builtin:haiku");
    let written = first.path.metadata().unwrap().modified().unwrap();
    let again = stage(cache.path(), "builtin:haiku", Some(&first.digest.to_uppercase())).unwrap();
    assert_eq!(again, first);
    assert_eq!(first.path.metadata().unwrap().modified().unwrap(), written, "not written again");
}

/// MPROV-005
#[test]
fn a_damaged_builtin_model_in_the_cache_is_repaired() {
    let cache = tempfile::tempdir().unwrap();
    let first = stage(cache.path(), "builtin:haiku", None).unwrap();
    let intact = std::fs::read(&first.path).unwrap();
    let mut damaged = intact.clone();
    *damaged.last_mut().unwrap() ^= 1;
    std::fs::write(&first.path, &damaged).unwrap();
    assert_eq!(stage(cache.path(), "builtin:haiku", None).unwrap(), first);
    assert!(std::fs::read(&first.path).unwrap() == intact, "the bytes are the shipped ones again");
}

/// MPROV-002
#[test]
fn a_file_is_described_by_its_header_and_its_digest() {
    let dir = tempfile::tempdir().unwrap();
    let path = model(dir.path());
    let record = stage(&dir.path().join("cache"), path.to_str().unwrap(), None).unwrap();
    assert_eq!(
        (record.id.as_str(), record.ctx_max, record.quantisation.as_str()),
        ("tiny", Some(2048), "F32")
    );
    assert_eq!(record.size_bytes, path.metadata().unwrap().len());
    assert_eq!(record.digest.len(), 64);
    let wrong = "0".repeat(64);
    let error = stage(&dir.path().join("cache"), path.to_str().unwrap(), Some(&wrong)).unwrap_err();
    assert!(chain(&error).contains(&record.digest) && chain(&error).contains(&wrong));
}

#[test]
fn what_is_missing_or_no_model_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |reference: &str| chain(&stage(dir.path(), reference, None).unwrap_err());
    assert!(refused("file:/no/such/model.gguf").contains("/no/such/model.gguf does not exist"));
    assert!(refused(dir.path().to_str().unwrap()).contains("not a regular file"));
    let page = dir.path().join("page.gguf");
    std::fs::write(&page, "<html>404</html>").unwrap();
    assert!(refused(page.to_str().unwrap()).contains("not a GGUF file"));
    assert!(refused("builtin:sonnet").contains("known: haiku"));
}

#[test]
fn a_truncated_model_names_expected_and_actual_size() {
    let dir = tempfile::tempdir().unwrap();
    let path = model(dir.path());
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() * 37 / 100]).unwrap();
    let text = chain(&stage(dir.path(), path.to_str().unwrap(), None).unwrap_err());
    assert!(text.contains(&bytes.len().to_string()), "{text}");
    assert!(text.contains(&(bytes.len() * 37 / 100).to_string()), "{text}");
}

#[test]
fn hashing_reports_progress_and_can_be_cancelled() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("big.gguf");
    gguf_random::Shape { width: 512, layers: 2, ..Default::default() }.write(&path).unwrap();
    let reference = ModelRef::File(path);
    let seen = Cell::new(0);
    let provisioner = ModelProvisioner::new(dir.path());
    let cancel = Cancel::new();
    let progress = |event: StageEvent| {
        let StageEvent::Progress(p) = event else { panic!("{event:?}") };
        assert!(p.bytes_done <= p.bytes_total);
        seen.set(seen.get() + 1);
        cancel.cancel();
    };
    let error = provisioner.stage(&reference, None, &progress, &cancel).unwrap_err();
    assert!(error.is_cancelled(), "{error}");
    assert_eq!(seen.get(), 1);
    assert!(provisioner.stage(&reference, None, &|_| (), &Cancel::new()).is_ok());
}
