//! Both ways of reading the kernel's structures, side by side on the same connection. Needs root, and says so.

#![allow(clippy::print_stdout)] // tests say what they skip

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use netdiag_lab::{Lab, LinkSpec, ServerSide};

use super::*;

/// A watcher of one connection, and all samples that it has shown.
struct Watcher {
    ebpf: Ebpf,
    samples: RttSamples,
    flow: Option<Flow>,
}

impl Watcher {
    fn read(&mut self) {
        let reading = self.ebpf.read(|_| ()).expect("readable");
        for (id, samples) in reading.rtt {
            assert!(reading.flows.iter().any(|flow| flow.id == id));
            self.samples.merge(&samples);
        }
        self.flow = reading.flows.into_iter().next().or(self.flow.take());
    }
}

#[test]
fn every_sample_is_counted_once_however_the_kernel_is_read() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: eBPF programs side by side (needs root)");
        return;
    }
    let link = |millis| LinkSpec::delayed(Duration::from_millis(millis)).expect("possible");
    let lab = Lab::start(link(1), ServerSide::Namespace).expect("lab");
    let address = SocketAddr::new(lab.server_ip(), 0);
    let listener = lab.on_server(|| TcpListener::bind(address).expect("bind")).expect("server");
    let port = listener.local_addr().expect("bound").port();
    let filter = FlowFilter { ports: vec![port], ..FlowFilter::default() };
    let selection = Selection { filter: &filter, netns: None, max_flows: 100 };
    let mut watchers = Access::ALL.map(|access| Watcher {
        ebpf: Ebpf::open_with(selection, access).expect("this kernel has both"),
        samples: RttSamples::default(),
        flow: None,
    });

    let target = listener.local_addr().expect("bound");
    let mut client =
        lab.on_client(|| TcpStream::connect(target).expect("connect")).expect("client");
    let (mut server, _) = listener.accept().expect("accept");
    server.set_nodelay(true).expect("nodelay");
    // 2 ms and 2 × 20 ms are four octaves apart or more: each change makes the other's octave spill.
    for (millis, rounds) in [(1, 50), (20, 12), (1, 50), (20, 12)] {
        lab.set(link(millis)).expect("set");
        let mut message = [7; 100];
        for _ in 0..rounds {
            server.write_all(&message).expect("write");
            client.read_exact(&mut message).expect("read");
            watchers.iter_mut().for_each(Watcher::read);
        }
    }
    drop((server, client));
    std::thread::sleep(Duration::from_millis(200));
    watchers.iter_mut().for_each(Watcher::read);

    let [typed, copied] = watchers.each_ref().map(|watcher| {
        assert_eq!(watcher.ebpf.losses(), Losses::default());
        let flow = watcher.flow.as_ref().expect("seen");
        assert!(flow.closed, "{flow:?}");
        assert_eq!(watcher.samples.count(), u64::from(flow.rtt_count));
        let summary = watcher.samples.summary().expect("samples");
        assert_eq!(
            summary.avg.as_micros(),
            u128::from(flow.rtt_sum_us / u64::from(flow.rtt_count))
        );
        (summary, flow.counters, flow.cwnd, flow.srtt)
    });
    assert_eq!(typed, copied);
    assert!(typed.0.samples >= 100 && typed.0.max > typed.0.min * 8, "{typed:?}");
}
