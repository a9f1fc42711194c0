//! A fetched model taken to a machine that never had a network.

use std::collections::BTreeMap;

use provisioners_model_provisioner::{Cancel, Catalog, ModelProvisioner, Network};

use super::{Machine, REF, good, hub, sha256};

/// MPROV-022, MPROV-027
#[test]
fn a_packed_model_is_staged_elsewhere_without_a_network_and_a_changed_one_is_refused() {
    let server = hub(good);
    let machine = Machine::new(&server);
    let record = machine.stage(REF).unwrap();
    let packed = Catalog::new(machine.dir.path()).pack(&record).unwrap();
    let lonely = tempfile::tempdir().unwrap();
    let unpack_as = |announced: &str, manifest: &[u8], change: &dyn Fn(&mut Vec<u8>)| {
        let dir = lonely.path().join("unpacked");
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        let mut digests = BTreeMap::new();
        std::fs::write(dir.join("manifest.json"), manifest).unwrap();
        for (name, path) in &packed.files {
            let mut bytes = std::fs::read(path).unwrap();
            change(&mut bytes);
            std::fs::write(dir.join(name), &bytes).unwrap();
            digests.insert(name.clone(), sha256(&bytes));
        }
        Catalog::new(lonely.path()).adopt(&dir, &digests, announced, true)
    };
    let unpack =
        |announced: &str, change: &dyn Fn(&mut Vec<u8>)| unpack_as(announced, &packed.manifest, change);
    let stage = || {
        let offline =
            ModelProvisioner::new(lonely.path()).with_network(Network::from_vars(|_| None)).offline(true);
        offline.stage(&REF.parse().unwrap(), None, &|_| (), &Cancel::new())
    };
    let problem = unpack(&record.digest, &|bytes| bytes[100_000] ^= 1).unwrap_err().to_string();
    assert!(problem.contains("is not the file that its manifest describes"), "{problem}");
    stage().unwrap_err();
    let problem = unpack(&"0".repeat(64), &|_| ()).unwrap_err().to_string();
    assert!(problem.contains("announced is 000"), "{problem}");
    stage().unwrap_err();
    let written = String::from_utf8(packed.manifest.clone()).unwrap();
    let later = written.replace("\"schema_version\": 1", "\"schema_version\": 2");
    assert_ne!(later, written);
    let problem = unpack_as(&record.digest, later.as_bytes(), &|_| ()).unwrap_err().to_string();
    assert!(problem.contains("it has version 2, and this program reads up to 1"), "{problem}");
    stage().unwrap_err();
    unpack(&record.digest, &|_| ()).unwrap();
    assert_eq!(stage().unwrap().digest, record.digest);
    unpack(&record.digest, &|_| ()).unwrap();
    assert_eq!(stage().unwrap().digest, record.digest, "once more changes nothing");
}
