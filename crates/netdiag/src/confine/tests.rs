//! On threads that end: what is given up cannot be had back.

use std::fs;
use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::Command;

use rustix::net::{AddressFamily, SocketType};

use super::*;

/// What `try_it` finds on a thread that is confined to `needs`.
fn confined<T: Send + 'static>(
    needs: Needs,
    try_it: impl FnOnce(Confined) -> T + Send + 'static,
) -> T {
    let confinement = Confinement(Some(Arc::new(needs)));
    let thread = std::thread::spawn(move || {
        let made = confinement.enter(Exceptions::NONE).expect("it is wished for");
        try_it(made)
    });
    thread.join().expect("no panic")
}

#[test]
fn nothing_is_left_of_capabilities_and_none_can_be_gained() {
    let status = confined(Needs::default(), |_| {
        fs::metadata("/proc/thread-self").map(|_| ()).expect("looking is not reading");
        let sets = rustix::thread::capabilities(None).expect("of this thread");
        (sets.effective | sets.permitted | sets.inheritable, rustix::thread::no_new_privs())
    });
    assert_eq!(status, (CapabilitySet::empty(), Ok(true)));
}

#[test]
fn files_elsewhere_and_connections_are_refused() {
    let (landlock, filters) = supported();
    let folder = tempfile::tempdir().expect("a folder");
    let inside = folder.path().join("rows.csv");
    fs::write(&inside, "header\n").expect("a file");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let server = listener.local_addr().expect("bound");
    let needs = Needs { writes: vec![inside.clone()], ..Needs::default() };
    let outside = tempfile::tempdir().expect("another folder");
    let other = outside.path().join("other");
    fs::write(&other, "secret").expect("a file");
    let found = confined(needs, move |made| {
        // As rotation does it.
        let staged = inside.with_file_name(".rows.rotating");
        fs::write(&staged, "header\n").expect("it may be made");
        fs::rename(&staged, &inside).expect("it may be renamed");
        fs::read(&inside).expect("it may be read");
        let kind = |result: std::io::Result<()>| result.err().map(|error| error.kind());
        let refused = [
            kind(fs::read(&other).map(drop)),
            kind(fs::write(other.with_file_name("new"), "")),
            kind(fs::remove_file(&other)),
        ];
        let connected = kind(TcpStream::connect(server).map(drop));
        let ran = kind(Command::new("/bin/true").status().map(drop));
        let knows_connections = made.files.as_ref().is_some_and(files::InForce::has_connections);
        (made.to_string(), refused, connected, ran, knows_connections)
    });
    let (told, refused, connected, ran, knows_connections) = found;
    let denied = Some(ErrorKind::PermissionDenied);
    assert_eq!(connected, denied.filter(|_| knows_connections || filters), "{told}");
    assert_eq!(told.contains("no connections to others"), knows_connections, "{told}");
    if landlock {
        assert_eq!(refused, [denied; 3], "{told}");
        assert!(told.contains("alone"), "{told}");
    } else {
        let _ = std::io::Write::write_all(
            &mut std::io::stderr(),
            b"skipped: confinement of files (no Landlock here)\n",
        );
    }
    if landlock || filters {
        assert_eq!(ran, denied, "{told}");
    }
    assert!(told.contains("no capabilities"), "{told}");
}

#[test]
fn sockets_and_listeners_are_refused_and_threads_go_on() {
    let (_, filters) = supported();
    if !filters {
        let _ = std::io::Write::write_all(
            &mut std::io::stderr(),
            b"skipped: refusal of sockets (no seccomp filter here)\n",
        );
        return;
    }
    for connects in [false, true] {
        // Bound and not listening, which Landlock does not know of.
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None);
        let socket = socket.expect("a socket");
        let needs = Needs { connects, ..Needs::default() };
        let found = confined(needs, move |_| {
            // As the kernel is asked for connections.
            let netlink = rustix::net::socket(
                AddressFamily::NETLINK,
                SocketType::RAW,
                Some(rustix::net::netlink::SOCK_DIAG),
            );
            netlink.expect("netlink is needed");
            std::os::unix::net::UnixStream::pair().expect("a runtime needs a pair");
            std::thread::spawn(|| ()).join().expect("threads may be started");
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
            runtime.expect("runtimes may be started").block_on(async {
                tokio::task::spawn_blocking(|| ()).await.expect("as may others");
            });
            let unix = std::os::unix::net::UnixDatagram::unbound().map(drop);
            let names = UdpSocket::bind("127.0.0.1:0").map(drop);
            let listens = rustix::net::listen(&socket, 1).map_err(std::io::Error::from);
            [unix, names, listens].map(|result| result.err().map(|error| error.kind()))
        });
        let denied = Some(ErrorKind::PermissionDenied);
        assert_eq!(found, [denied, denied.filter(|_| !connects), denied], "{connects}");
    }
}

#[test]
fn names_are_told_as_a_sentence() {
    let check = |set: CapabilitySet, expected: &str| {
        assert_eq!(capabilities::names(set), expected);
    };
    check(CapabilitySet::empty(), "no capabilities");
    check(CapabilitySet::BPF, "CAP_BPF");
    check(CapabilitySet::SYS_ADMIN | CapabilitySet::SYS_PTRACE, "CAP_SYS_PTRACE and CAP_SYS_ADMIN");
}

#[test]
fn what_is_not_wished_for_is_not_done() {
    let confinement = Confinement::none();
    assert!(confinement.enter(Exceptions::NONE).is_none() && !confinement.is_any());
}
