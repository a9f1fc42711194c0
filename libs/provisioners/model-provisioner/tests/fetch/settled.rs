//! What a power cut leaves: a file with the right name, size and times, and not its bytes.

use std::path::{Path, PathBuf};

use provisioners_model_provisioner::{FileState, ModelRef};

use crate::{FILE, Machine, REF, good, hub, model, sha256};

/// What is remembered about the model's file.
fn memory_of(machine: &Machine, model: &Path) -> PathBuf {
    let entries = std::fs::read_dir(machine.dir.path().join("models/digests")).unwrap().flatten();
    let mut about = entries
        .map(|entry| entry.path())
        .filter(|path| std::fs::read_to_string(path).unwrap().contains(model.to_str().unwrap()));
    about.next().unwrap()
}

/// Changes the bytes of `model` and leaves everything that is known about the file as true as before.
fn lose_bytes(machine: &Machine, model: &Path, change: impl Fn(&mut serde_json::Value)) {
    let mut bytes = std::fs::read(model).unwrap();
    let half = bytes.len() / 2;
    bytes[half..].fill(0);
    std::fs::write(model, bytes).unwrap();
    let memory = memory_of(machine, model);
    let mut known: serde_json::Value = serde_json::from_slice(&std::fs::read(&memory).unwrap()).unwrap();
    let state = serde_json::to_value(FileState::of(model).unwrap()).unwrap();
    known.as_object_mut().unwrap().extend(state.as_object().unwrap().clone());
    change(&mut known);
    std::fs::write(memory, known.to_string()).unwrap();
}

/// MPROV-025
#[test]
fn a_file_that_was_not_on_the_disk_when_the_machine_went_down_is_hashed_and_fetched_again() {
    let hub = hub(good);
    let machine = Machine::new(&hub);
    let path = machine.stage(REF).unwrap().path;
    assert_eq!(path.file_name().unwrap(), FILE);
    let remembered = std::fs::read_to_string(memory_of(&machine, &path)).unwrap();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert!(remembered.contains(boot.trim()), "it is believed in this life of the machine: {remembered}");
    lose_bytes(&machine, &path, |known| known["boot"] = "another-life".into());
    assert_eq!(machine.stage(REF).unwrap().path, path);
    assert_eq!(hub.gets().len(), 2, "it was fetched again");
    assert_eq!(sha256(&std::fs::read(&path).unwrap()), sha256(model()));
    // In the same life, and once it is on the disk, nothing is read again: this is what the test would
    // miss if the file were hashed each time.
    lose_bytes(&machine, &path, |known| drop(known.as_object_mut().unwrap().remove("boot")));
    machine.stage(REF).unwrap();
    assert_eq!(hub.gets().len(), 2);
}

/// MPROV-025
#[test]
fn bytes_of_a_download_that_broke_off_in_another_life_count_only_where_a_digest_will_be_compared() {
    let at = model().len() / 2;
    for named in [false, true] {
        let server = hub(move |seen, nth| match nth {
            0 => good(seen, nth).cut_after(at),
            _ => good(seen, nth),
        });
        let mut machine = Machine::new(&server);
        machine.patience.tries = 1;
        let reference: ModelRef = if named { REF.parse().unwrap() } else { crate::plain(&server) };
        machine.stage_with(&reference, None, &|_| ()).unwrap_err();
        let sidecar = machine.partials().remove(0).with_extension("json");
        let text = std::fs::read_to_string(&sidecar).unwrap();
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        assert!(text.contains(boot.trim()), "{text}");
        std::fs::write(&sidecar, text.replace(boot.trim(), "another-life")).unwrap();
        assert_eq!(machine.stage_with(&reference, None, &|_| ()).unwrap().digest, sha256(model()));
        assert_eq!(server.gets()[1].from() > 0, named, "gone on with where the hub names a digest");
    }
}
