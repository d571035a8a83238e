//! What the filters say of a call, as the kernel would read them: calls that nothing of ours makes cannot be tried.

use super::*;

const NETLINK: u64 = libc::AF_NETLINK as u64;
const UNIX: u64 = libc::AF_UNIX as u64;
const INET: u64 = libc::AF_INET as u64;
const INET6: u64 = libc::AF_INET6 as u64;
const PACKET: u64 = libc::AF_PACKET as u64;

/// What becomes of a call: let through, or its error.
#[derive(Debug, PartialEq)]
enum Fate {
    Passes,
    Fails(Errno),
}

/// Runs one program over a call's `struct seccomp_data`.
fn run(program: &BpfProgram, number: u32, argument: u64) -> u32 {
    // AUDIT_ARCH_…, from linux/audit.h.
    let processor = match std::env::consts::ARCH {
        "x86_64" => 0xc000_003e,
        "aarch64" => 0xc000_00b7,
        other => panic!("{other} is not known here"),
    };
    let mut data = [number, processor, 0, 0, 0, 0];
    data[4] = u32::try_from(argument & u64::from(u32::MAX)).expect("32 bits");
    data[5] = u32::try_from(argument >> 32).expect("32 bits");
    let (mut at, mut held) = (0, 0);
    loop {
        let step = &program[at];
        let (code, k) = (u32::from(step.code), step.k);
        at += 1;
        let is_so = match (code & 7, code & 0xf0) {
            (libc::BPF_LD, _) => {
                held = data[usize::try_from(k / 4).expect("a place")];
                continue;
            }
            (libc::BPF_ALU, libc::BPF_AND) => {
                held &= k;
                continue;
            }
            (libc::BPF_RET, _) => return k,
            (libc::BPF_JMP, libc::BPF_JA) => {
                at += usize::try_from(k).expect("a place");
                continue;
            }
            (libc::BPF_JMP, libc::BPF_JEQ) => held == k,
            (libc::BPF_JMP, libc::BPF_JGT) => held > k,
            (libc::BPF_JMP, libc::BPF_JGE) => held >= k,
            other => panic!("{other:?} is not known here"),
        };
        at += usize::from(if is_so { step.jt } else { step.jf });
    }
}

/// What becomes of a call with this first argument.
fn fate(connects: bool, call: i64, argument: u64) -> Fate {
    let number = u32::try_from(call).expect("a number");
    let programs = programs(refused(Exceptions::NONE), connects).expect("a processor");
    let said: Vec<u32> = programs.iter().map(|program| run(program, number, argument)).collect();
    let strictest = said.iter().find(|said| **said != libc::SECCOMP_RET_ALLOW);
    strictest.map_or(Fate::Passes, |&said| {
        assert_eq!(said & libc::SECCOMP_RET_ACTION_FULL, libc::SECCOMP_RET_ERRNO, "{said:#x}");
        let error = said & libc::SECCOMP_RET_DATA;
        Fate::Fails(Errno::from_raw_os_error(i32::try_from(error).expect("an error")))
    })
}

#[test]
fn sockets_are_netlinks_or_those_that_connecting_takes() {
    let check = |connects, family, expected| {
        assert_eq!(fate(connects, libc::SYS_socket, family), expected, "{connects} {family}");
    };
    for connects in [false, true] {
        check(connects, NETLINK, Fate::Passes);
        for family in [UNIX, PACKET, 0] {
            check(connects, family, Fate::Fails(Errno::PERM));
        }
        for family in [INET, INET6] {
            check(connects, family, if connects { Fate::Passes } else { Fate::Fails(Errno::PERM) });
        }
    }
}

#[test]
fn threads_are_started_and_namespaces_are_not() {
    // As the C library starts one.
    let thread = libc::CLONE_VM
        | libc::CLONE_FS
        | libc::CLONE_FILES
        | libc::CLONE_SIGHAND
        | libc::CLONE_THREAD
        | libc::CLONE_SYSVSEM
        | libc::CLONE_SETTLS
        | libc::CLONE_PARENT_SETTID
        | libc::CLONE_CHILD_CLEARTID;
    let flags = |flags: i32| u64::from(flags.unsigned_abs());
    assert_eq!(fate(true, libc::SYS_clone, flags(thread)), Fate::Passes);
    for namespace in NAMESPACES {
        let asked = flags(thread | namespace);
        assert_eq!(fate(true, libc::SYS_clone, asked), Fate::Fails(Errno::PERM), "{namespace:#x}");
    }
    assert_eq!(fate(true, libc::SYS_clone3, 0), Fate::Fails(Errno::NOSYS));
}

#[test]
fn a_call_is_refused_by_either_of_its_numbers() {
    assert_eq!(fate(true, libc::SYS_listen, 0), Fate::Fails(Errno::PERM));
    assert_eq!(fate(true, libc::SYS_bpf, 0), Fate::Fails(Errno::PERM));
    assert_eq!(fate(true, libc::SYS_read, 0), Fate::Passes);
    if cfg!(target_arch = "x86_64") {
        assert_eq!(fate(true, libc::SYS_read | 0x4000_0000, 0), Fate::Fails(Errno::PERM));
    }
}
