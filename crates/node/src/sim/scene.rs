//! The processes of a run, and how clients speak to them.

use std::cell::RefCell;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use ballast_format::ErrorKind;
use ballast_format::id::RepoId;
use ballast_format::log::{Role, TokenRole, Visibility};
use ballast_testkit::sim::{Habits, Process, World};

use super::book::Book;
use super::{create_repo, open_with};
use crate::access::{Access, Caller, Repo};
use crate::account::{NewToken, NewUser};
use crate::error::{Error, Result};
use crate::gc::{GcSettings, REMEMBERED};
use crate::hub::Hub;

/// Processes that run at the same time.
const PROCESSES: usize = 4;
/// The longest that clocks are wrong.
const SKEW_MS: u64 = 24 * 60 * 60 * 1000;
/// How often a client tries again what may work later.
const TRIES: usize = 8;

/// A process with its hub.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) process: Arc<Process>,
    pub(super) hub: Arc<Hub>,
}

/// A run.
pub(super) struct Scene {
    pub(super) world: Arc<World>,
    pub(super) gc: GcSettings,
    pub(super) habits: Habits,
    pub(super) callers: Vec<Caller>,
    pub(super) book: RefCell<Book>,
    nodes: RefCell<Vec<Node>>,
    /// When everybody stops.
    pub(super) ends: Duration,
}

impl Scene {
    /// A hub with users and a repo, on a store that does not fail yet.
    pub(super) async fn begin(world: &Arc<World>, days: u64) -> Result<Self> {
        let hours = Duration::from_hours;
        let wait = *world.pick(&[Duration::from_mins(1), hours(1), hours(24), REMEMBERED]);
        let gc = GcSettings {
            wait,
            floor: *world.pick(&[Duration::ZERO, hours(1), hours(24)]),
            interval: None,
            // With less patience it is refused.
            rewrite_below: if wait < REMEMBERED { 0 } else { 90 },
            rate: None,
        };
        let process = world.process(Habits::default());
        let hub = open_with(&process, gc).await?;
        let first = hub.bootstrap().await?.expect("there was no user");
        let admin = hub.authenticate(&first.token)?;
        hub.create_org(&admin, "lab", "", Visibility::Public).await?;
        let mut callers = Vec::new();
        for name in ["anna", "bert", "carl"] {
            let user = NewUser { name, fullname: "", email: None, admin: false };
            hub.create_user(&admin, &user).await?;
            hub.set_member(&admin, "lab", name, Some(Role::Admin)).await?;
            let token = NewToken { name: "test", role: TokenRole::Write, expires_ms: None };
            let (_, secret) = hub.create_token(&admin, name, &token).await?;
            callers.push(hub.authenticate(&secret)?);
        }
        let repo = create_repo(&hub, &callers[0], "lab/first").await?;
        let mut book = Book::default();
        book.know(&repo);
        let mut nodes = vec![Node { process, hub }];
        for _ in 1..PROCESSES {
            let process = world.process(Habits::default());
            let hub = open_with(&process, gc).await?;
            nodes.push(Node { process, hub });
        }
        let habits = habits_of(world);
        let scene = Self {
            world: Arc::clone(world),
            gc,
            habits,
            callers,
            book: RefCell::new(book),
            nodes: RefCell::new(nodes),
            ends: world.time().now() + hours(24 * days),
        };
        for node in scene.nodes() {
            node.process.set_habits(habits);
            node.process.set_skew_ms(scene.skew_ms());
        }
        Ok(scene)
    }

    /// Whether the run goes on.
    pub(super) fn goes_on(&self) -> bool {
        self.world.time().now() < self.ends
    }

    /// A clock's error.
    pub(super) fn skew_ms(&self) -> i64 {
        let skew = self.world.below(2 * SKEW_MS + 1).cast_signed();
        skew - SKEW_MS.cast_signed()
    }

    pub(super) fn nodes(&self) -> Vec<Node> {
        self.nodes.borrow().clone()
    }

    /// One of the processes.
    pub(super) fn any(&self) -> Node {
        self.world.pick(&self.nodes.borrow()).clone()
    }

    /// Ends a process and begins another in its place, with a new index. While the store fails it
    /// is begun again and again.
    pub(super) async fn replace(&self, place: usize) {
        self.nodes()[place].process.kill();
        loop {
            // To read all that there is takes hundreds of calls, and is begun again if one fails.
            let opening = Habits { refused: self.habits.refused.min(3), ..self.habits };
            let process = self.world.process(opening);
            process.set_skew_ms(self.skew_ms());
            match open_with(&process, self.gc).await {
                Ok(hub) => {
                    process.set_habits(self.habits);
                    self.nodes.borrow_mut()[place] = Node { process, hub };
                    return;
                }
                Err(error) => {
                    self.allow(&error, None, "opening a hub");
                    process.kill();
                    self.world.pass(Duration::from_mins(1)).await;
                }
            }
        }
    }

    /// Asks a process; whether it answers, or what is left of it.
    pub(super) async fn ask<T>(
        &self,
        node: &Node,
        verb: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let lost = |reason: &str| Err(Error::Busy { reason: reason.to_owned() });
        // Most clients wait for the answer, whatever it takes.
        let hours = if self.world.happens(150) { 1 } else { 24 * 60 };
        tokio::select! {
            biased;
            answer = verb => answer,
            () = node.process.died() => lost("the connection was lost"),
            () = self.world.pass(Duration::from_hours(hours)) => lost("no answer came"),
        }
    }

    /// Asks until there is an answer, or until the client loses patience: processes in turn, and
    /// now and then two at once.
    pub(super) async fn insist<T, F: Future<Output = Result<T>>>(
        &self,
        repo: Option<RepoId>,
        what: &str,
        verb: impl Fn(Arc<Hub>) -> F,
    ) -> Result<T> {
        let mut answer = Err(Error::Busy { reason: "nobody was asked".to_owned() });
        for _ in 0..TRIES {
            let (one, other) = (self.any(), self.any());
            answer = if self.world.happens(80) {
                let both = (self.ask(&one, verb(Arc::clone(&one.hub))), async {
                    self.ask(&other, verb(Arc::clone(&other.hub))).await
                });
                let (one, other) = tokio::join!(both.0, both.1);
                one.or(other)
            } else {
                self.ask(&one, verb(Arc::clone(&one.hub))).await
            };
            match &answer {
                Err(error) if self.may_pass(error) => {
                    self.allow(error, repo, what);
                    let time = self.world.between(Duration::from_secs(40), Duration::from_hours(2));
                    self.world.pass(time).await;
                }
                _ => break,
            }
        }
        if let Err(error) = &answer {
            self.allow(error, repo, what);
        }
        answer
    }

    /// Whether a later try may be answered otherwise.
    pub(super) fn may_pass(&self, error: &Error) -> bool {
        match error.kind() {
            ErrorKind::Unavailable => true,
            // A listing that is behind: what is there looks as if it were not.
            ErrorKind::Corrupt | ErrorKind::Invalid => self.habits.stale > 0,
            _ => false,
        }
    }

    /// Some errors are never right, whatever the store does.
    pub(super) fn allow(&self, error: &Error, repo: Option<RepoId>, what: &str) {
        let is_doomed = repo.is_some_and(|repo| self.book.borrow().is_doomed(repo));
        let is_fault = matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Internal);
        assert!(!is_fault || is_doomed || self.habits.stale > 0, "{what}: {error}");
    }

    /// A repo as a client comes to it.
    pub(super) async fn visit(&self, hub: &Arc<Hub>, caller: &Caller, id: RepoId) -> Result<Repo> {
        hub.freshen().await?;
        let found = hub.repo_by_id(caller, id, Access::Read);
        let is_doomed = self.book.borrow().is_doomed(id);
        assert!(found.is_ok() || is_doomed, "the repo {id} is there, and not found: {found:?}");
        found
    }
}

/// What goes wrong in this run: in some everything, in some nothing.
fn habits_of(world: &World) -> Habits {
    let rate = |most: u64| {
        let rate = if world.happens(500) { world.below(most) } else { 0 };
        u32::try_from(rate).expect("small")
    };
    Habits {
        refused: rate(60),
        reply_lost: rate(80),
        late: rate(60),
        stale: if world.happens(250) { rate(100) } else { 0 },
        slow: rate(40),
        nap: rate(12),
    }
}
