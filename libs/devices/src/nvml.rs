//! NVML, through its library, which is loaded when it is asked and closed again: a daemon without a
//! card costs nothing, and a driver that comes back is seen.

use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device as Handle, Nvml};
use wire::Device;

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
    })
}
