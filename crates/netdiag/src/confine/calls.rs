//! System calls that no server of ours makes once it has begun, refused with EPERM by a filter (seccomp).
//!
//! A list of what is refused and not of what is allowed: libraries and the C library change what they call, and a call that is missing
//! would be noticed by who runs them, not by us. The units have the other kind (`SystemCallFilter=`).

use std::collections::BTreeMap;

use rustix::io::Errno;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter};

/// Programs, other processes, file systems, the kernel's modules and clocks, keys, other ways into the kernel.
const REFUSED: [i64; 42] = [
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_mount_setattr,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_quotactl,
    libc::SYS_acct,
    libc::SYS_open_by_handle_at,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_personality,
    libc::SYS_unshare,
    libc::SYS_vhangup,
];

/// Refuses them on this thread, and how many there are; nothing where there is no such filter.
pub(super) fn refuse(namespaces: bool, bpf: bool) -> Option<usize> {
    let beside = [(libc::SYS_setns, namespaces), (libc::SYS_bpf, bpf)];
    let beside = beside.into_iter().filter_map(|(call, needed)| (!needed).then_some(call));
    let calls: Vec<i64> = REFUSED.into_iter().chain(beside).collect();
    let number = calls.len();
    match filter(calls).map(|filter| apply_filter(&filter)) {
        Ok(Ok(())) => Some(number),
        Ok(Err(error)) => {
            tracing::debug!("system calls are not filtered: {error}");
            None
        }
        Err(error) => {
            tracing::debug!("system calls are not filtered: {error}");
            None
        }
    }
}

fn filter(calls: Vec<i64>) -> Result<BpfProgram, seccompiler::BackendError> {
    // A processor that it does not know is an error here.
    let processor = TargetArch::try_from(std::env::consts::ARCH)?;
    let rules: BTreeMap<i64, _> = calls.into_iter().map(|call| (call, Vec::new())).collect();
    let refusal = SeccompAction::Errno(Errno::PERM.raw_os_error().unsigned_abs());
    SeccompFilter::new(rules, SeccompAction::Allow, refusal, processor)?.try_into()
}
