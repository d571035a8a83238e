//! A client at the end of an emulated link whose program reads as fast as it is told.
//!
//! Invariant: the connection ends, and with it the reading thread, when the client is dropped.

use std::io::Read;
use std::net::{Shutdown, SocketAddr, SocketAddrV4, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use netdiag_lab::Link;
use rustix::net::sockopt::set_socket_recv_buffer_size;
use rustix::net::{AddressFamily, SocketType, connect, socket};

/// How often a program that reads slowly reads, or looks whether it should.
const TURN: Duration = Duration::from_millis(20);

/// As fast as data comes.
const UNLIMITED: u64 = u64::MAX;

pub(super) struct Client {
    socket: TcpStream,
    /// Bytes/s.
    rate: Arc<AtomicU64>,
}

impl Client {
    /// Connects from the link's end. A receive buffer of so many bytes keeps what a program does not read from going unnoticed.
    pub(super) fn connect(
        link: &Link,
        target: SocketAddr,
        buffer: Option<usize>,
    ) -> anyhow::Result<Self> {
        let SocketAddr::V4(target) = target else { bail!("{target} is not of IPv4") };
        let socket = link.on_client(|| open(target, buffer))??;
        Ok(Self { socket, rate: Arc::new(AtomicU64::new(UNLIMITED)) })
    }

    /// Reads on a thread from now on; `seen` gets what comes.
    pub(super) fn read(&self, mut seen: impl FnMut(&[u8]) + Send + 'static) -> anyhow::Result<()> {
        let (mut socket, rate) = (self.socket.try_clone()?, Arc::clone(&self.rate));
        std::thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            loop {
                let most = match rate.load(Ordering::Relaxed) {
                    UNLIMITED => buffer.len(),
                    rate => {
                        std::thread::sleep(TURN);
                        (rate as f64 * TURN.as_secs_f64()) as usize
                    }
                };
                if most == 0 {
                    // Stopped, and not for ever: a program that is gone is another matter.
                    if Arc::strong_count(&rate) == 1 {
                        return;
                    }
                    continue;
                }
                match socket.read(&mut buffer[..most]) {
                    Ok(0) | Err(_) => return,
                    Ok(length) => seen(&buffer[..length]),
                }
            }
        });
        Ok(())
    }

    /// Reads so many bytes per second from now on; 0: none.
    pub(super) fn limit(&self, rate: u64) {
        self.rate.store(rate, Ordering::Relaxed);
    }

    pub(super) fn address(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.socket.local_addr()?)
    }

    pub(super) fn socket(&self) -> &TcpStream {
        &self.socket
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

fn open(target: SocketAddrV4, buffer: Option<usize>) -> anyhow::Result<TcpStream> {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    if let Some(buffer) = buffer {
        // Before connecting, because the scale of the window is agreed on then.
        set_socket_recv_buffer_size(&socket, buffer)?;
    }
    connect(&socket, &target).context("cannot connect through the link")?;
    Ok(TcpStream::from(socket))
}
