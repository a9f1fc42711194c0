//! What can be said about a pool without looking at the machine: whoever starts a program that will
//! provision later asks here first, so that a misspelt flag ends the start and not a replica.

use provisioners_model_provisioner::ModelRef;
use wire::config::PoolConfig;

use crate::error::EnsureError;
use crate::gpu::Target;
use crate::{flags, recipe};

/// Checks flags, variables, model reference and build flags of a pool. Touches nothing, takes no time.
///
/// # Errors
/// [`EnsureError::Config`] with the first problem, which begins with the key in question.
pub fn check_pool(pool: &PoolConfig) -> Result<(), EnsureError> {
    let config = |problem| EnsureError::Config { pool: pool.id.clone(), problem };
    flags::checked_env(pool).map_err(config)?;
    flags::canonical(pool).map_err(config)?;
    ModelRef::parse(&pool.model).map_err(|e| config(format!("model: {e}")))?;
    recipe::definitions("", &Target::Cpu, &pool.provisioning.cmake_flags).map_err(config)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(change: impl FnOnce(&mut PoolConfig)) -> String {
        let mut pool = PoolConfig::haiku();
        change(&mut pool);
        match check_pool(&pool) {
            Err(EnsureError::Config { problem, .. }) => problem,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_key_that_cannot_work_anywhere_is_named() {
        check_pool(&PoolConfig::haiku()).unwrap();
        assert!(problem(|p| p.flags = vec!["--bogus".to_owned()]).starts_with("flags: --bogus"));
        assert!(problem(|p| p.flags = vec!["--port 1".to_owned()]).starts_with("flags: --port"));
        let name = "LLAMA_ARG_PORT".to_owned();
        assert!(problem(|p| p.env = [(name, "1".to_owned())].into()).starts_with("env: LLAMA_ARG_PORT"));
        assert!(problem(|p| p.model = "hf:".to_owned()).starts_with("model: "));
        let cmake = |p: &mut PoolConfig| p.provisioning.cmake_flags = vec!["GGML_CUDA".to_owned()];
        assert!(problem(cmake).starts_with("provisioning.cmake_flags: "));
    }
}
