//! What engines write before they end, file by file: the last lines of the real `llama-server` where
//! it could be provoked, and excerpts of its sources' messages where it could not (no graphics card).

use std::path::Path;

use child::Exit;
use pool_managerd::{Cause, Ending, classify};

/// Reads a fixture: the second line says how the engine ended, the rest is its log.
fn cause_of(name: &str) -> Cause {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/engine-logs").join(name);
    let text = std::fs::read_to_string(&path).unwrap();
    let mut lines = text.lines().map(str::to_owned);
    let about = lines.next().unwrap();
    assert!(about.starts_with("# recorded") || about.starts_with("# excerpt"), "{about}");
    let exit = lines.next().unwrap();
    let exit = exit.strip_prefix("# exit: ").unwrap();
    let (exit, by_kernel) = exit.strip_suffix(", kernel").map_or((exit, false), |exit| (exit, true));
    let exit = match exit.split_once(' ') {
        Some(("code", code)) => Exit::Code(code.parse().unwrap()),
        Some(("signal", signal)) => Exit::Signal(signal.parse().unwrap()),
        _ => Exit::Unknown,
    };
    classify(Ending { exit, served: false, memory_killer: by_kernel }, &lines.collect::<Vec<_>>())
}

macro_rules! fixtures {
    ($($name:ident: $file:literal => $cause:ident,)*) => {
        $(
            /// POOLD-CAUSE-001
            #[test]
            fn $name() {
                assert_eq!(cause_of($file), Cause::$cause);
            }
        )*

        /// POOLD-CAUSE-001
        #[test]
        fn every_fixture_has_its_test() {
            let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/engine-logs");
            let mut found: Vec<String> = std::fs::read_dir(here).unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            let mut tested = vec![$($file.to_owned()),*];
            found.sort();
            tested.sort();
            assert_eq!(found, tested);
        }
    };
}

fixtures! {
    an_unknown_flag: "bad_flag-unknown.log" => BadFlag,
    a_flag_with_a_bad_value: "bad_flag-value.log" => BadFlag,
    a_model_that_is_not_there: "model_not_found.log" => ModelNotFound,
    a_model_that_was_cut: "model_corrupt-truncated.log" => ModelCorrupt,
    a_model_that_was_cut_in_its_header: "model_corrupt-header.log" => ModelCorrupt,
    a_model_with_too_high_a_tensor_count: "model_corrupt-more_tensors.log" => ModelCorrupt,
    a_model_with_too_low_a_tensor_count: "model_corrupt-less_tensors.log" => ModelCorrupt,
    a_model_with_an_absurd_tensor_count: "model_corrupt-absurd_count.log" => ModelCorrupt,
    a_model_without_a_tensor_that_it_needs: "model_corrupt-missing_tensor.log" => ModelCorrupt,
    a_model_of_an_unknown_architecture: "model_corrupt-architecture.log" => ModelCorrupt,
    a_file_that_is_no_model: "model_corrupt-magic.log" => ModelCorrupt,
    a_model_of_a_future_version: "model_corrupt-version.log" => ModelCorrupt,
    a_port_that_is_taken: "port_taken.log" => PortTaken,
    a_memory_limit_of_the_process: "out_of_memory-rlimit.log" => OutOfMemory,
    a_limit_that_leaves_no_room_for_threads: "out_of_memory-threads.log" => OutOfMemory,
    the_kernels_memory_killer: "oom_killed.log" => OomKilled,
    a_card_too_small_for_the_weights: "device_out_of_memory-weights.log" => DeviceOutOfMemory,
    a_card_that_fills_up_while_computing: "device_out_of_memory-while_computing.log" => DeviceOutOfMemory,
    a_card_of_another_maker_that_is_full: "device_out_of_memory-vulkan.log" => DeviceOutOfMemory,
    a_driver_that_is_too_old: "driver_mismatch-driver.log" => DriverMismatch,
    a_build_for_another_card: "driver_mismatch-card.log" => DriverMismatch,
    a_build_by_a_newer_toolkit: "driver_mismatch-toolchain.log" => DriverMismatch,
    a_build_for_another_processor: "driver_mismatch-processor.log" => DriverMismatch,
    a_library_that_is_missing: "missing_library.log" => MissingLibrary,
    a_library_that_is_too_old: "missing_library-version.log" => MissingLibrary,
    a_crash: "signal.log" => Signal,
    an_end_without_an_error: "clean.log" => Clean,
    an_exit_for_a_reason_nobody_knows: "exit.log" => Exit,
    an_end_that_nobody_saw: "unknown.log" => Unknown,
}
