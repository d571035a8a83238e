//! System calls that no server of ours makes once it has begun, refused with EPERM by a filter (seccomp).
//!
//! A list of what is refused and not of what is allowed: libraries and the C library change what they call, and a call that is missing
//! would be noticed by who runs them, not by us. The units have the other kind (`SystemCallFilter=`).
//!
//! Two are refused by what they are asked for: sockets, of which Landlock knows those of TCP alone, and threads in new namespaces. The
//! second cannot be told of `clone3`, whose flags are in memory; to who asks for that it is not there (ENOSYS), and C libraries then
//! use `clone`.

use std::collections::BTreeMap;
use std::fmt;

use rustix::io::Errno;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, apply_filter,
};

use super::Exceptions;

/// It takes a kernel to boot next. The C library's headers lack it on some architectures; those with filters, but for x86-64,
/// have the generic table's number.
const KEXEC_FILE_LOAD: i64 = if cfg!(target_arch = "x86_64") { 320 } else { 294 };

/// Programs, other processes, file systems, the kernel's modules and clocks, keys, listeners (whoever listens does so by now), other
/// ways into the kernel.
const REFUSED: [i64; 45] = [
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
    libc::SYS_fspick,
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
    KEXEC_FILE_LOAD,
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
    libc::SYS_listen,
];

/// New namespaces, in which one is root.
const NAMESPACES: [i32; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// What is refused on a thread.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refused {
    /// System calls that are refused whatever they are asked for.
    number: usize,
    connects: bool,
}

/// Refuses them on this thread; nothing where there is no such filter.
pub(super) fn refuse(exceptions: Exceptions, connects: bool) -> Option<Refused> {
    let calls = refused(exceptions);
    // Those of `clone3` are refused by another filter.
    let told = Refused { number: calls.len() + 1, connects };
    let tell = |error: &dyn fmt::Display| tracing::debug!("system calls are not filtered: {error}");
    let programs = programs(calls, connects).inspect_err(|error| tell(error)).ok()?;
    // What is told is what the first has, which comes when the others are in force.
    for program in programs.into_iter().rev() {
        apply_filter(&program).inspect_err(|error| tell(error)).ok()?;
    }
    Some(told)
}

fn refused(exceptions: Exceptions) -> Vec<i64> {
    let Exceptions { namespaces, bpf, .. } = exceptions;
    let beside = [(libc::SYS_setns, namespaces), (libc::SYS_bpf, bpf)];
    let beside = beside.into_iter().filter_map(|(call, needed)| (!needed).then_some(call));
    REFUSED.into_iter().chain(beside).collect()
}

/// Of what several filters say the kernel does the strictest.
fn programs(calls: Vec<i64>, connects: bool) -> Result<Vec<BpfProgram>, BackendError> {
    let mut rules: BTreeMap<i64, _> = calls.into_iter().map(|call| (call, Vec::new())).collect();
    rules.insert(libc::SYS_socket, sockets(connects)?);
    rules.insert(libc::SYS_clone, namespaces()?);
    let mut programs = vec![
        program(rules, Errno::PERM)?,
        program(BTreeMap::from([(libc::SYS_clone3, Vec::new())]), Errno::NOSYS)?,
    ];
    programs.extend(x32());
    Ok(programs)
}

fn program(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    errno: Errno,
) -> Result<BpfProgram, BackendError> {
    // A processor that it does not know is an error here.
    let processor = TargetArch::try_from(std::env::consts::ARCH)?;
    let refusal = SeccompAction::Errno(errno.raw_os_error().unsigned_abs());
    SeccompFilter::new(rules, SeccompAction::Allow, refusal, processor)?.try_into()
}

/// Sockets of other families than these are refused: netlink, which the kernel tells connections by, and what names are looked up and
/// others are reached by. Not those of this host's services (AF_UNIX), which the C library does without.
fn sockets(connects: bool) -> Result<Vec<SeccompRule>, BackendError> {
    let reaching = [libc::AF_INET, libc::AF_INET6];
    let needed = [libc::AF_NETLINK].into_iter().chain(reaching.into_iter().filter(|_| connects));
    let is_other = |family| argument(SeccompCmpOp::Ne, family);
    Ok(vec![SeccompRule::new(needed.map(is_other).collect::<Result<_, _>>()?)?])
}

fn namespaces() -> Result<Vec<SeccompRule>, BackendError> {
    let of = |flag: i32| {
        let mask = SeccompCmpOp::MaskedEq(flag.unsigned_abs().into());
        SeccompRule::new(vec![argument(mask, flag)?])
    };
    NAMESPACES.into_iter().map(of).collect()
}

/// What is asked of the first argument.
fn argument(how: SeccompCmpOp, value: i32) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(0, SeccompCmpArgLen::Dword, how, value.unsigned_abs().into())
}

/// Refuses the second set of numbers that x86-64 has for the same calls (x32), which the rules do not know.
#[cfg(target_arch = "x86_64")]
fn x32() -> Option<BpfProgram> {
    use seccompiler::sock_filter;

    /// The bit that they have.
    const X32: u32 = 0x4000_0000;
    /// Where `struct seccomp_data` has the number.
    const NUMBER: u32 = 0;
    let refusal = SeccompAction::Errno(Errno::PERM.raw_os_error().unsigned_abs());
    let step = |code: u32, jt, jf, k| {
        // Codes have eight bits.
        u16::try_from(code).ok().map(|code| sock_filter { code, jt, jf, k })
    };
    // The others have seen to it that this is x86-64.
    [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, NUMBER),
        step(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 0, 1, X32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, refusal.into()),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, SeccompAction::Allow.into()),
    ]
    .into_iter()
    .collect()
}

/// Others have one set of numbers.
#[cfg(not(target_arch = "x86_64"))]
fn x32() -> Option<BpfProgram> {
    None
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sockets =
            if self.connects { "but netlink's and the Internet's" } else { "but netlink's" };
        write!(f, "{} system calls refused, and sockets {sockets}", self.number)
    }
}

#[cfg(test)]
mod tests;
