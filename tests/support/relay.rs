//! A wire between a hub and its upstream that counts what passes, and can be bad.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use anyhow::Result;

/// What becomes of the upstream's answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// They pass.
    Open,
    /// Connections are closed as soon as they are there.
    Shut,
    /// A connection ends after so many bytes of answers.
    CutAfter(u64),
    /// The byte after so many is another one, on each connection.
    FlipAfter(u64),
    /// All stands still after so many bytes, until another way is set.
    HoldAfter(u64),
    /// There is something else than HTTP.
    Garbage,
}

struct Shared {
    target: String,
    way: Mutex<Way>,
    changed: Condvar,
    passed: AtomicU64,
    open: Mutex<Vec<TcpStream>>,
    over: AtomicBool,
}

/// The wire; it is gone when this is dropped.
pub struct Relay {
    shared: Arc<Shared>,
    address: String,
}

impl Relay {
    /// Leads to this host and port.
    pub fn to(target: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let shared = Arc::new(Shared {
            target: target.to_owned(),
            way: Mutex::new(Way::Open),
            changed: Condvar::new(),
            passed: AtomicU64::new(0),
            open: Mutex::default(),
            over: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if accepting.over.load(Ordering::Relaxed) {
                    return;
                }
                let (Ok(stream), shared) = (stream, Arc::clone(&accepting)) else { continue };
                thread::spawn(move || drop(join(&shared, &stream)));
            }
        });
        Ok(Self { shared, address })
    }

    /// `http://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on it is like this, for new connections: those that there are end.
    pub fn set(&self, way: Way) {
        *self.shared.way.lock().unwrap_or_else(PoisonError::into_inner) = way;
        self.shared.changed.notify_all();
        let mut open = self.shared.open.lock().unwrap_or_else(PoisonError::into_inner);
        for stream in open.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Bytes that came from the upstream so far.
    pub fn passed(&self) -> u64 {
        self.shared.passed.load(Ordering::Relaxed)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        self.set(Way::Shut);
        drop(TcpStream::connect(&self.address));
    }
}

impl Shared {
    fn way(&self) -> Way {
        *self.way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while all stands still for one who has had so many bytes.
    fn wait(&self, had: u64) -> Way {
        let holds = |way: &mut Way| matches!(way, Way::HoldAfter(most) if had >= *most);
        let way = self.way.lock().unwrap_or_else(PoisonError::into_inner);
        *self.changed.wait_while(way, holds).unwrap_or_else(PoisonError::into_inner)
    }
}

fn join(shared: &Arc<Shared>, client: &TcpStream) -> Result<()> {
    match shared.way() {
        Way::Shut => return Ok(()),
        Way::Garbage => {
            let mut request = [0; 1024];
            let _ = (&mut &*client).read(&mut request)?;
            (&mut &*client).write_all(b"\x00\xFFthis is no answer at all\r\n\r\n")?;
            return Ok(client.shutdown(Shutdown::Both)?);
        }
        _ => {}
    }
    let upstream = TcpStream::connect(&shared.target)?;
    let mut open = shared.open.lock().unwrap_or_else(PoisonError::into_inner);
    open.extend([client.try_clone()?, upstream.try_clone()?]);
    drop(open);
    let (mut from, mut to) = (client.try_clone()?, upstream.try_clone()?);
    thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let passed = pass(shared, &upstream, client);
    let _ = client.shutdown(Shutdown::Both);
    let _ = upstream.shutdown(Shutdown::Both);
    passed
}

/// The upstream's bytes, as far as they are let through.
fn pass(shared: &Shared, mut upstream: &TcpStream, mut client: &TcpStream) -> Result<()> {
    let (mut piece, mut had) = (vec![0; 64 * 1024], 0_u64);
    loop {
        let read = upstream.read(&mut piece)?;
        if read == 0 {
            return Ok(());
        }
        let (mut start, end) = (0, read);
        while start < end {
            let way = shared.wait(had);
            let most = match way {
                Way::Shut | Way::Garbage => return Ok(()),
                Way::CutAfter(most) if had >= most => return Ok(()),
                Way::CutAfter(most) | Way::HoldAfter(most) => most.saturating_sub(had),
                Way::Open | Way::FlipAfter(_) => u64::MAX,
            };
            let length = usize::try_from(most).unwrap_or(usize::MAX).min(end - start);
            let next = &mut piece[start..start + length];
            if let Way::FlipAfter(place) = way
                && let Ok(offset) = usize::try_from(place.wrapping_sub(had))
                && let Some(byte) = next.get_mut(offset)
            {
                *byte ^= 1;
            }
            client.write_all(next)?;
            had += length as u64;
            start += length;
            shared.passed.fetch_add(length as u64, Ordering::Relaxed);
        }
    }
}
