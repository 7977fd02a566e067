//! The one task that moves packets: socket, endpoint and all its connections.
//!
//! A turn reads what the kernel has, hands it to the connections, and lets each connection that
//! something happened to send. Nothing goes from task to task on the way but a whole run of chunks.

use std::collections::HashMap;
use std::future;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use ballast_store::env::SharedEnv;
use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use quinn_proto::{
    ClientConfig, ConnectionHandle, DatagramEvent, Dir, Endpoint, Event, Incoming, StreamEvent,
    Transmit, VarInt,
};
use quinn_udp::RecvMeta;
use rustls_pki_types::CertificateDer;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::Paths;
use super::config::{Configs, FAR_FROM, FAR_WINDOW};
use super::connection::{Clock, Connection, State, Touched};
use super::socket::{Socket, TRAIN_ROOM, TRAINS, ecn_of};
use super::stream::Stream;
use crate::carrier::shared::Shared;
use crate::carrier::{Error, Result};
use crate::cluster::{Peer, PeerKey, PeerName, Revocations, SERVER_NAME, peer_of};

/// Connections of one process. A cluster has a hub, some hundred nodes, and each a few peers.
const MOST_CONNECTIONS: usize = 4096;
/// So many that are not yet whole, and whoever calls has to show that its address is its own.
const MOST_UNPROVEN: usize = 64;
/// What one turn sends of one connection before it looks at the next.
const TRAINS_PER_TURN: usize = 4;
/// What is shorter is copied out of where it was received, so that packets that wait to be read
/// hold on to twice their room at most.
const SHORT_TRAIN: usize = TRAIN_ROOM / 2;

/// A call that is to be made.
pub(super) struct Connect {
    pub(super) address: SocketAddr,
    pub(super) peer: PeerName,
    pub(super) config: ClientConfig,
    pub(super) reply: oneshot::Sender<Result<Arc<Connection>>>,
}

/// What becomes of a call that a peer has made.
pub(in crate::carrier) type Answer =
    Arc<dyn Fn(Stream, PeerName) -> BoxFuture<'static, ()> + Send + Sync>;

/// Owns the socket and the endpoint.
pub(super) struct Driver {
    pub(super) shared: Shared,
    pub(super) configs: Arc<Configs>,
    pub(super) revocations: Revocations,
    /// What becomes of a call; `None`: nobody is let in.
    pub(super) answer: Option<Answer>,
    pub(super) socket: Socket,
    pub(super) clock: Clock,
    pub(super) calls: mpsc::Receiver<Connect>,
    pub(super) touched: Arc<Touched>,
    pub(super) paths: Arc<Paths>,
    pub(super) state: Moving,
}

/// What changes with every turn.
pub(super) struct Moving {
    endpoint: Endpoint,
    connections: HashMap<ConnectionHandle, Driven>,
    /// Those that are not whole yet.
    unproven: usize,
    /// Which to look at in this turn.
    due: Vec<ConnectionHandle>,
    /// What the socket had no room for; nothing else is sent before it.
    blocked: Option<Transmit>,
    outgoing: Vec<u8>,
    /// Where the kernel puts what comes: a train each, of which the packets are handed on.
    incoming: [BytesMut; TRAINS],
}

struct Driven {
    connection: Arc<Connection>,
    deadline: Option<Instant>,
    stage: Stage,
}

enum Stage {
    /// We call.
    Calling { peer: PeerName, reply: oneshot::Sender<Result<Arc<Connection>>> },
    /// We are called, by whom is not known yet.
    Called,
    /// By this one.
    Serving(PeerName),
    /// It is ours, or nobody's.
    Ours,
}

/// How much of what a connection has was sent in a turn.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sent {
    All,
    Some,
    /// None, or some, and there is no room for more.
    Full,
}

impl Moving {
    pub(super) fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            connections: HashMap::new(),
            unproven: 0,
            due: Vec::new(),
            blocked: None,
            outgoing: Vec::new(),
            incoming: std::array::from_fn(|_| BytesMut::zeroed(TRAIN_ROOM)),
        }
    }
}

impl Driver {
    /// Moves packets until it is told to stop, or nobody holds the carrier.
    pub(super) async fn run(mut self, stopping: CancellationToken) {
        let env = SharedEnv::clone(&self.shared.env);
        loop {
            if stopping.is_cancelled() || !self.take_calls() {
                break;
            }
            if self.turn() {
                tokio::task::yield_now().await;
                continue;
            }
            let deadline = self.state.connections.values().filter_map(|one| one.deadline).min();
            let wait = deadline.map(|at| at.saturating_duration_since(self.clock.now()));
            let timer = async {
                match wait {
                    Some(wait) => env.sleep(wait).await,
                    None => future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = stopping.cancelled() => break,
                _ = self.socket.readable() => {}
                _ = self.socket.writable(), if self.state.blocked.is_some() => {}
                () = self.touched.woken.notified() => {}
                call = self.calls.recv() => match call {
                    Some(call) => self.connect(call),
                    None => break,
                },
                () = timer => {}
            }
        }
        self.close_all();
    }

    fn take_calls(&mut self) -> bool {
        loop {
            match self.calls.try_recv() {
                Ok(call) => self.connect(call),
                Err(mpsc::error::TryRecvError::Empty) => return true,
                Err(mpsc::error::TryRecvError::Disconnected) => return false,
            }
        }
    }

    /// One round; whether there is more to do at once.
    fn turn(&mut self) -> bool {
        let now = self.clock.now();
        let mut more = self.receive(now);
        let mut due = std::mem::take(&mut self.state.due);
        self.touched.take(&mut due);
        for (handle, driven) in &self.state.connections {
            if driven.deadline.is_some_and(|deadline| deadline <= now) && driven.connection.mark() {
                due.push(*handle);
            }
        }
        self.unblock();
        for handle in due.drain(..) {
            more |= self.drive(handle, now);
        }
        // What was put there meanwhile has come first.
        due.append(&mut self.state.due);
        self.state.due = due;
        more
    }

    /// Reads what the kernel has; whether there may be more.
    fn receive(&mut self, now: Instant) -> bool {
        let mut incoming = std::mem::take(&mut self.state.incoming);
        let mut metas = [RecvMeta::default(); TRAINS];
        let mut rooms = incoming.each_mut().map(|room| {
            // Where the last train has been read this is the same memory, and new memory elsewhere.
            room.resize(TRAIN_ROOM, 0);
            IoSliceMut::new(room)
        });
        let received = self.socket.receive(&mut rooms, &mut metas);
        let count = *received.as_ref().unwrap_or(&0);
        for (meta, room) in metas.iter().zip(&mut incoming).take(count) {
            let mut train = if meta.len < SHORT_TRAIN {
                BytesMut::from(&room[..meta.len])
            } else {
                room.split_to(meta.len)
            };
            while !train.is_empty() {
                let packet = train.split_to(meta.stride.clamp(1, train.len()));
                self.packet(now, meta, packet);
            }
        }
        self.state.incoming = incoming;
        // Others are about packets that were sent, and QUIC finds those out itself.
        !matches!(received, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    fn packet(&mut self, now: Instant, meta: &RecvMeta, packet: BytesMut) {
        let state = &mut self.state;
        let mut answer = Vec::new();
        let event =
            state.endpoint.handle(now, meta.addr, meta.dst_ip, ecn_of(meta), packet, &mut answer);
        match event {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                let Some(driven) = state.connections.get(&handle) else { return };
                driven.connection.state().inner.handle_event(event);
                if driven.connection.mark() {
                    state.due.push(handle);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => self.accept(incoming, now),
            Some(DatagramEvent::Response(transmit)) => self.answer(&transmit, &answer),
            None => {}
        }
    }

    /// Sends a packet that belongs to no connection. If there is no room it is lost, as any may be.
    fn answer(&self, transmit: &Transmit, contents: &[u8]) {
        if self.state.blocked.is_none() {
            let _ = self.socket.send(transmit, &contents[..transmit.size]);
        }
    }

    fn accept(&mut self, incoming: Incoming, now: Instant) {
        let mut answer = Vec::new();
        let endpoint = &mut self.state.endpoint;
        if self.answer.is_none() || self.state.connections.len() >= MOST_CONNECTIONS {
            let transmit = endpoint.refuse(incoming, &mut answer);
            return self.answer(&transmit, &answer);
        }
        if self.state.unproven >= MOST_UNPROVEN && incoming.may_retry() {
            if let Ok(transmit) = endpoint.retry(incoming, &mut answer) {
                self.answer(&transmit, &answer);
            }
            return;
        }
        let config = self.configs.server_for(incoming.remote_address().ip());
        match endpoint.accept(incoming, now, &mut answer, config) {
            Ok((handle, inner)) => self.insert(handle, inner, Stage::Called),
            Err(refused) => {
                tracing::debug!(error = %refused.cause, "a call was not taken");
                if let Some(transmit) = refused.response {
                    self.answer(&transmit, &answer);
                }
            }
        }
    }

    fn connect(&mut self, call: Connect) {
        let Connect { address, peer, config, reply } = call;
        let to = self.socket.reach(address);
        match self.state.endpoint.connect(self.clock.now(), config, to, SERVER_NAME) {
            Ok((handle, inner)) => self.insert(handle, inner, Stage::Calling { peer, reply }),
            Err(error) => {
                let reason = error.to_string();
                let _ = reply.send(Err(Error::Unreachable { peer: peer.to_string(), reason }));
            }
        }
    }

    fn insert(&mut self, handle: ConnectionHandle, inner: quinn_proto::Connection, stage: Stage) {
        let (clock, touched) = (self.clock.clone(), Arc::clone(&self.touched));
        let connection = Arc::new(Connection::new(handle, inner, clock, touched));
        if connection.mark() {
            self.state.due.push(handle);
        }
        self.paths.add(&connection);
        self.state.unproven += 1;
        self.state.connections.insert(handle, Driven { connection, deadline: None, stage });
    }

    /// Does what one connection has to do; whether it has more to send at once.
    fn drive(&mut self, handle: ConnectionHandle, now: Instant) -> bool {
        let Some(driven) = self.state.connections.get(&handle) else { return false };
        let connection = Arc::clone(&driven.connection);
        connection.unmark();
        let mut state = connection.state();
        if driven.deadline.is_some_and(|deadline| deadline <= now) {
            state.inner.handle_timeout(now);
        }
        let mut is_over = false;
        while let Some(event) = state.inner.poll_endpoint_events() {
            is_over |= event.is_drained();
            if let Some(back) = self.state.endpoint.handle_event(handle, event) {
                state.inner.handle_event(back);
            }
        }
        while let Some(event) = state.inner.poll() {
            self.event(&connection, &mut state, event);
        }
        if is_over {
            self.lost(&connection, &mut state, "it ended");
            self.paths.end(&connection, &state);
            self.state.connections.remove(&handle);
            return false;
        }
        let sent = self.transmit(&mut state, now);
        let deadline = state.inner.poll_timeout();
        drop(state);
        if let Some(driven) = self.state.connections.get_mut(&handle) {
            driven.deadline = deadline;
        }
        if sent != Sent::All && connection.mark() {
            self.state.due.push(handle);
        }
        // A socket that is full says when it is not.
        sent == Sent::Some
    }

    fn event(&mut self, connection: &Arc<Connection>, state: &mut State, event: Event) {
        match event {
            Event::Connected => self.connected(connection, state),
            Event::ConnectionLost { reason } => self.lost(connection, state, &reason.to_string()),
            Event::Stream(StreamEvent::Opened { dir: Dir::Bi }) => self.serve(connection, state),
            Event::Stream(StreamEvent::Readable { id }) => state.fill(id),
            Event::Stream(StreamEvent::Writable { id }) => state.empty(id),
            Event::Stream(StreamEvent::Stopped { id, .. }) => state.stop(id),
            Event::Stream(StreamEvent::Available { .. }) => state.allow(),
            _ => {}
        }
    }

    /// The handshake is done: now it is known who is there.
    fn connected(&mut self, connection: &Arc<Connection>, state: &mut State) {
        if state.inner.rtt() >= FAR_FROM {
            state.inner.set_receive_window(VarInt::from_u32(FAR_WINDOW));
            state.inner.set_send_window(FAR_WINDOW.into());
        }
        let who = who(state);
        let key = who.as_ref().map(|who| who.key);
        let Some(driven) = self.state.connections.get_mut(&connection.handle) else { return };
        let is_wanted = match (std::mem::replace(&mut driven.stage, Stage::Ours), who) {
            (Stage::Called, Some(who)) => {
                driven.stage = Stage::Serving(who.name);
                // Streams may have come with the last packet of the handshake.
                self.serve(connection, state);
                true
            }
            (Stage::Calling { peer, reply }, Some(who)) if peer == who.name => {
                reply.send(Ok(Arc::clone(connection))).is_ok()
            }
            (Stage::Calling { peer, reply }, who) => {
                let who = who.map_or_else(
                    || "somebody without a name".to_owned(),
                    |who| format!("`{}`", who.name),
                );
                let reason = format!("{who} answers at {}", state.inner.remote_address());
                let _ = reply.send(Err(Error::Lied { peer: peer.to_string(), reason }));
                false
            }
            _ => false,
        };
        self.state.unproven = self.state.unproven.saturating_sub(1);
        if let Some(key) = key.filter(|_| is_wanted) {
            self.watch(connection, state, key);
        } else {
            state.inner.close(self.clock.now(), VarInt::from_u32(0), Bytes::new());
            state.lose("nobody wants it");
        }
    }

    /// Ends the connection when its peer is not believed any more.
    fn watch(&self, connection: &Arc<Connection>, state: &State, key: PeerKey) {
        let (connection, over) = (Arc::downgrade(connection), state.over());
        let revocations = self.revocations.clone();
        self.shared.runner.spawn("quic peer", async move {
            tokio::select! {
                biased;
                () = over.cancelled() => {}
                () = revocations.revoked(key) => {
                    if let Some(connection) = connection.upgrade() {
                        connection.close();
                    }
                }
            }
        });
    }

    /// It is over: whoever waits for it is told why.
    fn lost(&mut self, connection: &Connection, state: &mut State, reason: &str) {
        state.lose(reason);
        let Some(driven) = self.state.connections.get_mut(&connection.handle) else { return };
        match std::mem::replace(&mut driven.stage, Stage::Ours) {
            Stage::Calling { peer, reply } => {
                let (peer, reason) = (peer.to_string(), reason.to_owned());
                let _ = reply.send(Err(Error::Unreachable { peer, reason }));
            }
            Stage::Called => {}
            Stage::Serving(_) | Stage::Ours => return,
        }
        self.state.unproven = self.state.unproven.saturating_sub(1);
    }

    /// Answers the calls that have come.
    fn serve(&self, connection: &Arc<Connection>, state: &mut State) {
        let driven = self.state.connections.get(&connection.handle);
        let Some(Driven { stage: Stage::Serving(peer), .. }) = driven else { return };
        let Some(answer) = &self.answer else { return };
        while let Some(id) = state.inner.streams().accept(Dir::Bi) {
            let stream = Stream::new(Arc::clone(connection), id);
            self.shared.runner.spawn("quic call", answer(stream, peer.clone()));
        }
    }

    /// Sends what was left over; as long as there is any, nothing else is sent.
    fn unblock(&mut self) {
        if let Some(transmit) = self.state.blocked.take()
            && !self.socket.send(&transmit, &self.state.outgoing[..transmit.size])
        {
            self.state.blocked = Some(transmit);
        }
    }

    /// Sends what a connection has.
    fn transmit(&mut self, state: &mut State, now: Instant) -> Sent {
        for _ in 0..TRAINS_PER_TURN {
            if self.state.blocked.is_some() {
                return Sent::Full;
            }
            let train = self.socket.train(state.inner.current_mtu().into());
            self.state.outgoing.clear();
            let transmit = state.inner.poll_transmit(now, train, &mut self.state.outgoing);
            let Some(transmit) = transmit else { return Sent::All };
            if !self.socket.send(&transmit, &self.state.outgoing[..transmit.size]) {
                self.state.blocked = Some(transmit);
            }
        }
        Sent::Some
    }

    /// Tells all peers that this process is going, as far as one packet to each can.
    fn close_all(mut self) {
        let now = self.clock.now();
        let connections = std::mem::take(&mut self.state.connections);
        for driven in connections.into_values() {
            let mut state = driven.connection.state();
            state.inner.close(now, VarInt::from_u32(0), Bytes::from_static(b"going away"));
            state.lose("this process is going away");
            self.state.outgoing.clear();
            if let Some(out) = state.inner.poll_transmit(now, 1, &mut self.state.outgoing) {
                let _ = self.socket.send(&out, &self.state.outgoing[..out.size]);
            }
        }
    }
}

/// Who is at the other end, by the certificate that it showed.
fn who(state: &State) -> Option<Peer> {
    let identity = state.inner.crypto_session().peer_identity()?;
    let chain = identity.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    peer_of(&chain)
}
