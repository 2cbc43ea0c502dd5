//! Tracks the connections of the HTTP server and their resources: limits on their number, on requests in
//! progress and on bytes of responses, and the choice of the connection to close when a limit is reached.
//!
//! A new connection is always accepted: beyond the limit, the connection that has waited longest for its
//! client is closed. So a client that sends its request at once is served, however many others send nothing.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::{Duration, Instant},
};

/// Maximum number of connections. Crossed by `slow_clients_do_not_block_health` in tests/http.rs.
pub(super) const CONNECTIONS: usize = 512;
/// Maximum number of requests in progress, not counting health, metrics and live streams.
pub(super) const REQUESTS: usize = 64;
/// Maximum number of bytes of responses that wait for their clients.
pub(super) const RESPONSE_BYTES: usize = 64 << 20;
/// When there is no room for a new request, a response that has been sending for longer than this is cut off.
const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes per permit of [`Pool::bytes`].
const UNIT: usize = 1 << 10;

/// State of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The client has not sent the head of a request, or the connection is idle.
    Waiting,
    /// A request is being processed.
    Working,
    /// A response is being sent.
    Sending,
    /// A live stream is being sent; it has its own limit.
    Streaming,
}

/// All connections of a server.
pub(super) struct Pool {
    open: Mutex<Open>,
    requests: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
}

#[derive(Default)]
struct Open {
    next: u64,
    members: BTreeMap<u64, Arc<Member>>,
}

/// A connection's entry, shared with the tasks that serve it.
pub(super) struct Member {
    pool: Arc<Pool>,
    state: Mutex<State>,
    close: Notify,
}

struct State {
    phase: Phase,
    since: Instant,
    /// Number of response bodies that have not been passed to the connection completely.
    bodies: usize,
    request: Option<OwnedSemaphorePermit>,
    bytes: Vec<OwnedSemaphorePermit>,
}

/// Keeps a connection in the pool until dropped.
pub(super) struct Entry {
    id: u64,
    pub(super) member: Arc<Member>,
}

impl Pool {
    pub(super) fn new() -> Arc<Pool> {
        Arc::new(Pool {
            open: Mutex::default(),
            requests: Arc::new(Semaphore::new(REQUESTS)),
            bytes: Arc::new(Semaphore::new(RESPONSE_BYTES / UNIT)),
        })
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a connection; if there are already [`CONNECTIONS`], closes one of them.
    pub(super) fn enter(self: &Arc<Self>) -> Entry {
        let mut open = self.open();
        if open.members.len() >= CONNECTIONS {
            let oldest = [Phase::Waiting, Phase::Sending, Phase::Working, Phase::Streaming]
                .into_iter()
                .find_map(|phase| open.oldest(phase, Instant::now()));
            if let Some(member) = oldest.and_then(|id| open.members.remove(&id)) {
                member.close.notify_one();
            }
        }
        let state = State {
            phase: Phase::Waiting,
            since: Instant::now(),
            bodies: 0,
            request: None,
            bytes: Vec::new(),
        };
        let member = Member { pool: self.clone(), state: Mutex::new(state), close: Notify::new() };
        let (id, member) = (open.next, Arc::new(member));
        open.next += 1;
        open.members.insert(id, member.clone());
        Entry { id, member }
    }

    /// Closes the connections without a request in progress, and the live streams.
    pub(super) fn close_idle(&self) {
        self.close_if(|phase| matches!(phase, Phase::Waiting | Phase::Streaming));
    }

    /// Closes all connections.
    pub(super) fn close_all(&self) {
        self.close_if(|_| true);
    }

    fn close_if(&self, which: impl Fn(Phase) -> bool) {
        for member in self.open().members.values().filter(|member| which(member.state().phase)) {
            member.close.notify_one();
        }
    }

    /// Closes the connection that has been sending its response for the longest time, if that is longer than
    /// [`PATIENCE`].
    fn close_slowest(&self) {
        let mut open = self.open();
        let Some(before) = Instant::now().checked_sub(PATIENCE) else { return };
        if let Some(member) = open.oldest(Phase::Sending, before).and_then(|id| open.members.remove(&id)) {
            member.close.notify_one();
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.open().members.len()
    }
}

impl Open {
    /// Returns the connection that entered `phase` first, no later than `by`.
    fn oldest(&self, phase: Phase, by: Instant) -> Option<u64> {
        let since = |member: &Member| {
            let state = member.state();
            (state.phase == phase && state.since <= by).then_some(state.since)
        };
        let all = self.members.iter().filter_map(|(id, member)| Some((since(member)?, *id)));
        all.min().map(|(_, id)| id)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // A connection that was closed to make room is no longer in the pool.
        self.member.pool.open().members.remove(&self.id);
        *self.member.state() = State { request: None, bytes: Vec::new(), ..State::ended() };
    }
}

impl State {
    fn ended() -> State {
        State { phase: Phase::Waiting, since: Instant::now(), bodies: 0, request: None, bytes: Vec::new() }
    }

    fn enter(&mut self, phase: Phase) {
        (self.phase, self.since) = (phase, Instant::now());
    }
}

impl Member {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when the connection must be closed.
    pub(super) async fn closed(&self) {
        self.close.notified().await;
    }

    /// Records that the head of a request was read. Returns false when too many requests are in progress: the
    /// caller then responds with 503.
    pub(super) fn begin(&self, limited: bool) -> bool {
        let mut state = self.state();
        state.enter(Phase::Working);
        if !limited || state.request.is_some() {
            return true;
        }
        state.request = self.pool.requests.clone().try_acquire_owned().ok();
        let admitted = state.request.is_some();
        drop(state);
        if !admitted {
            self.pool.close_slowest();
        }
        admitted
    }

    /// Records that a response is about to be sent, with a body of `bytes` if known. Returns false when too
    /// many bytes already wait.
    pub(super) fn respond(&self, bytes: Option<u64>) -> bool {
        let units = bytes.map_or(0, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX).div_ceil(UNIT));
        // A single response is never too large.
        let units = u32::try_from(units.min(RESPONSE_BYTES / UNIT)).unwrap_or(u32::MAX);
        let permit = self.pool.bytes.clone().try_acquire_many_owned(units);
        let admitted = permit.is_ok();
        let mut state = self.state();
        state.bytes.extend(permit);
        state.bodies += 1;
        state.enter(Phase::Sending);
        drop(state);
        if !admitted {
            self.pool.close_slowest();
        }
        admitted
    }

    /// Records that a live stream started.
    pub(super) fn stream(&self) {
        let mut state = self.state();
        state.enter(Phase::Streaming);
        state.bodies += 1;
        state.request = None;
    }

    /// Records that a body was passed to the connection completely.
    pub(super) fn body_ended(&self) {
        let mut state = self.state();
        state.bodies = state.bodies.saturating_sub(1);
    }

    /// Records that the kernel has accepted all bytes so far.
    pub(super) fn flushed(&self) {
        let mut state = self.state();
        if state.phase == Phase::Sending && state.bodies == 0 {
            state.enter(Phase::Waiting);
            state.request = None;
            state.bytes.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn is_closed(entry: &Entry) -> bool {
        entry.member.closed().now_or_never().is_some()
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_waiting_connection_makes_room() {
        let pool = Pool::new();
        let mut entries = Vec::new();
        for _ in 0..CONNECTIONS {
            entries.push(pool.enter());
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert!(entries[0].member.begin(true), "there is room for a request");
        let new = pool.enter();
        assert!(is_closed(&entries[1]), "the first of those that wait");
        assert!(!is_closed(&entries[0]) && !is_closed(&entries[2]) && !is_closed(&new));
        assert_eq!(pool.len(), CONNECTIONS);
        drop(entries);
        assert_eq!(pool.len(), 1, "{} have left", CONNECTIONS);
    }

    #[tokio::test(start_paused = true)]
    async fn slow_responses_make_room_for_requests() {
        let pool = Pool::new();
        let busy: Vec<Entry> = (0..REQUESTS).map(|_| pool.enter()).collect();
        for entry in &busy {
            assert!(entry.member.begin(true) && entry.member.respond(Some(10)));
        }
        let late = pool.enter();
        assert!(!late.member.begin(true), "too many requests");
        assert!(late.member.begin(false), "health is not counted");
        assert!(!busy.iter().any(is_closed), "all have just begun");
        tokio::time::advance(PATIENCE * 2).await;
        assert!(!late.member.begin(true), "the slow one has not gone yet");
        assert!(is_closed(&busy[0]));
        drop(busy);
        assert!(late.member.begin(true));
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_that_wait_are_bounded() {
        let pool = Pool::new();
        let (first, second) = (pool.enter(), pool.enter());
        assert!(first.member.begin(true) && first.member.respond(Some(u64::MAX)), "alone it may be large");
        assert!(second.member.begin(true) && !second.member.respond(Some(1)), "no byte is left");
        first.member.flushed();
        assert!(!second.member.respond(Some(1)), "its body is still read");
        first.member.body_ended();
        first.member.flushed();
        assert!(second.member.respond(Some(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn stopping_closes_idle_connections_and_streams_first() {
        let pool = Pool::new();
        let (idle, working, streaming) = (pool.enter(), pool.enter(), pool.enter());
        working.member.begin(true);
        streaming.member.begin(true);
        streaming.member.stream();
        pool.close_idle();
        assert!(is_closed(&idle) && is_closed(&streaming) && !is_closed(&working));
        pool.close_all();
        assert!(is_closed(&working));
    }
}
