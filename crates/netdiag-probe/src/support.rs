//! What this machine supports, tried for real: the questions behind `netdiag doctor`.

use crate::{ebpf, netns, sockdiag};

/// Loads and attaches each eBPF hook for a moment. Per raw tracepoint: success, or why not and what to do.
pub fn hooks() -> Vec<(&'static str, Result<(), String>)> {
    ebpf::try_hooks()
        .into_iter()
        .map(|(hook, result)| (hook, result.map_err(|error| error.to_string())))
        .collect()
}

/// Dumps our own namespace's TCP sockets and says how many are connected, or why it could not.
pub fn sock_diag() -> Result<usize, String> {
    let netns = netns::own_inode().map_err(|error| error.to_string())?;
    let entries = sockdiag::dump(netns).map_err(|error| error.to_string())?;
    Ok(entries.len())
}

/// How many network namespaces besides our own can be seen, and how many of them can be entered.
pub fn namespaces() -> (usize, usize) {
    let own = netns::own_inode().unwrap_or_default();
    let mut others = netns::discover();
    others.retain(|ns| ns.inode != own);
    let entered = netns::visit(&others, |_| Ok(()));
    (others.len(), entered.iter().filter(|result| result.is_ok()).count())
}
