//! The address: taking it, and finding out who has it.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use tokio::net::{TcpListener, TcpSocket};
use wire::Health;

use crate::compose::program_on;
use crate::exit::{CONFIG, Fatal, TEMPORARY};
use crate::http::SERVICE;
use crate::serve::reachable;

/// Connections that the kernel holds for us while we accept: a burst of thousands must not be met
/// with silence.
const BACKLOG: u32 = 4_096;
/// Whether it is one of us that has our port is known within this time.
const PROBE: Duration = Duration::from_secs(1);

/// Listens, or says who does and what to do.
pub(crate) async fn bind(listen: SocketAddr) -> Result<TcpListener> {
    match listener(listen) {
        Ok(listener) => Ok(listener),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Err(in_use(listen).await.into()),
        Err(error) => {
            let message = format!(
                "cannot listen on {listen}: {error}; choose an address of this machine and a free port \
                 with ORCHD_ADDR or api.listen"
            );
            Err(Fatal::new(CONFIG, message).into())
        }
    }
}

fn listener(listen: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if listen.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // As tokio's own `bind` does: a port whose connections linger is free.
    socket.set_reuseaddr(true)?;
    socket.bind(listen)?;
    socket.listen(BACKLOG)
}

async fn in_use(listen: SocketAddr) -> Fatal {
    let at = reachable(listen);
    let elsewhere = "or choose another address with ORCHD_ADDR or api.listen";
    if is_orchestratord(at).await {
        let message = format!(
            "an orchestratord already runs at http://{at}; `orchestratord run …` uses it; stop it, {elsewhere}"
        );
        return Fatal::new(TEMPORARY, message);
    }
    let holder = match program_on(listen.port()).await {
        Some(program) => format!("{listen} is in use by {program}"),
        None => format!("{listen} is in use by another user's program"),
    };
    Fatal::new(TEMPORARY, format!("{holder}; stop it, {elsewhere}"))
}

/// Whether one of us answers there.
pub(crate) async fn is_orchestratord(addr: SocketAddr) -> bool {
    // Proxy variables must not send loopback traffic elsewhere.
    let Ok(http) = reqwest::Client::builder().no_proxy().timeout(PROBE).build() else { return false };
    let Ok(answer) = http.get(format!("http://{addr}/health")).send().await else { return false };
    answer.json::<Health>().await.is_ok_and(|health| health.service == SERVICE)
}
