//! NVML, through its library, which is loaded when it is asked and closed again: a daemon without a
//! card costs nothing, and a driver that comes back is seen.

use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device as Handle, Nvml};
use wire::{Device, DeviceUser};

/// The cards; `Err` when the library is not there or does not answer.
pub(crate) fn cards() -> Result<Vec<Device>, NvmlError> {
    // The library's unversioned name belongs to the toolkit's headers; drivers install this one.
    let nvml = Nvml::init().or_else(|_| Nvml::builder().lib_path("libnvidia-ml.so.1".as_ref()).init())?;
    let driver = nvml.sys_driver_version().ok();
    let count = nvml.device_count()?;
    (0..count).map(|index| card(&nvml.device_by_index(index)?, index, driver.clone())).collect()
}

fn card(handle: &Handle<'_>, index: u32, driver: Option<String>) -> Result<Device, NvmlError> {
    let memory = handle.memory_info()?;
    let compute = handle.cuda_compute_capability()?;
    Ok(Device {
        index,
        uuid: handle.uuid()?,
        name: handle.name()?,
        vram_total_bytes: memory.total,
        vram_free_bytes: memory.free,
        compute_capability: format!("{}.{}", compute.major, compute.minor),
        driver,
        utilisation_percent: handle.utilization_rates().ok().map(|rates| rates.gpu),
        users: users(handle),
    })
}

/// Nobody where the driver is too old to say: what is free is known all the same.
fn users(handle: &Handle<'_>) -> Vec<DeviceUser> {
    let used = |memory| match memory {
        UsedGpuMemory::Used(bytes) => Some(bytes),
        UsedGpuMemory::Unavailable => None,
    };
    let processes = handle.running_compute_processes().unwrap_or_default().into_iter();
    let user = |process: nvml_wrapper::struct_wrappers::device::ProcessInfo| DeviceUser {
        pid: Some(process.pid),
        used_bytes: used(process.used_gpu_memory),
        ..DeviceUser::default()
    };
    processes.map(user).collect()
}
